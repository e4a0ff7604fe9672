"""Feature values as a file: what the stream served and a backfill gives, alike.

Equal values give equal bytes, whoever computed them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.codec import decode_frame
from connectors.feature_rows import VALUES
from connectors.kafka import Reader
from connectors.schemas import TIME, feature_names, rows_of_list
from pipelines.event_keys import event_keys

KEYS = pa.schema(
    [
        pa.field("event_id", pa.string()),
        pa.field("case_id", pa.string()),
        pa.field("event_time", TIME),
    ]
)


class MissingFeaturesError(Exception):
    """Events were decided, but their features are not in the topic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """The features that a run served.

    Attributes:
        table: one row for each event, the first that was served.
        repeated: rows of an event that had been served before.
        differing: of those, the ones with another time or another value.
        frames: all of them as they came.
    """

    table: pa.Table
    repeated: int
    differing: int
    frames: tuple[pa.RecordBatch, ...] = ()


def write_features(table: pa.Table, file: Path) -> None:
    """Write event_id, case_id, event_time and the features, in event-time order.

    Args:
        table: the three and one float64 column for each feature, rows in any order.
        file: Parquet to write.
    """
    names = [name for name in table.column_names if name not in KEYS.names]
    fields = [*KEYS, *(pa.field(name, pa.float64()) for name in names)]
    whole = table.select([*KEYS.names, *names]).cast(pa.schema(fields))
    by = [("event_time", "ascending"), ("event_id", "ascending")]
    by.append(("case_id", "ascending"))
    ordered = whole.take(pc.sort_indices(whole, sort_keys=by)).combine_chunks()
    pq.write_table(ordered, file, row_group_size=65_536, compression="zstd")


def read_served(
    bootstrap: str, *, prefix: str, events: int, timeout_s: float = 60.0
) -> Served:
    """What a run wrote to its `features` topic.

    Args:
        bootstrap: HOST:PORT of the broker.
        prefix: topic prefix of the run.
        events: how many distinct events to wait for.
        timeout_s: how long.

    Raises:
        MissingFeaturesError: they did not come; the message counts them.
    """
    frames: list[pa.RecordBatch] = []
    seen: set[int] = set()
    deadline = time.monotonic() + timeout_s
    with Reader(bootstrap, [f"{prefix}features"]) as reader:
        while True:
            for value in reader.poll():
                frames.append(decode_frame(value.value or b""))
                seen.update(_keys(frames[-1]).tolist())
            if len(seen) >= events:
                break
            if time.monotonic() > deadline:
                msg = (
                    f"read {prefix}features: {len(seen)} of {events} events after "
                    f"{timeout_s:.0f} s; look at the score job's log for its sink"
                )
                raise MissingFeaturesError(msg)
    return served_once(frames)


def served_once(frames: list[pa.RecordBatch]) -> Served:
    """Frames of the `features` topic as one table, each event once."""
    if not frames:
        return Served(table=KEYS.empty_table(), repeated=0, differing=0)
    names = feature_names(frames[0].schema)
    keys = np.concatenate([_keys(frame) for frame in frames])
    values = np.concatenate([rows_of_list(frame.column(VALUES)) for frame in frames])
    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    bits = values.view(np.int64)
    who = pa.concat_tables(
        pa.Table.from_batches([frame]).select(KEYS.names).cast(KEYS) for frame in frames
    )
    times = who.column("event_time").cast(pa.int64()).to_numpy()
    before = first[of]
    differing = (bits != bits[before]).any(axis=1) | (times != times[before])
    kept = np.sort(first)
    columns = [pa.array(np.ascontiguousarray(column)) for column in values[kept].T]
    table = who.take(pa.array(kept))
    for name, column in zip(names, columns, strict=True):
        table = table.append_column(name, column)
    return Served(
        table=table,
        repeated=len(keys) - len(kept),
        differing=int(differing.sum()),
        frames=tuple(frames),
    )


def _keys(frame: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    return event_keys(frame.column("case_id"), "tabular", frame.column("event_id"))
