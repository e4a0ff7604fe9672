import numpy as np
import pytest

from automl.key_table import KeyTable


def keys(*numbers):
    return np.array(numbers, dtype=np.uint64)


def add(table, *numbers):
    rows = np.full(len(numbers), -1)
    fresh = table.add(keys(*numbers), rows)
    return rows.tolist(), fresh.tolist()


def find(table, *numbers):
    rows = np.full(len(numbers), -1)
    assert table.find(keys(*numbers), rows) == (rows >= 0).sum()
    return rows.tolist()


def test_keys_get_rows_in_the_order_they_came():
    table = KeyTable(10)
    assert find(table, 7, 5) == [-1, -1]
    assert add(table, 7, 5, 7) == ([0, 1, 0], [True, True, False])
    assert add(table, 5, 9) == ([1, 2], [False, True])
    assert find(table, 9, 4, 5, 7, 7) == [2, -1, 1, 0, 0]
    assert table.count == 3


def test_places_that_are_known_already_are_left_alone():
    table = KeyTable(10)
    rows = np.array([40, -1])
    assert table.add(keys(1, 2), rows).tolist() == [False, True]
    assert rows.tolist() == [40, 0]
    assert find(table, 1) == [-1]
    rows = np.array([40, -1])
    assert table.find(keys(2, 2), rows) == 1
    assert rows.tolist() == [40, 0]


def test_it_takes_no_more_than_it_has_room_for():
    table = KeyTable(3)
    add(table, 1, 2)
    with pytest.raises(OverflowError, match="key table of 3: 2 and 2 more"):
        add(table, 3, 4)
    assert add(table, 2**64 - 1)[0] == [2]
    assert find(table, 1, 2, 3, 2**64 - 1) == [0, 1, -1, 2]


def test_it_agrees_with_a_dict():
    draw = np.random.default_rng(0)
    table, known = KeyTable(20_000), {}
    for _ in range(200):
        batch = draw.integers(1, 30_000, draw.integers(0, 90), dtype=np.uint64)
        expected = [known.get(key, -1) for key in batch.tolist()]
        assert find(table, *batch.tolist()) == expected
        rows, fresh = add(table, *batch.tolist())
        for key, row, new in zip(batch.tolist(), rows, fresh, strict=True):
            assert new == (key not in known)
            assert row == known.setdefault(key, len(known))
    assert table.count == len(known)
