"""Which events belong to one case, and which revision each of them makes.

Every landed event of a case makes exactly one decision: revision r rests on the first
r + 1 events. Media that land before their tabular event are held for it, so that the
numbers of a case do not depend on which topic was read faster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.records import MODALITIES

TABULAR = MODALITIES.index("tabular")


@dataclass(slots=True)
class Landing:
    """One event that reached its case.

    Attributes:
        event_id: its id.
        event_key: the 64-bit key of its id.
        modality: index in `MODALITIES`.
        event_time_ms: when it happened.
        created_ms: the producer's clock, 0 when unknown.
        content: float64 (F,) features for a tabular event, float32 (D,) otherwise.
        source_offset: of the Kafka value it was read from.
        source_row: its row there; -1 when it was the whole value.
    """

    event_id: str
    event_key: int
    modality: int
    event_time_ms: int
    created_ms: int
    content: NDArray[Any]
    source_offset: int = 0
    source_row: int = -1


@dataclass(slots=True)
class Case:
    """What is known of one case; what the shard's state keeps.

    Attributes:
        case_id: its id.
        seen: modality and key of the events that landed or are held.
        contents: by modality index, the latest content.
        held: media that wait for the tabular event.
        revisions: decisions made so far.
        alerted: whether the last decision was an alert.
    """

    case_id: str
    seen: set[tuple[int, int]] = field(default_factory=set)
    contents: dict[int, NDArray[Any]] = field(default_factory=dict)
    held: list[Landing] = field(default_factory=list)
    revisions: int = 0
    alerted: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled small: the shard keeps a case for minutes, and every checkpoint."""
        contents = {i: (c.dtype.char, c.tobytes()) for i, c in self.contents.items()}
        seen = [*self.seen]
        flags = (self.held, self.revisions, self.alerted)
        return _unpickled, (self.case_id, seen, contents, flags)


def _unpickled(
    case_id: str,
    seen: list[tuple[int, int]],
    contents: dict[int, tuple[str, bytes]],
    flags: tuple[list[Landing], int, bool],
) -> Case:
    arrays = {i: np.frombuffer(raw, char) for i, (char, raw) in contents.items()}
    return Case(case_id, set(seen), arrays, *flags)


def case_after(
    case_id: str, *, event_key: int, x: NDArray[np.float64], alerted: bool
) -> Case:
    """A case as it is after one tabular event, and nothing else, was decided."""
    seen = {(TABULAR, event_key)}
    return Case(case_id, seen, {TABULAR: x}, revisions=1, alerted=alerted)


@dataclass(frozen=True, slots=True)
class Pending:
    """A decision to be made: a case as it stood when one event had landed."""

    case: Case
    revision: int
    landing: Landing
    contents: dict[int, NDArray[Any]]


def land(case: Case, landing: Landing) -> list[Pending]:
    """The decisions that one event causes, oldest revision first.

    None for an event that was seen before, and for a medium that has to wait for the
    tabular event of its case.
    """
    key = (landing.modality, landing.event_key)
    if key in case.seen:
        return []
    case.seen.add(key)
    if landing.modality != TABULAR and not case.revisions:
        case.held.append(landing)
        return []
    return [_revise(case, landing), *release(case)]


def release(case: Case) -> list[Pending]:
    """The decisions of the media held so far, with or without a tabular event."""
    held, case.held = case.held, []
    return [_revise(case, landing) for landing in held]


def _revise(case: Case, landing: Landing) -> Pending:
    case.contents = {**case.contents, landing.modality: landing.content}
    pending = Pending(case, case.revisions, landing, case.contents)
    case.revisions += 1
    return pending
