"""Rows of a decoded frame: all at once, or one by one as JSON would give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.cells import CLEAN_COLUMN, EventLimits, as_texts, ids_fit
from connectors.origins import Origins
from connectors.packing import Column
from connectors.records import Place
from connectors.rows import EventRows


def rows_of_frame(
    batch: pa.RecordBatch,
    place: Place,
    *,
    modality: str,
    columns: dict[str, Column],
) -> EventRows:
    """All rows of a frame that sluice wrote, with the given columns of content.

    Raises:
        KeyError: a column of ids or times is not there.
        ValueError: an id is missing, or no text.
        pa.ArrowException: a time is null, or no time at all.
    """
    return EventRows(
        modality=modality,
        event_id=texts_of(batch, "event_id"),
        case_id=texts_of(batch, "case_id"),
        event_time_ms=batch.column("event_time").cast(pa.int64()).to_numpy(),
        created_ms=batch.column("created_ms").to_numpy(),
        origins=_origins(batch, place),
        columns=columns,
    )


def texts_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column of texts of a frame that sluice wrote.

    Raises:
        KeyError: it is not there.
        ValueError: a text is missing, or is none.
    """
    column = batch.column(name)
    texts = as_texts(column)
    if texts is None or texts.null_count:
        msg = f"column {name!r}: expected texts, got {column.type}"
        if texts is not None:
            msg = f"column {name!r}: {texts.null_count} of its texts are missing"
        raise ValueError(msg)
    return texts


def clean_rows(
    batch: pa.RecordBatch,
    place: Place,
    *,
    modality: str,
    columns: Mapping[str, str],
    limits: EventLimits,
    latest_ms: int,
) -> EventRows | None:
    """All rows of a frame of events when every one is valid, else None.

    Args:
        batch: at least one row; has ids, `event_time` and the columns named.
        place: where the frame lies.
        modality: of the rows.
        columns: name to kind, as an `EventReader` takes them.
        limits: what an event may look like.
        latest_ms: the last event time allowed.
    """
    names = ["event_id", "case_id", "event_time", *columns]
    if any(batch.column(name).null_count for name in names):
        return None
    ids = [as_texts(batch.column(name)) for name in names[:2]]
    if not all(x is not None and ids_fit(x, limits, blank=False) for x in ids):
        return None
    if not pa.types.is_timestamp(batch.column("event_time").type):
        return None
    if "schema_version" in batch.schema.names:
        return None
    times = _milliseconds(batch.column("event_time")).to_numpy()
    if np.minimum.reduce(times) < limits.min_time_ms:
        return None
    if np.maximum.reduce(times) > latest_ms:
        return None
    content: dict[str, Column] = {}
    for name, kind in columns.items():
        values = CLEAN_COLUMN[kind](name, batch.column(name), limits)
        if values is None:
            return None
        content[name] = values
    created = _clean_created(batch)
    if created is None:
        return None
    return EventRows(
        modality=modality,
        event_id=ids[0],
        case_id=ids[1],
        event_time_ms=times,
        created_ms=created,
        origins=_origins(batch, place),
        columns=content,
        bools=tuple(name for name, kind in columns.items() if kind == "bool"),
    )


def _clean_created(batch: pa.RecordBatch) -> npt.NDArray[np.int64] | None:
    if "created_ms" not in batch.schema.names:
        return np.zeros(batch.num_rows, dtype=np.int64)
    column = batch.column("created_ms")
    if column.null_count or not pa.types.is_int64(column.type):
        return None
    created: npt.NDArray[np.int64] = column.to_numpy(zero_copy_only=False)
    if np.minimum.reduce(created) < 0 or np.maximum.reduce(created) >= 2**62:
        return None
    return created


def objects_of_frame(
    batch: pa.RecordBatch, columns: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Each row as the JSON object that would say the same; nothing is checked yet."""
    times = batch.column("event_time")
    if pa.types.is_timestamp(times.type):
        # milliseconds as integers: years beyond 9999 do not fit a datetime
        times = _milliseconds(times)
    known = {"event_id", "case_id", *columns, "created_ms", "schema_version"}
    cells = {n: _cells(batch.column(n)) for n in batch.schema.names if n in known}
    cells["event_time_ms"] = _cells(times)
    return [
        dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)
    ]


def _origins(batch: pa.RecordBatch, place: Place) -> Origins:
    return Origins.of_frame(place, np.arange(batch.num_rows, dtype=np.int32))


def _milliseconds(times: pa.Array) -> pa.Array:
    return times.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())


def _cells(column: pa.Array) -> list[Any]:
    """The cells as Python values; in a type that no field may have, the type itself.

    Some cells of such types (far dates, unknown time zones) have no Python value.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if any(is_kind(kind) for is_kind in _CELL_TYPES):
        cells: list[Any] = column.to_pylist()
        return cells
    return [column.type] * len(column)


_CELL_TYPES = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)
