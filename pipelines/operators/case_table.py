"""The first tabular event of every case, packed in memory and in bytes for a log.

Nearly every case is one tabular event that nothing follows: it costs a row of a table
here, and no object. What else happens to a case is told in `operators/case_state.py`.

Legend: `B` rows, `F` features kept, 0 when the model takes no media.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.key_table import KeyTable

#: Parts of a case's time to live: whole parts are forgotten at once.
PARTS = 4
LEAST_CAPACITY = 1 << 14
_HEAD = struct.Struct("<qi")


@dataclass(slots=True)
class FirstEvent:
    """The one event of a case, as it was decided.

    Attributes:
        event_key: key of its id; 0 when the state of the case says all of it.
        alerted: whether it was an alert.
        x: float64 (F,) features.
    """

    event_key: int
    alerted: bool
    x: NDArray[np.float64]


@dataclass(slots=True)
class _Generation:
    """Rows that came in one part of the time to live."""

    keys: KeyTable
    rows: NDArray[Any]
    opened_ms: int
    last_ms: int


class CaseTable:
    """Which cases are known, and the first event of those that had but one.

    A row is kept for `ttl_ms` after it was written, and at most a part longer. Rows of
    one part of that time are dropped together, which takes no time; a full table is
    followed by a larger one. So no frame waits while a table grows or is cleaned up.

    Args:
        ttl_ms: how long a case is known.
        features: F.
    """

    def __init__(self, *, ttl_ms: int, features: int) -> None:
        self._ttl_ms = ttl_ms
        self._part_ms = max(1, ttl_ms // PARTS)
        self._features = features
        self._row = np.dtype(
            [
                ("case", "<u8"),
                ("event", "<u8"),
                ("alerted", "?"),
                ("x", "<f8", (features,)),
            ]
        )
        self._generations: list[_Generation] = []

    def land(
        self,
        cases: NDArray[np.uint64],
        events: NDArray[np.uint64],
        x: NDArray[np.float64],
        clock_ms: int,
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Takes tabular events, in the given order.

        Args:
            cases: uint64 (B,), keys of their cases.
            events: uint64 (B,), keys of the events.
            x: float64 (B, F), their features; anything when F is 0.
            clock_ms: the processing clock.

        Returns: bool (B,), the first event of an unknown case, which is known now; and
            bool (B,), an event that came before. The others' cases are known.
        """
        newest = self._newest(clock_ms, len(cases))
        rows = np.full(len(cases), -1)
        again = np.zeros(len(cases), dtype=np.bool_)
        for generation, places, found in self._found(cases):
            rows[places] = found
            again[places] = generation.rows["event"][found] == events[places]
        known = rows >= 0
        start = newest.keys.count
        first = newest.keys.add(cases, rows)
        made = newest.rows[start : newest.keys.count]
        made["case"], made["event"] = cases[first], events[first]
        if self._features:
            made["x"] = x[first]
        if len(made) + np.count_nonzero(known) < len(cases):
            twice = np.flatnonzero(~first & ~known)
            again[twice] = newest.rows["event"][rows[twice]] == events[twice]
        return first, again

    def alert(self, cases: NDArray[np.uint64]) -> None:
        """Remembers that the first event of each of these cases was an alert."""
        for generation, _, rows in self._found(cases):
            generation.rows["alerted"][rows] = True

    def mark(self, cases: NDArray[np.uint64], clock_ms: int) -> None:
        """From now on the state of these cases says all of them."""
        marks = np.zeros(len(cases), dtype=self._row)
        marks["case"] = cases
        self._put(marks, clock_ms)

    def first_event(self, case: int) -> FirstEvent | None:
        """What is known of a case; None when nothing is."""
        for generation, _, rows in self._found(np.array([case], dtype=np.uint64)):
            _, event, alerted, x = generation.rows[rows[0]]
            return FirstEvent(int(event), bool(alerted), x.copy())
        return None

    def packed(
        self, cases: NDArray[np.uint64], bounds: list[int], clock_ms: int
    ) -> list[bytes]:
        """The rows of known cases between each two bounds, as `restore` takes them."""
        rows = np.zeros(len(cases), dtype=self._row)
        for generation, places, found in self._found(cases):
            rows[places] = generation.rows[found]
        head = _HEAD.pack(clock_ms, self._features)
        return [head + rows[a:b].tobytes() for a, b in itertools.pairwise(bounds)]

    def restore(self, entries: Iterable[bytes]) -> None:
        """Takes what `packed` gave, in the order in which it was written.

        Features of a model that kept others are taken as missing.
        """
        told = sorted(((*_HEAD.unpack_from(e), e) for e in entries), key=lambda t: t[0])
        for _, part in itertools.groupby(told, key=lambda t: t[0] // self._part_ms):
            given = [*part]
            rows = [self._unpacked(features, entry) for _, features, entry in given]
            self._put(np.concatenate(rows), given[-1][0])

    def _found(
        self, cases: NDArray[np.uint64]
    ) -> Iterator[tuple[_Generation, NDArray[np.intp], NDArray[np.int64]]]:
        """Generations that have any of the cases, newest first: which, and where."""
        rows = np.full(len(cases), -1)
        left = len(cases)
        for generation in reversed(self._generations):
            known = rows >= 0
            found = generation.keys.find(cases, rows) if left else 0
            if found:
                places = np.flatnonzero((rows >= 0) & ~known)
                yield generation, places, rows[places]
                left -= found

    def _unpacked(self, features: int, entry: bytes) -> NDArray[Any]:
        if features == self._features:
            return np.frombuffer(entry, self._row, offset=_HEAD.size)
        other = CaseTable(ttl_ms=self._ttl_ms, features=features)._row
        given = np.frombuffer(entry, other, offset=_HEAD.size)
        rows = np.zeros(len(given), dtype=self._row)
        rows["x"] = np.nan
        for name in ("case", "event", "alerted"):
            rows[name] = given[name]
        return rows

    def _put(self, given: NDArray[Any], clock_ms: int) -> None:
        newest = self._newest(clock_ms, len(given))
        rows = np.full(len(given), -1)
        newest.keys.add(np.ascontiguousarray(given["case"]), rows)
        newest.rows[rows] = given

    def _newest(self, clock_ms: int, rows: int) -> _Generation:
        """The generation to write to, with room for `rows`; drops what is over."""
        kept = self._generations
        while kept and clock_ms - kept[0].last_ms >= self._ttl_ms:
            del kept[0]
        capacity = LEAST_CAPACITY
        if kept:
            last = kept[-1]
            full = last.keys.count + rows > last.keys.capacity
            if not full and clock_ms - last.opened_ms < self._part_ms:
                last.last_ms = max(last.last_ms, clock_ms)
                return last
            needed = 2 * last.keys.capacity if full else last.keys.count * 5 // 4
            capacity = max(capacity, needed)
        capacity = max(capacity, 2 * rows)
        made = np.zeros(capacity, dtype=self._row)
        kept.append(_Generation(KeyTable(capacity), made, clock_ms, clock_ms))
        return kept[-1]
