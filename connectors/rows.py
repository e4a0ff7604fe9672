"""Valid events as columns, with the place each one came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.codec import encode_frame
from connectors.origins import Members, Origins, concat_origins
from connectors.packing import Column, Layout, pack, unpack
from connectors.records import DeadLetter
from connectors.schemas import TIME

#: Start of the names of columns that operators add; no sender wrote them.
ADDED_PREFIX = "windows."
#: Added: uint64 (B,), the key of the case id.
CASE_KEY = "windows.case"
#: Added: int64 (B,), the time that the stream had reached, in milliseconds.
CLOCK = "windows.clock"
#: Added: int64 (B, P), how far each partition of the labels had been read for a row.
LABELS_READ = "windows.labels"


@dataclass(slots=True)
class EventRows:
    """Valid events of one modality, as columns of equal length B.

    Attributes:
        modality: the modality of all rows.
        event_id: B ids, as an Arrow array of strings.
        case_id: B ids of the cases the events belong to, likewise.
        event_time_ms: int64 (B,), UTC.
        created_ms: int64 (B,), the producer's clock; 0 where it did not say.
        origins: where the rows came from.
        columns: content: float64 (B,) for numbers and bools, an Arrow array for texts,
            ids and bytes, or uint64 (B,) where operators compare their keys instead;
            operators add columns of their own, (B,) or (B, N).
        bools: names of the columns that hold bools.
    """

    modality: str
    event_id: pa.Array
    case_id: pa.Array
    event_time_ms: npt.NDArray[np.int64]
    created_ms: npt.NDArray[np.int64]
    origins: Origins
    columns: dict[str, Column] = field(default_factory=dict)
    bools: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.event_time_ms)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as one run of bytes: an array alone would take numpy 4 us."""
        origins = self.origins
        columns = [
            self.event_id,
            self.case_id,
            self.event_time_ms,
            self.created_ms,
            origins.source,
            origins.offset,
            origins.row,
            *self.columns.values(),
        ]
        if origins.values is not None:
            columns.append(origins.values)
        names = tuple(self.columns)
        told = (self.modality, self.bools, origins.sources, names)
        return _unpickled, (*told, *pack(columns))

    def keys(self, name: str) -> npt.NDArray[np.uint64]:
        """The keys of a column of ids, or of the case ids (`case_id`).

        Raises:
            TypeError: the column still holds texts or numbers.
        """
        found = self.columns[CASE_KEY if name == "case_id" else name]
        if not isinstance(found, np.ndarray) or found.dtype != np.uint64:
            kind = found.dtype if isinstance(found, np.ndarray) else found.type
            msg = f"keys of column {name!r}: it holds {kind}; give it keys first"
            raise TypeError(msg)
        return found

    def take(self, rows: Members) -> EventRows:
        """The given rows, in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        chosen = pa.array(rows)
        return EventRows(
            modality=self.modality,
            event_id=self.event_id.take(chosen),
            case_id=self.case_id.take(chosen),
            event_time_ms=self.event_time_ms[rows],
            created_ms=self.created_ms[rows],
            origins=self.origins.take(rows),
            columns={
                name: cells[rows]
                if isinstance(cells, np.ndarray)
                else cells.take(chosen)
                for name, cells in self.columns.items()
            },
            bools=self.bools,
        )

    def only(self, members: Members) -> EventRows:
        """The rows at growing positions; itself when those are all of them."""
        return self if len(members) == len(self) else self.take(members)

    def dead_letter(self, row: int, *, kind: str, reason: str) -> DeadLetter:
        """What to write when one of the rows cannot be used after all.

        A JSON event is kept to the byte. Of a frame's row the letter holds a frame with
        the keys and the columns the task needs, which a reader of that task accepts
        again; columns the task does not need are left out. The place names the Kafka
        value that holds the row whole.
        """
        value = self.origins.value(row)
        if value is None:
            value = encode_frame(self._one_row(row))
        return DeadLetter(
            place=self.origins.place(row),
            row=int(self.origins.row[row]),
            kind=kind,
            reason=reason,
            event_id=self.event_id[row].as_py(),
            modality=self.modality,
            value=value,
        )

    def _one_row(self, row: int) -> pa.RecordBatch:
        at = pa.array([int(self.event_time_ms[row])], pa.int64()).cast(TIME)
        return pa.RecordBatch.from_pydict(
            {
                "event_id": self.event_id.slice(row, 1),
                "case_id": self.case_id.slice(row, 1),
                "event_time": at,
                "created_ms": [int(self.created_ms[row])],
                **{
                    name: self._cell(name, cells, row)
                    for name, cells in self.columns.items()
                    if not _is_added(name, cells)
                },
            }
        )

    def _cell(self, name: str, cells: Column, row: int) -> pa.Array:
        if not isinstance(cells, np.ndarray):
            return cells.slice(row, 1)
        cell = cells[row].tolist()
        return pa.array([bool(cell) if name in self.bools else cell])


def _is_added(name: str, cells: Column) -> bool:
    wide = isinstance(cells, np.ndarray) and cells.ndim > 1
    return name in (CASE_KEY, CLOCK) or (wide and name.startswith(ADDED_PREFIX))


def _unpickled(
    modality: str,
    bools: tuple[str, ...],
    sources: list[tuple[str, int]],
    names: tuple[str, ...],
    layout: Layout,
    packed: bytes,
) -> EventRows:
    event_id, case_id, times, created, source, offset, row, *rest = unpack(
        layout, packed
    )
    values = rest.pop() if len(rest) > len(names) else None
    return EventRows(
        modality=modality,
        event_id=event_id,
        case_id=case_id,
        event_time_ms=times,
        created_ms=created,
        origins=Origins(sources, source, offset, row, values),
        columns=dict(zip(names, rest, strict=True)),
        bools=bools,
    )


def concat_rows(parts: list[EventRows]) -> EventRows:
    """Rows of several parts of one modality, one after the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return EventRows(
        modality=first.modality,
        event_id=pa.concat_arrays([part.event_id for part in parts]),
        case_id=pa.concat_arrays([part.case_id for part in parts]),
        event_time_ms=np.concatenate([part.event_time_ms for part in parts]),
        created_ms=np.concatenate([part.created_ms for part in parts]),
        origins=concat_origins([part.origins for part in parts]),
        columns={
            name: _concat([part.columns[name] for part in parts])
            for name in first.columns
        },
        bools=first.bools,
    )


def _concat(parts: list[Column]) -> Column:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return pa.concat_arrays(parts)
