"""Labels of cases as they were known at a time."""

import math
import random
from typing import Any

import numpy as np
import pytest

from automl.label_table import (
    CASES,
    LEAST_PLACES,
    MOVED,
    PACE,
    VERSIONS,
    LabelTable,
    find_label,
    first_version,
    label_as_of,
    latest_label,
    new_labels,
    put_labels,
)
from automl.window_store import NEVER

LONG_AGO = -(2**62)


class Labels:
    """A table, and who holds it."""

    def __init__(self) -> None:
        self.table: LabelTable = new_labels()

    def put(
        self,
        *rows: tuple[int, int, float],
        clock_ms: int = LONG_AGO,
        forget_ms: int = LONG_AGO,
    ) -> int:
        cases, times, values = zip(*rows, strict=True)
        self.table, corrected = put_labels(
            self.table,
            np.array(cases, dtype=np.uint64),
            np.array(times, dtype=np.int64),
            np.array(values, dtype=np.float64),
            clock_ms=clock_ms,
            forget_ms=forget_ms,
        )
        return corrected

    def as_of(self, case: int, time_ms: int) -> float | None:
        version = first_version(self.table, np.uint64(case))
        if version >= 0:
            there, label = label_as_of(self.table, version, time_ms)
            return label if there else None
        known_ms, label = self.last(case) if self.knows(case) else (NEVER, 0.0)
        return label if known_ms <= time_ms else None

    def last(self, case: int, row_ms: int = LONG_AGO) -> tuple[int, float]:
        place = find_label(self.table, np.uint64(case))
        if place == -1:
            return NEVER, math.nan
        known_ms, label = latest_label(self.table, place, row_ms)
        return known_ms, label

    def knows(self, case: int) -> bool:
        return self.last(case)[0] != NEVER

    def renew(self, clock_ms: int, forget_ms: int, times: int = 3) -> None:
        """Brings so many labels of other cases that every place is emptied."""
        for _ in range(times):
            rows = [(random.getrandbits(60) | 1 << 60, clock_ms, 0.0)]
            count = len(self.table.case) // 2
            many = [(rows[0][0] + i * 8191, clock_ms, 0.0) for i in range(count)]
            for at in range(0, count, 256):
                told = many[at : at + 256]
                self.put(*told, clock_ms=clock_ms, forget_ms=forget_ms)


def test_the_latest_label_time_counts_and_of_one_time_the_later_arrival() -> None:
    labels = Labels()
    rows = (7, 20, 1.0), (7, 10, 0.0), (7, 20, 0.0), (7, 20, 0.0)
    assert labels.put(*rows) == 2
    assert [labels.as_of(7, t) for t in (9, 10, 19, 20)] == [None, 0, 0, 0]
    assert labels.last(7) == (20, 0)
    assert labels.as_of(8, 99) is None


@pytest.mark.parametrize("order", [(10, 20, 30), (30, 20, 10), (20, 30, 10)])
def test_versions_count_from_their_times_in_whatever_order(order: tuple[int]) -> None:
    labels = Labels()
    labels.put(*[(7, t, float(t)) for t in order])
    assert [labels.as_of(7, t) for t in (9, 10, 29, 30)] == [None, 10, 20, 30]


def test_a_label_without_a_case_is_passed_over() -> None:
    labels = Labels()
    assert labels.put((0, 5, 1.0), (0, 6, 1.0)) == 0
    assert not labels.knows(0)


def test_the_table_grows_and_forgets_what_is_too_old() -> None:
    labels = Labels()
    for first in range(1, 50_001, 500):
        rows = [(case, case, 1.0) for case in range(first, first + 500)]
        labels.put(*rows, clock_ms=first, forget_ms=first - 1_000)
    assert all(labels.as_of(case, case) == 1 for case in range(48_501, 50_001))
    assert not any(labels.knows(case) for case in range(1, 30_000))
    assert len(labels.table.case) <= 8_192


@pytest.mark.parametrize("batch", [1, 100, 300_000])
def test_all_of_many_labels_are_there_whatever_the_batches(batch: int) -> None:
    labels = Labels()
    count = 3_000 if batch == 1 else 300_000
    keys = np.random.default_rng(0).integers(1, 2**63, count, dtype=np.uint64)
    for at in range(0, count, batch):
        part = keys[at : at + batch]
        labels.put(*[(int(k), int(k) % 1000, float(int(k) % 7)) for k in part])
    for key in keys[:: count // 1000].tolist():
        assert labels.last(key) == (key % 1000, key % 7)
    assert labels.table.tally[CASES] == count


def test_an_earlier_correction_does_not_make_a_case_be_forgotten_early() -> None:
    labels = Labels()
    labels.put((7, 1_000, 1.0), (7, 10, 0.0), (8, 10, 0.0))
    labels.renew(clock_ms=1_500, forget_ms=500)
    assert labels.as_of(7, 1_500) == 1
    assert not labels.knows(8)
    labels.renew(clock_ms=2_500, forget_ms=1_001)
    assert not labels.knows(7)


def test_an_old_label_is_kept_from_the_clock_at_which_it_came() -> None:
    labels = Labels()
    labels.put((7, 10, 1.0), clock_ms=1_000)
    labels.put((8, 10, 1.0))  # the clock is not known
    labels.renew(clock_ms=1_500, forget_ms=1_000)
    assert labels.knows(7)
    assert not labels.knows(8)
    labels.renew(clock_ms=1_501, forget_ms=1_001)
    assert not labels.knows(7)


def test_a_label_is_kept_as_long_as_a_row_that_had_it() -> None:
    labels = Labels()
    labels.put((7, 10, 1.0), clock_ms=10)
    assert labels.last(7, row_ms=2_000) == (10, 1)
    labels.renew(clock_ms=2_500, forget_ms=2_000)
    assert labels.put((7, 2_400, 0.0), clock_ms=2_500, forget_ms=2_000) == 1
    labels.renew(clock_ms=5_000, forget_ms=2_501)
    assert not labels.knows(7)


def test_versions_of_forgotten_cases_make_room_for_others() -> None:
    labels = Labels()
    sizes = []
    for first in range(1, 200_001, 500):
        rows = [(case, case, 1.0) for case in range(first, first + 500)]
        rows += [(case, case + 1, 0.0) for case in range(first, first + 500)]
        assert labels.put(*rows, clock_ms=first, forget_ms=first - 1_000) == 500
        sizes.append(sum(array.nbytes for array in labels.table))
    assert len(labels.table.versions) <= 32_768
    assert max(sizes[200:]) <= max(sizes[:200])


def test_versions_that_nobody_can_ask_for_make_room_for_others() -> None:
    labels = Labels()
    for t in range(100, 50_000):
        labels.put((7, t, float(t)), clock_ms=t, forget_ms=t - 100)
    assert len(labels.table.versions) <= 256
    assert labels.table.tally[VERSIONS] == 101
    assert [labels.as_of(7, t) for t in range(49_899, 50_000)] == [
        *range(49_899, 50_000)
    ]


def test_no_call_empties_more_than_its_share() -> None:
    labels, moved = Labels(), []
    keys = np.random.default_rng(2).integers(1, 2**63, 30_000, dtype=np.uint64)
    for at, key in enumerate(keys.tolist()):
        before = int(labels.table.tally[MOVED])
        labels.put((key, at, 1.0), clock_ms=at, forget_ms=at - 5_000)
        after = int(labels.table.tally[MOVED])
        moved.append(after - (before if after >= before else 0))
    assert sum(moved) > 4 * LEAST_PLACES
    assert max(moved) < PACE + 64  # and up to a place without a case


class Told:
    """Every version of every case, and what each is kept by, in plain Python."""

    def __init__(self) -> None:
        self.versions: dict[int, dict[int, float]] = {}
        self.kept: dict[int, int] = {}
        #: Cases that may have been forgotten before another label came.
        self.unsure: set[int] = set()

    def put(
        self, case: int, time_ms: int, label: float, clock_ms: int, forget_ms: int
    ) -> None:
        if self.kept.get(case, forget_ms) < forget_ms:
            self.unsure.add(case)
        self.versions.setdefault(case, {})[time_ms] = label
        self.kept[case] = max(self.kept.get(case, time_ms), time_ms, clock_ms)

    def as_of(self, case: int, time_ms: int) -> float | None:
        times = [t for t in self.versions.get(case, {}) if t <= time_ms]
        return self.versions[case][max(times)] if times else None


def keys_of(kind: str, draw: random.Random) -> list[int]:
    """Case keys that are mixed, that share places, or whose places go round the end."""
    if kind == "mixed":
        return [draw.getrandbits(64) | 1 for _ in range(4_000)]
    reach = (0, 64) if kind == "crowded" else (-40, 40)
    low = [draw.choice([draw.randrange(*reach), i]) & 0xFFFF for i in range(4_000)]
    return [(i + 1) << 32 | low[i] for i in range(4_000)]


@pytest.mark.parametrize("kind", ["mixed", "crowded", "round the end"])
def test_it_says_what_a_list_of_all_versions_says(kind: str) -> None:
    draw = random.Random(kind)
    keys, labels, told = keys_of(kind, draw), Labels(), Told()
    now, moving = 0, 0
    for _ in range(3_000):
        rows: list[Any] = []
        for _ in range(draw.choice([1, 1, 2, 20])):
            now += draw.choice([0, 1, 5])
            # cases of these days, and now and then one of long ago
            about = now // 10 + draw.randrange(-60, 60)
            case = keys[about % len(keys)] if draw.random() < 0.95 else keys[0]
            time_ms = now + draw.choice([0, 0, 0, 30, -30, -2_000])
            rows.append((case, time_ms, float(draw.randrange(3))))
        labels.put(*rows, clock_ms=now, forget_ms=now - 1_000)
        for row in rows:
            told.put(*row, now, now - 1_000)
        moving += len(labels.table.old_case) > 1
        if draw.random() < 0.2:
            case = draw.choice(rows)[0]
            told.kept[case] = max(told.kept[case], now + 500)
            labels.last(case, row_ms=now + 500)
        kept = {case for case, time_ms in told.kept.items() if time_ms >= now - 1_000}
        sure = sorted(kept - told.unsure)
        for case in draw.sample(sure, min(len(sure), 15)):
            for asked in (now - 999, now - draw.randrange(999), now, now + 40):
                assert labels.as_of(case, asked) == told.as_of(case, asked)
    assert moving > 20
    assert labels.table.tally[CASES] < len(told.kept)
