import numpy as np
import pytest

from pipelines.operators import case_table as module
from pipelines.operators.case_table import CaseTable

TTL_MS = 1000
F = 2


def keys(*numbers):
    return np.array(numbers, dtype=np.uint64)


def land(table, clock_ms, *events):
    """Lands `(case, event)`; gives "first", "again" or "more" for each."""
    cases, ids = zip(*events, strict=True)
    x = np.array([[event, -event] for event in ids], dtype=float)
    told = table.land(keys(*cases), keys(*ids), x, clock_ms)
    return [
        "first" if first else "again" if again else "more"
        for first, again in zip(*told, strict=True)
    ]


@pytest.fixture
def table():
    return CaseTable(ttl_ms=TTL_MS, features=F)


def known(table, *cases):
    return [case for case in cases if table.first_event(case) is not None]


def packed(table, clock_ms, *cases):
    return table.packed(keys(*cases), [0, len(cases)], clock_ms)


def restored(*entries, features=F):
    table = CaseTable(ttl_ms=TTL_MS, features=features)
    table.restore(entries)
    return table


def test_the_first_event_of_a_case_is_told_from_the_others(table):
    assert land(table, 0, (1, 10), (2, 20), (1, 10), (1, 11)) == [
        "first",
        "first",
        "again",
        "more",
    ]
    assert land(table, 5, (2, 20), (2, 10), (3, 10)) == ["again", "more", "first"]
    first = table.first_event(2)
    assert (first.event_key, first.alerted, first.x.tolist()) == (20, False, [20, -20])
    assert table.first_event(4) is None


def test_a_case_is_known_for_its_time_and_at_most_a_part_longer(table):
    land(table, 0, (1, 10))
    land(table, 240, (2, 20))
    for clock_ms in range(250, 1240, 10):
        land(table, clock_ms, (100 + clock_ms, 1))
        assert known(table, 1, 2) == [1, 2]
    land(table, 1240, (9, 1))
    assert known(table, 1, 2) == []
    assert land(table, 1241, (1, 10)) == ["first"]


def test_a_full_table_is_followed_by_a_larger_one(monkeypatch):
    monkeypatch.setattr(module, "LEAST_CAPACITY", 4)
    table = CaseTable(ttl_ms=TTL_MS, features=F)
    for n in range(1, 200):
        assert land(table, n, (n, n), (n, n + 1)) == ["first", "more"]
    assert known(table, *range(1, 200)) == [*range(1, 200)]
    assert len(table._generations) < 12
    # rows of several generations, and in another order than they came
    copy = restored(*packed(table, 200, 150, 3, 70))
    assert [copy.first_event(n).event_key for n in (3, 70, 150)] == [3, 70, 150]
    table.alert(keys(3, 150))
    assert [table.first_event(n).alerted for n in (3, 70, 150)] == [True, False, True]


def test_a_marked_case_is_known_and_no_more(table):
    land(table, 0, (1, 10), (2, 20))
    event = table.first_event(1)
    table.mark(keys(1, 3), 300)
    assert [table.first_event(n).event_key for n in (1, 2, 3)] == [0, 20, 0]
    assert event.x.tolist() == [10, -10]
    assert land(table, 301, (1, 10), (3, 30)) == ["more", "more"]
    # from then on for its whole time
    land(table, 1299, (9, 1))
    assert known(table, 1, 2, 3) == [1, 3]


def test_a_log_gives_the_table_again(table):
    land(table, 0, (1, 10), (2, 20), (3, 30))
    table.alert(keys(2))
    log = packed(table, 0, 3, 1, 2)
    table.mark(keys(1), 500)
    log += packed(table, 500, 1)
    land(table, 600, (4, 40))
    log += packed(table, 600, 4)
    copy = restored(*log)
    for case in range(1, 6):
        one, other = table.first_event(case), copy.first_event(case)
        assert str(one) == str(other)
    assert land(copy, 700, (2, 20), (1, 10), (5, 50)) == ["again", "more", "first"]
    land(copy, 1000, (6, 60))
    assert known(copy, 1, 2, 3, 4) == [1, 4]


def test_bounds_part_the_rows(table):
    land(table, 0, (1, 10), (2, 20), (3, 30))
    one, two = table.packed(keys(3, 1, 2), [0, 1, 3], 0)
    assert known(restored(one), 1, 2, 3) == [3]
    assert known(restored(two), 1, 2, 3) == [1, 2]


def test_features_of_another_model_are_missing(table):
    land(table, 0, (1, 10))
    first = restored(*packed(table, 0, 1), features=3).first_event(1)
    assert first.event_key == 10
    assert np.isnan(first.x).tolist() == [True] * 3
    assert restored(*packed(table, 0, 1), features=0).first_event(1).x.tolist() == []
