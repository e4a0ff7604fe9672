"""Labels that windows read: kept while they may matter, forgotten after that."""

import numpy as np
import pytest

from automl.label_table import CASES, VERSIONS
from automl.windows import EntityWindows
from tests.automl.drawn import as_columns, feature, resolved

SECOND = 1_000
SPEC = resolved(feature("count", "20s", column="label"), feature("sum", column="label"))
CASE, OTHER = 7, 8


class Windows:
    """Labels and rows of one card; with the second for lateness 21 s are kept."""

    def __init__(self) -> None:
        self.engine = EntityWindows(SPEC, "card", lateness_ms=SECOND)
        self.others = np.random.default_rng(1)

    def labels(self, *told: tuple[int, int, float]) -> None:
        cases, times, values = zip(*told, strict=True)
        keys = np.array(cases, dtype=np.uint64)
        self.engine.add_labels(keys, np.array(times), np.array(values))

    def row(self, time_ms: int, case: int, card: str = "c") -> float:
        """Adds a row at its own time, and gives how many labels it sees."""
        columns = as_columns({"card": [card]})
        times, key = np.array([time_ms]), np.array([case], dtype=np.uint64)
        seen = self.engine.observe(
            columns["card"], times, columns, clock_ms=times, case_keys=key
        )
        self.sum = seen[0, 1]
        return float(seen[0, 0])

    def forget(self, time_ms: int) -> None:
        """Takes so many labels of others that what may be forgotten is."""
        for _ in range(60):
            keys = self.others.integers(1_000, 2**63, 100, dtype=np.uint64)
            self.labels(*[(key, time_ms, 0.0) for key in keys.tolist()])

    def restart(self) -> None:
        parts = [*self.engine.dump(1, 0)]
        self.engine = EntityWindows(SPEC, "card", lateness_ms=SECOND)
        for part in parts:
            self.engine.restore(part)


@pytest.fixture
def windows() -> Windows:
    return Windows()


def test_a_label_is_corrected_for_a_later_event_of_its_case(windows) -> None:
    windows.labels((CASE, 0, 1.0))
    windows.row(15_000, CASE)
    windows.row(22_000, OTHER)  # labels from before second 1 may be forgotten
    windows.forget(22_000)
    windows.labels((CASE, 23_000, 5.0))
    assert windows.row(23_500, OTHER) == 1
    windows.row(24_500, OTHER)
    assert windows.sum == 5


def test_restored_rows_have_their_labels_before_any_is_forgotten(windows) -> None:
    windows.labels((CASE, 0, 1.0))
    windows.row(15_000, CASE)
    windows.restart()
    windows.labels((CASE, 0, 1.0))
    windows.row(22_000, OTHER, card="another")
    windows.forget(22_000)
    assert windows.row(24_000, OTHER) == 1


def test_a_label_that_comes_long_after_its_time_counts_for_an_event_to_come(
    windows,
) -> None:
    windows.row(30_000, OTHER)
    windows.labels((CASE, 0, 1.0))
    windows.forget(30_000)
    assert windows.row(31_000, CASE) == 1


def test_a_correction_of_an_earlier_time_does_not_forget_the_later_one(
    windows,
) -> None:
    windows.row(5_000, CASE)
    windows.labels((CASE, 10_000, 1.0), (CASE, 0, 0.0))
    windows.row(22_000, OTHER, card="another")
    windows.forget(22_000)
    assert windows.row(23_000, OTHER) == 1
    windows.row(14_000, OTHER)
    assert windows.sum == 1


def test_memory_stays_while_labels_and_corrections_come(windows) -> None:
    sizes = []
    for step in range(300):
        at = step * SECOND
        windows.row(at, step)
        cases = range(step * 100, step * 100 + 100)
        for label in (1.0, 0.0):
            windows.labels(*[(case + 1, at + int(label), label) for case in cases])
        sizes.append(windows.engine.memory_bytes)
    assert max(sizes[150:]) <= max(sizes[:150])
    tally = windows.engine._labels.tally
    assert tally[CASES] < 8_192  # of 30,000, 2,100 of which may matter
    assert tally[VERSIONS] == 2 * tally[CASES]
