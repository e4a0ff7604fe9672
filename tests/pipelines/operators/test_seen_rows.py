import random

import pytest

from pipelines.operators import seen_rows
from pipelines.operators.seen_rows import SeenRows


@pytest.fixture
def log(runtime, monkeypatch):
    monkeypatch.setattr(seen_rows, "CHUNK_ROWS", 10)

    def opened():
        log = SeenRows(runtime)
        log.before = [dict(columns) for columns in log.restore(0)]
        return log

    return opened


def rows(start, count):
    numbers = [*range(start, start + count)]
    return {"n": numbers, "text": [str(n) for n in numbers]}


def flat(entries):
    return [n for columns in entries for n in columns["n"]]


def test_many_small_entries_become_chunks(log):
    one = log()
    for start in range(0, 36, 4):
        one.add(0, rows(start, 4))
    again = log()
    assert [len(columns["n"]) for columns in again.before] == [12, 12, 12]
    assert flat(again.before) == [*range(36)]
    assert again.before[1]["text"][0] == "12"
    assert one.chunks(0) == again.chunks(0) == 3


def test_the_log_goes_on_wherever_it_was_restored(log):
    draw, at, one = random.Random(1), 0, log()
    for _ in range(60):
        count = draw.choice([1, 2, 7, 25])
        one.add(0, rows(at, count))
        at += count
        if draw.random() < 0.3:
            chunks = one.chunks(0)
            one = log()
            assert one.chunks(0) == chunks
    entries = log().before
    assert flat(entries) == [*range(at)]
    assert all(len(columns["n"]) >= 10 for columns in entries[:-10])


def test_what_is_replaced_is_gone(log):
    one = log()
    for start in range(0, 36, 4):
        one.add(0, rows(start, 4))
    one.replace(0, rows(20, 16))
    assert one.chunks(0) == 1
    one.add(0, rows(36, 1))
    assert flat(log().before) == [*range(20, 37)]


def test_nothing_may_be_left_to_replace_with(log):
    one = log()
    one.add(0, rows(0, 3))
    one.replace(0, rows(0, 0))
    assert log().before == []


def test_shards_have_logs_of_their_own(log, runtime):
    one = log()
    one.add(0, rows(0, 3))
    runtime.setCurrentKey(1)
    assert list(one.restore(1)) == []
    one.add(1, rows(7, 1))
    runtime.setCurrentKey(0)
    assert flat(log().before) == [0, 1, 2]
