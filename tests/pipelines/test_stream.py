from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from automl.keys import key_of
from connectors.archive import Archive, write_archive
from connectors.codec import encode_frame
from connectors.events import EventReader
from connectors.kafka import Value
from connectors.records import MODALITIES, Place
from connectors.schemas import DECISIONS, TIME, dead_letters_frame, frame_of
from pipelines import account
from pipelines import replay as replay_module
from pipelines import stream as module
from pipelines.account import Balance, Ledger
from pipelines.operators.assemble import Case, Landing, land
from pipelines.replay import Sent
from pipelines.replay import replay as replay_archive
from pipelines.stream import SETTLE_S, StalledError, _replay_and_follow

EVENT = ("a", "text", "t")


@dataclass
class Local:
    bootstrap: str = "b:1"
    home: Path = Path("home")


class Told:
    """A ledger whose account, by seconds passed, is known beforehand."""

    def __init__(self, clock, **outcomes_at):
        self.clock = clock
        self.outcomes_at = outcomes_at
        self.asked = []

    def read(self):
        self.clock["s"] += 1.0

    def balance(self, events_in, again):
        self.asked.append((events_in, dict(again)))
        found = {
            name: [n for at_s, n in steps if at_s <= self.clock["s"]][-1]
            for name, steps in self.outcomes_at.items()
        }
        decided, dead = found.get("decided", 0), found.get("dead", 0)
        repeated = max(0, sum(again.values()) - dead) if decided else 0
        return Balance(
            events_in=events_in,
            decided=decided,
            revised=0,
            dead_lettered=dead,
            late=0,
            repeated=repeated,
            lost=events_in - decided - dead - repeated,
            duplicated=0,
            differing=0,
        )


@pytest.fixture
def clock(monkeypatch):
    found = {"s": 0.0}
    monkeypatch.setattr(module.time, "monotonic", lambda: found["s"])
    return found


@pytest.fixture
def follow(monkeypatch, clock):
    """Follow a replay that is over at once; what was said comes back."""

    class AtOnce:
        def __init__(self, *, target, daemon):
            self.start = target

        def is_alive(self):
            return False

    monkeypatch.setattr(module.threading, "Thread", AtOnce)

    def run(sent, *, stall_s=100.0, **outcomes_at):
        def replay():
            if isinstance(sent, Exception):
                raise sent
            return sent

        said = []
        ledger = Told(clock, **outcomes_at)
        args = (replay, Local(), ledger, stall_s, said.append)
        assert _replay_and_follow(*args) is sent
        return said

    return run


def sent(rows, again=0):
    found = Sent()
    found.events["text"] = rows
    if again:
        found.again[EVENT] = again
    return found


def test_it_ends_with_the_last_outcome(follow, clock):
    said = follow(sent(3), decided=[(0, 1), (4, 2), (9, 3)])
    assert clock["s"] == 9.0
    assert said[-1] == "3 of 3 events accounted for"


def test_rows_sent_again_count_as_repeated_after_a_quiet_time(follow, clock):
    follow(sent(3, again=2), decided=[(0, 0), (4, 1)])
    assert 4 + SETTLE_S < clock["s"] <= 4 + SETTLE_S + 1


def test_a_letter_that_comes_in_the_quiet_time_is_waited_for(follow, clock):
    follow(sent(3, again=2), decided=[(0, 1)], dead=[(0, 0), (3, 1), (5, 2)])
    assert clock["s"] == 5.0  # now every row has an outcome of its own


def test_events_without_outcome_end_it_in_time(follow, clock):
    with pytest.raises(StalledError, match=r"2 of 5 events have no .* 20 s"):
        follow(sent(5), stall_s=20.0, decided=[(0, 1), (7, 3)])
    assert clock["s"] == 28.0


def test_an_archive_without_rows_is_done_at_once(follow):
    assert follow(sent(0)) == ["0 of 0 events accounted for"]


def test_a_failed_replay_ends_it(follow):
    with pytest.raises(OSError, match="no broker"):
        follow(OSError("no broker"))


class Topics:
    """A broker in memory: what was sent, by topic, and what the jobs answered."""

    def __init__(self):
        self.sent = []
        self.answers = []

    def producer(self, bootstrap, *, linger_ms):
        return self

    def reader(self, bootstrap, topics, *, from_end):
        return self

    def send(self, topic, value, *, key):
        place = Place(topic=topic, partition=0, offset=len(self.sent))
        self.sent.append((place, value))

    def flush(self, timeout_s):
        pass

    def answer(self, topic, value):
        place = Place(topic=topic, partition=0, offset=len(self.answers))
        self.answers.append(Value(place=place, key=None, value=value, timestamp_ms=0))

    def poll(self, timeout_ms):
        found, self.answers = self.answers, []
        return found

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def answer_as_jobs_do(topics):
    """A letter for every row the checks refuse, a decision for every event landed."""
    cases = {}
    for place, value in topics.sent:
        modality = place.topic.removeprefix("run.events.")
        reader = EventReader(
            modality, columns={"amount": "number"}, now_ms=lambda: 1_760_000_009_000
        )
        rows, letters = reader.read(value, place)
        for letter in letters:
            topics.answer("run.dead-letters", dead_letters_frame([letter]))
        for i in range(len(rows) if rows else 0):
            case_id, event_id = rows.case_id[i].as_py(), rows.event_id[i].as_py()
            case = cases.setdefault(case_id, Case(case_id))
            number = MODALITIES.index(modality)
            landing = Landing(event_id, int(key_of(event_id)), number, 1, 0, np.ones(1))
            for one in land(case, landing):
                topics.answer("run.decisions", decision(one))


def decision(one):
    columns = {
        "decision_id": one.case.case_id,
        "case_id": one.case.case_id,
        "revision": one.revision,
        "event_id": one.landing.event_id,
        "modality": MODALITIES[one.landing.modality],
        "score": 0.5,
        "alert": False,
        "threshold": 0.5,
        "model_name": "m",
        "model_version": 1,
        "modalities": [],
        **{f"gate_{m}": 0.0 for m in MODALITIES},
        "evidence": [],
        "reasons": "[]",
        "created_ms": 0,
    }
    times = {name: np.ones(1) for name in ("event_time", "decided_at")}
    whole = {**{name: [value] for name, value in columns.items()}, **times}
    return frame_of(DECISIONS, whole)


@pytest.fixture
def topics(monkeypatch):
    found = Topics()
    monkeypatch.setattr(replay_module, "Producer", found.producer)
    monkeypatch.setattr(account, "Reader", found.reader)
    return found


#: event_id, case_id, amount: good ones, repeated ones, bad ones, and both
ROWS = [
    ("1", "a", 1.0),
    ("1", "a", 1.0),  # again
    ("1", "b", 1.0),  # the same id in another case
    ("2", "a", None),  # bad
    ("2", "a", 2.0),  # then good
    ("2", "a", None),  # then bad
    ("2", "a", 2.0),  # then again
    ("3", "c", None),  # bad twice, never good
    ("3", "c", None),
    (None, "c", 1.0),  # without ids
    (None, "c", 1.0),
    ("4", None, 1.0),
    ("4", None, 1.0),
]


@pytest.mark.parametrize("frame_rows", [1, 3, 64])
@pytest.mark.parametrize("with_text", [True, False])
def test_the_balance_of_a_messy_archive_is_exact(
    topics, tmp_path, frame_rows, with_text
):
    ids, cases, amounts = (list(column) for column in zip(*ROWS, strict=True))
    at = pa.array([1_760_000_000_000 + i for i in range(len(ROWS))], TIME)
    keys = {"event_id": ids, "case_id": cases, "event_time": at}
    tables = {"tabular": pa.table({**keys, "amount": amounts})}
    if with_text:
        words = ["w" if amount else None for amount in amounts]
        tables["text"] = pa.table({**keys, "text": words})
    write_archive(tmp_path, Archive(tables=tables))
    sent = replay_archive(tmp_path, "b:1", prefix="run.", frame_rows=frame_rows)
    ledger = Ledger("b:1", prefix="run.")
    answer_as_jobs_do(topics)
    ledger.poll()
    found = ledger.balance(sent.total, sent.again)
    each = Counter(decided=3, dead=8, repeated=2)
    times = len(tables)
    assert (found.events_in, found.lost) == (13 * times, 0)
    assert (found.decided, found.dead_lettered, found.repeated) == (
        each["decided"] * times,
        each["dead"] * times,
        each["repeated"] * times,
    )


@pytest.fixture
def without_amount():
    """Three payments that lack a needed column."""
    at = pa.array([1_760_000_000_000] * 3, TIME)
    keys = {"event_id": ["1", "2", "3"], "case_id": ["a", "b", "c"], "event_time": at}
    return pa.table(keys)


def test_payments_without_a_needed_column_are_all_accounted_for(
    topics, tmp_path, without_amount
):
    write_archive(tmp_path, Archive(tables={"tabular": without_amount}))
    sent = replay_archive(tmp_path, "b:1", prefix="run.")
    ledger = Ledger("b:1", prefix="run.")
    answer_as_jobs_do(topics)
    ledger.poll()
    assert ledger.balance(sent.total, sent.again).dead_lettered == 3
    assert ledger.balance(sent.total, sent.again).lost == 0


def test_a_frame_without_a_needed_column_is_as_many_dead_events_as_rows(
    topics, without_amount
):
    (batch,) = without_amount.to_batches()
    topics.send("run.events.tabular", encode_frame(batch), key="a")
    ledger = Ledger("b:1", prefix="run.")
    answer_as_jobs_do(topics)
    ledger.poll()
    assert len(ledger.dead_letters()) == 1
    assert ledger.balance(3).dead_lettered == 3
    assert ledger.balance(3).lost == 0
