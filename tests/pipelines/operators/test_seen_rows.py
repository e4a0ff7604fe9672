import random

import numpy as np
import pytest

from pipelines.operators import seen_rows
from pipelines.operators.seen_rows import SeenRows


@pytest.fixture
def log(runtime, monkeypatch):
    monkeypatch.setattr(seen_rows, "CHUNK_ROWS", 10)
    monkeypatch.setattr(seen_rows, "SPARE_ROWS", 5)

    def opened():
        log = SeenRows(runtime, width=2)
        log.before = list(log.restore(0))
        return log

    return opened


def rows(start, count):
    numbers = np.arange(start, start + count, dtype=np.int64)
    return np.stack([numbers, -numbers], axis=1)


def flat(entries):
    return [n for entry in entries for n in entry[:, 0].tolist()]


def test_many_small_entries_become_chunks(log):
    one = log()
    for start in range(0, 36, 4):
        one.add(0, rows(start, 4))
    again = log()
    assert [len(entry) for entry in again.before] == [12, 12, 12]
    assert flat(again.before) == [*range(36)]
    assert again.before[1][0].tolist() == [12, -12]


def test_the_log_goes_on_wherever_it_was_restored(log):
    draw, at, one = random.Random(1), 0, log()
    for _ in range(60):
        count = draw.choice([1, 2, 7, 25])
        one.add(0, rows(at, count))
        at += count
        if draw.random() < 0.3:
            one = log()
    assert flat(log().before) == [*range(at)]


def test_a_log_is_long_when_it_holds_more_than_twice_what_is_needed(log):
    one = log()
    one.replace(0, [rows(0, 10)])
    one.add(0, rows(10, 15))
    assert not one.is_long(0)
    one.add(0, rows(25, 1))
    assert one.is_long(0)


def test_what_is_replaced_is_gone(log):
    one = log()
    for start in range(0, 36, 4):
        one.add(0, rows(start, 4))
    one.replace(0, [rows(20, 16)])
    one.add(0, rows(36, 1))
    assert flat(log().before) == [*range(20, 37)]


def test_other_entries_come_back_as_they_were_given(log):
    one = log()
    one.replace(0, [(7, 4096, ["tiles"]), rows(0, 3)])
    tiles, kept = log().before
    assert tiles == (7, 4096, ["tiles"])
    assert kept[:, 0].tolist() == [0, 1, 2]


def test_nothing_may_be_left_to_replace_with(log):
    one = log()
    one.add(0, rows(0, 3))
    one.replace(0, [])
    assert log().before == []


def test_shards_have_logs_of_their_own(log, runtime):
    one = log()
    one.add(0, rows(0, 3))
    runtime.setCurrentKey(1)
    assert list(one.restore(1)) == []
    one.add(1, rows(7, 1))
    runtime.setCurrentKey(0)
    assert flat(log().before) == [0, 1, 2]
