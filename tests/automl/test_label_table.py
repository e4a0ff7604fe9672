"""Labels of cases as they were known at a time."""

import numpy as np

from automl.label_table import (
    LabelTable,
    find_label,
    label_as_of,
    new_labels,
    put_labels,
    with_room,
)


def put(labels: LabelTable, *rows: tuple[int, int, float]) -> int:
    cases, times, values = zip(*rows, strict=True)
    keys = np.array(cases, dtype=np.uint64)
    return put_labels(labels, keys, np.array(times), np.array(values, dtype=float))


def known(labels: LabelTable, case: int, time_ms: int) -> float | None:
    place = find_label(labels, np.uint64(case))
    there, label = label_as_of(labels, place, time_ms) if place >= 0 else (False, 0)
    return label if there else None


def test_the_latest_label_time_counts_and_of_one_time_the_later_arrival() -> None:
    labels = new_labels()
    assert put(labels, (7, 20, 1.0), (7, 10, 0.0), (7, 20, 0.0), (7, 20, 0.0)) == 2
    assert [known(labels, 7, t) for t in (9, 10, 19, 20)] == [None, 0, 0, 0]
    assert known(labels, 8, 99) is None


def test_the_table_grows_and_forgets_what_is_too_old() -> None:
    labels = new_labels()
    for first in range(1, 5_001, 500):
        labels = with_room(labels, 500, first - 1_000)
        put(labels, *[(case, case, 1.0) for case in range(first, first + 500)])
    assert all(known(labels, case, case) == 1 for case in range(4_001, 5_001))
    assert len(labels.case) <= 8_192
