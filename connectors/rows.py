"""Valid events as columns, with the place each one came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.codec import encode_frame
from connectors.records import DeadLetter, Place
from connectors.schemas import TIME

#: Start of the names of (B, N) columns that operators add; no sender wrote them.
ADDED_PREFIX = "windows."

#: Rows up to which a pickle holds lists instead of arrays.
SMALL_ROWS = 8


@dataclass(slots=True)
class Origins:
    """Where B rows came from: few Kafka values, many rows.

    Attributes:
        values: place of each Kafka value, and its bytes when it was one JSON event.
        value_index: int32 (B,) into `values`.
        row: int32 (B,) row inside the value's frame, -1 for a JSON event.
    """

    values: list[tuple[Place, bytes | None]]
    value_index: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]

    @classmethod
    def of_objects(cls, values: list[tuple[Place, bytes | None]]) -> Origins:
        """JSON events, one a value, kept whole."""
        count = len(values)
        index = np.arange(count, dtype=np.int32)
        return cls(values, index, np.full(count, -1, dtype=np.int32))

    @classmethod
    def of_frame(cls, place: Place, rows: npt.NDArray[np.int32]) -> Origins:
        """The given rows of one frame."""
        return cls([(place, None)], np.zeros(len(rows), np.int32), rows)

    def take(self, rows: list[int]) -> Origins:
        """The given rows, in the given order."""
        return Origins(self.values, self.value_index[rows], self.row[rows])


@dataclass(slots=True)
class EventRows:
    """Valid events of one modality, as columns of equal length B.

    Attributes:
        modality: the modality of all rows.
        event_id: B ids.
        case_id: B ids of the cases the events belong to.
        event_time_ms: int64 (B,), UTC.
        created_ms: int64 (B,), the producer's clock; 0 where it did not say.
        origins: where the rows came from.
        columns: content: float64 (B,) for numbers and bools, object (B,) otherwise;
            operators add columns of their own, (B, N).
        bools: names of the columns that hold bools.
    """

    modality: str
    event_id: list[str]
    case_id: list[str]
    event_time_ms: npt.NDArray[np.int64]
    created_ms: npt.NDArray[np.int64]
    origins: Origins
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    bools: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.event_id)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as plain lists when small: numpy takes 4 us for any array."""
        origins = self.origins
        small = len(self) <= SMALL_ROWS
        arrays: list[npt.NDArray[Any]] = [self.event_time_ms, self.created_ms]
        arrays += [origins.value_index, origins.row, *self.columns.values()]
        plain = [(a.dtype.char, a.tolist()) for a in arrays] if small else arrays
        places = [(p.topic, p.partition, p.offset, raw) for p, raw in origins.values]
        ids = (self.modality, self.event_id, self.case_id)
        return _unpickled, (*ids, places, [*self.columns], plain, self.bools)

    def keys(self, name: str) -> list[str]:
        """The case ids, or the values of the named column of ids."""
        if name == "case_id":
            return self.case_id
        found: list[str] = self.columns[name].tolist()
        return found

    def take(self, rows: list[int]) -> EventRows:
        """The given rows, in the given order."""
        return EventRows(
            modality=self.modality,
            event_id=[self.event_id[i] for i in rows],
            case_id=[self.case_id[i] for i in rows],
            event_time_ms=self.event_time_ms[rows],
            created_ms=self.created_ms[rows],
            origins=self.origins.take(rows),
            columns={name: values[rows] for name, values in self.columns.items()},
            bools=self.bools,
        )

    def only(self, members: list[int]) -> EventRows:
        """The rows at growing positions; itself when those are all of them."""
        return self if len(members) == len(self) else self.take(members)

    def dead_letter(self, row: int, *, kind: str, reason: str) -> DeadLetter:
        """What to write when one of the rows cannot be used after all.

        A JSON event is kept to the byte. Of a frame's row the letter holds a frame with
        the keys and the columns the task needs, which a reader of that task accepts
        again; columns the task does not need are left out. The place names the Kafka
        value that holds the row whole.
        """
        place, value = self.origins.values[self.origins.value_index[row]]
        if value is None:
            value = encode_frame(self._one_row(row))
        return DeadLetter(
            place=place,
            row=int(self.origins.row[row]),
            kind=kind,
            reason=reason,
            event_id=self.event_id[row],
            modality=self.modality,
            value=value,
        )

    def _one_row(self, row: int) -> pa.RecordBatch:
        at = pa.array([int(self.event_time_ms[row])], pa.int64()).cast(TIME)
        return pa.RecordBatch.from_pydict(
            {
                "event_id": [self.event_id[row]],
                "case_id": [self.case_id[row]],
                "event_time": at,
                "created_ms": [int(self.created_ms[row])],
                **{
                    name: [self._cell(name, row)]
                    for name, values in self.columns.items()
                    if values.ndim == 1 or not name.startswith(ADDED_PREFIX)
                },
            }
        )

    def _cell(self, name: str, row: int) -> Any:
        values = self.columns[name]
        if values.ndim > 1:
            return values[row].tolist()
        return bool(values[row]) if name in self.bools else values[row]


def _unpickled(
    modality: str,
    event_id: list[str],
    case_id: list[str],
    places: list[tuple[str, int, int, bytes | None]],
    names: list[str],
    plain: list[Any],
    bools: tuple[str, ...],
) -> EventRows:
    arrays = [
        np.array(one[1], dtype=one[0]) if isinstance(one, tuple) else one
        for one in plain
    ]
    values = [
        (Place(topic=topic, partition=partition, offset=offset), raw)
        for topic, partition, offset, raw in places
    ]
    return EventRows(
        modality=modality,
        event_id=event_id,
        case_id=case_id,
        event_time_ms=arrays[0],
        created_ms=arrays[1],
        origins=Origins(values, arrays[2], arrays[3]),
        columns=dict(zip(names, arrays[4:], strict=True)),
        bools=bools,
    )


def concat_rows(parts: list[EventRows]) -> EventRows:
    """Rows of several parts of one modality, one after the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    starts = np.cumsum([0, *(len(part.origins.values) for part in parts[:-1])])
    return EventRows(
        modality=first.modality,
        event_id=[x for part in parts for x in part.event_id],
        case_id=[x for part in parts for x in part.case_id],
        event_time_ms=np.concatenate([part.event_time_ms for part in parts]),
        created_ms=np.concatenate([part.created_ms for part in parts]),
        origins=Origins(
            [value for part in parts for value in part.origins.values],
            np.concatenate(
                [
                    part.origins.value_index + np.int32(start)
                    for part, start in zip(parts, starts, strict=True)
                ]
            ),
            np.concatenate([part.origins.row for part in parts]),
        ),
        columns={
            name: np.concatenate([part.columns[name] for part in parts])
            for name in first.columns
        },
        bools=first.bools,
    )
