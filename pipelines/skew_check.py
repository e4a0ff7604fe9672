"""The skew check's inputs: what was served, which labels were known, what was refused.

A file of served rows is Parquet: `source_offset` and `source_row` say where an event
was read, and so the order of arrival; `labels_read` how far the labels topic had been
read by then, as JSON of partition to offset. Labels as they lay on their topic stand in
a second file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from automl.arrival import KNOWN_FROM
from connectors.codec import CodecError, decode_frame
from connectors.kafka import Value
from connectors.labels import read_labels
from connectors.rows import EventRows
from connectors.schemas import LABELS, TIME, feature_names, rows_of_list
from connectors.topics import event_topic

Ints = npt.NDArray[np.int64]

LABELS_READ = "labels_read"
#: Labels and where each lay.
PLACED_LABELS = pa.schema(
    [*LABELS, pa.field("partition", pa.int32()), pa.field("offset", pa.int64())]
)
_KEYS = ("event_id", "case_id", "event_time")
_PLACE = ("source_offset", "source_row")
_ROWS_IN_FRAME = 2**24


def served_table(
    frames: Iterable[pa.RecordBatch], *, features: Sequence[str] | None = None
) -> pa.Table:
    """The rows of `features` frames in order of arrival, a column for each feature.

    Args:
        frames: as they were read from the topic; frames from before `source_offset`
            was written keep their order.
        features: take the frames of these features alone; else all must have the same.

    Raises:
        ValueError: frames of different features.
    """
    parts: list[pa.Table] = []
    names = None if features is None else list(features)
    for frame in frames:
        theirs = feature_names(frame.schema)
        names = theirs if names is None else names
        if theirs == names:
            parts.append(_served(frame, names))
        elif features is None:
            msg = (
                "put served rows together: frames have different features "
                f"({len(names)} and {len(theirs)}); take those of one model"
            )
            raise ValueError(msg)
    if not parts:
        return pa.schema(
            [
                pa.field("event_id", pa.string()),
                pa.field("case_id", pa.string()),
                pa.field("event_time", TIME),
                pa.field("source_offset", pa.int64()),
                pa.field("source_row", pa.int32()),
                pa.field(LABELS_READ, pa.string()),
                *(pa.field(name, pa.float64()) for name in names or ()),
            ]
        ).empty_table()
    return in_order(pa.concat_tables(parts))


def _served(frame: pa.RecordBatch, names: Sequence[str]) -> pa.Table:
    matrix = rows_of_list(frame.column("values"))
    count = frame.num_rows
    columns: dict[str, Any] = {name: frame.column(name) for name in _KEYS}
    there = _PLACE[0] in frame.schema.names
    columns["source_offset"] = pa.array([-1] * count, pa.int64())
    columns["source_row"] = pa.array([-1] * count, pa.int32())
    if there:
        columns |= {name: frame.column(name) for name in _PLACE}
    columns[LABELS_READ] = pa.array(_labels_read(frame), pa.string())
    columns |= {name: pa.array(matrix[:, i]) for i, name in enumerate(names)}
    return pa.table(columns)


def _labels_read(frame: pa.RecordBatch) -> list[str | None]:
    """For each row JSON of partition to offset; None where the frame does not say."""
    if LABELS_READ in frame.schema.names:  # a list for each row, by partition
        rows = frame.column(LABELS_READ).to_pylist()
        return [json.dumps({str(p): to for p, to in enumerate(row)}) for row in rows]
    read = (frame.schema.metadata or {}).get(LABELS_READ.encode())
    return [None if read is None else read.decode()] * frame.num_rows


def in_order(served: pa.Table) -> pa.Table:
    """Served rows in order of arrival, as far as they say where they were read."""
    if any(name not in served.column_names for name in _PLACE):
        return served
    order = pc.sort_indices(served, sort_keys=[(n, "ascending") for n in _PLACE])
    return served.take(order)


def write_served(
    file: Path, frames: Iterable[pa.RecordBatch], labels: pa.Table | None = None
) -> None:
    """Write served rows, and beside them the labels as `labels_table` gives them."""
    pq.write_table(served_table(frames), file)
    if labels is not None:
        pq.write_table(labels, _labels_file(file))


def read_served(file: Path) -> tuple[pa.Table, pa.Table | None]:
    """Served rows in order of arrival, and the labels beside them if there are any."""
    beside = _labels_file(file)
    labels = pq.read_table(beside) if beside.is_file() else None
    return in_order(pq.read_table(file)), labels


def _labels_file(file: Path) -> Path:
    return file.with_suffix(".labels.parquet")


def labels_table(values: Iterable[Value]) -> pa.Table:
    """The good labels of Kafka values, each with its place: schema `PLACED_LABELS`."""
    rows = [
        (one.case_id, one.label_time_ms, one.label, place.partition, place.offset)
        for value in values
        for place in (value.place,)
        for one in read_labels(value.value, place)[0]
    ]
    columns: list[Any] = [*zip(*rows, strict=True)] or [()] * len(PLACED_LABELS)
    arrays = [
        pa.array(column, pa.int64()).cast(TIME)
        if field.type == TIME
        else pa.array(column, field.type)
        for field, column in zip(PLACED_LABELS, columns, strict=True)
    ]
    return pa.table(arrays, schema=PLACED_LABELS)


def with_known_from(labels: pa.Table, served: pa.Table) -> pa.Table:
    """Labels with the position of the first served row that may count each.

    Without places of labels, or rows that tell how far labels were read, they are
    given back as they are: known from their label time on.
    """
    names = served.column_names
    if "offset" not in labels.column_names or LABELS_READ not in names:
        return labels
    told = served.column(LABELS_READ)
    if told.null_count == len(told):
        return labels
    codes = told.combine_chunks().dictionary_encode()
    read = [json.loads(one) for one in codes.dictionary.to_pylist()]
    code = pc.fill_null(codes.indices, -1).to_numpy(zero_copy_only=False)
    partition = labels.column("partition").to_numpy()
    offset = labels.column("offset").to_numpy()
    known = np.empty(labels.num_rows, dtype=np.int64)
    for number in np.unique(partition).tolist():
        reached = np.array([*(one.get(str(number), 0) for one in read), 0])
        at = np.maximum.accumulate(reached[code])
        ours = partition == number
        known[ours] = np.searchsorted(at, offset[ours], side="right")
    return labels.append_column(KNOWN_FROM, pa.array(known))


def set_aside(letters: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Event id to kind of every tabular event that a dead letter is about."""
    found: dict[str, str] = {}
    for letter in letters:
        if not letter["topic"].endswith(event_topic("tabular")):
            continue
        ids = [letter["event_id"]] if letter["event_id"] else _ids(letter["value"])
        found |= dict.fromkeys(ids, letter["kind"])
    return found


def _ids(value: bytes) -> list[str]:
    """The event ids in a frame that was set aside whole."""
    try:
        column = decode_frame(value).column("event_id")
    except (CodecError, KeyError):
        return []
    if not pa.types.is_string(column.type):
        return []
    return [one for one in column.to_pylist() if one]


def events_table(rows: EventRows, columns: Iterable[str]) -> pa.Table:
    """Event rows as an archive's table, with the place where each was read."""
    found: dict[str, Any] = {
        "event_id": rows.event_id,
        "case_id": rows.case_id,
        "event_time": pa.array(rows.event_time_ms).cast(TIME),
        "source_offset": pa.array(rows.origins.offset),
        "source_row": pa.array(rows.origins.row),
    }
    found |= {name: rows.columns[name] for name in columns}
    arrays = [x if isinstance(x, pa.Array) else pa.array(x) for x in found.values()]
    return pa.table(arrays, names=[*found])


def places_of(rows: pa.Table) -> Ints:
    """One number for each row that grows with its place in the topic."""
    offset, row = (rows.column(name).to_numpy() for name in _PLACE)
    return np.asarray(offset * _ROWS_IN_FRAME + row + 1, dtype=np.int64)
