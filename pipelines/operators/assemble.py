"""Which events belong to one case, and which revision each of them makes.

Every landed event of a case makes exactly one decision: revision r rests on the first
r + 1 events. Media that land before their tabular event are held for it, so that the
numbers of a case do not depend on which topic was read faster.
"""

from __future__ import annotations

import hashlib
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
        modality: index in `MODALITIES`.
        event_time_ms: when it happened.
        created_ms: the producer's clock, 0 when unknown.
        content: float64 (F,) features for a tabular event, float32 (D,) otherwise.
    """

    event_id: str
    modality: int
    event_time_ms: int
    created_ms: int
    content: NDArray[Any]


@dataclass(slots=True)
class Case:
    """What is known of one case; what the shard's state keeps.

    Attributes:
        case_id: its id.
        seen: modality and id of the events that landed or are held.
        contents: by modality index, the latest content.
        held: media that wait for the tabular event.
        revisions: decisions made so far.
        alerted: whether the last decision was an alert.
    """

    case_id: str
    seen: set[tuple[int, str]] = field(default_factory=set)
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
    seen: list[tuple[int, str]],
    contents: dict[int, tuple[str, bytes]],
    flags: tuple[list[Landing], int, bool],
) -> Case:
    arrays = {i: np.frombuffer(raw, char) for i, (char, raw) in contents.items()}
    return Case(case_id, set(seen), arrays, *flags)


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
    key = (landing.modality, landing.event_id)
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


def decision_id(task: str, case_id: str) -> str:
    """The id of a case's decision: the same in every run, for every revision."""
    return hashlib.blake2b(f"{task}\0{case_id}".encode(), digest_size=12).hexdigest()


def inputs(
    pending: list[Pending], *, features: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.bool_]]:
    """Arrays a scorer takes: features (B, F), vectors (B, M, D), mask (B, M)."""
    rows = len(pending)
    x = np.full((rows, features), np.nan)
    vectors = np.zeros((rows, len(MODALITIES), width), dtype=np.float32)
    mask = np.zeros((rows, len(MODALITIES)), dtype=np.bool_)
    for i, one in enumerate(pending):
        for modality, content in one.contents.items():
            mask[i, modality] = True
            if modality == TABULAR:
                x[i] = content
            else:
                vectors[i, modality] = content
    return x, vectors, mask
