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
    def of_object(cls, place: Place, value: bytes) -> Origins:
        """One JSON event, kept whole."""
        return cls(
            [(place, value)], np.zeros(1, np.int32), np.full(1, -1, dtype=np.int32)
        )

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
        columns: content: float64 (B,) for numbers, object (B,) otherwise; operators
            add columns of their own, (B,) or (B, N).
    """

    modality: str
    event_id: list[str]
    case_id: list[str]
    event_time_ms: npt.NDArray[np.int64]
    created_ms: npt.NDArray[np.int64]
    origins: Origins
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.event_id)

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
        )

    def dead_letter(self, row: int, *, kind: str, reason: str) -> DeadLetter:
        """What to write when one of the rows cannot be used after all."""
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
                    name: [values[row].tolist() if values.ndim > 1 else values[row]]
                    for name, values in self.columns.items()
                },
            }
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
    )
