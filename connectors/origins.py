"""Where rows came from: enough to fetch each one again, and to write it off whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.records import Place

#: Rows by number, growing or not.
Members = npt.NDArray[np.int64] | list[int]


@dataclass(slots=True)
class Origins:
    """Where B rows came from, as columns.

    Attributes:
        sources: the topics and partitions that any of them came from.
        source: int32 (B,) into `sources`.
        offset: int64 (B,), of the Kafka value.
        row: int32 (B,), row inside the value's frame, -1 for a JSON event.
        values: the bytes of each JSON event, empty for the row of a frame; None when
            none are kept.
    """

    sources: list[tuple[str, int]]
    source: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    row: npt.NDArray[np.int32]
    values: pa.Array | None = None

    @classmethod
    def of_objects(
        cls, source: tuple[str, int], offsets: Sequence[int], values: Sequence[bytes]
    ) -> Origins:
        """JSON events of one partition, one a value, kept whole."""
        count = len(values)
        return cls(
            sources=[source],
            source=np.zeros(count, dtype=np.int32),
            offset=np.array(offsets, dtype=np.int64),
            row=np.full(count, -1, dtype=np.int32),
            values=pa.array(values, pa.binary()),
        )

    @classmethod
    def of_frame(cls, place: Place, rows: npt.NDArray[np.int32]) -> Origins:
        """The given rows of one frame."""
        return cls(
            sources=[(place.topic, place.partition)],
            source=np.zeros(len(rows), dtype=np.int32),
            offset=np.full(len(rows), place.offset, dtype=np.int64),
            row=rows,
        )

    def place(self, row: int) -> Place:
        """The Kafka value that holds a row."""
        topic, partition = self.sources[self.source[row]]
        return Place(topic=topic, partition=partition, offset=int(self.offset[row]))

    def value(self, row: int) -> bytes | None:
        """The bytes of a row that was a JSON event, if they are kept."""
        kept: bytes = self.values[row].as_py() if self.values is not None else b""
        return kept or None

    def take(self, rows: Members) -> Origins:
        """The given rows, in the given order."""
        return Origins(
            sources=self.sources,
            source=self.source[rows],
            offset=self.offset[rows],
            row=self.row[rows],
            values=None if self.values is None else self.values.take(pa.array(rows)),
        )


def concat_origins(parts: Sequence[Origins]) -> Origins:
    """Origins of several parts, one after the other."""
    starts = np.cumsum([0, *(len(part.sources) for part in parts[:-1])])
    values = None
    if any(part.values is not None for part in parts):
        values = pa.concat_arrays(
            [
                pa.array([b""] * len(part.row), pa.binary())
                if part.values is None
                else part.values
                for part in parts
            ]
        )
    return Origins(
        sources=[source for part in parts for source in part.sources],
        source=np.concatenate(
            [
                part.source + np.int32(start)
                for part, start in zip(parts, starts, strict=True)
            ]
        ),
        offset=np.concatenate([part.offset for part in parts]),
        row=np.concatenate([part.row for part in parts]),
        values=values,
    )
