import numpy as np
import pytest

from connectors.kafka import Value
from connectors.records import MODALITIES, DeadLetter, Place
from connectors.schemas import DECISIONS, dead_letters_frame, frame_of
from pipelines import account
from pipelines.account import Balance, Ledger


def decision(case, revision, *, event=None, score=0.5, decided_ms=9, **changes):
    return {
        "decision_id": f"id-{case}",
        "case_id": case,
        "revision": revision,
        "event_id": event or f"{case}.{revision}",
        "modality": MODALITIES[revision],
        "score": score,
        "alert": False,
        "threshold": 0.5,
        "model_name": "m",
        "model_version": 1,
        "modalities": ["tabular"],
        **{f"gate_{m}": 0.0 for m in MODALITIES},
        "reasons": "[]",
        "event_time": 1,
        "created_ms": 0,
        "decided_at": decided_ms,
        **changes,
    }


def frame(*rows):
    columns = {name: [row[name] for row in rows] for name in DECISIONS.names}
    times = {n: np.array(columns[n]) for n in ("event_time", "decided_at")}
    return "run.decisions", frame_of(DECISIONS, {**columns, **times})


def letter(offset, kind="unreadable", row=-1, event_id=""):
    place = Place(topic="run.events.text", partition=0, offset=offset)
    return "run.dead-letters", dead_letters_frame(
        [
            DeadLetter(
                place=place,
                row=row,
                kind=kind,
                reason="r",
                event_id=event_id,
                modality="text",
                value=b"",
            )
        ]
    )


@pytest.fixture
def told(monkeypatch):
    """A ledger and the list of values it will read next."""
    waiting = []

    class Reading:
        def __init__(self, bootstrap, topics, *, from_end):
            assert topics == ["run.decisions", "run.dead-letters"]

        def poll(self, timeout_ms):
            values = [
                Value(
                    place=Place(topic=topic, partition=0, offset=i),
                    key=None,
                    value=value,
                    timestamp_ms=0,
                )
                for i, (topic, value) in enumerate(waiting)
            ]
            waiting.clear()
            return values

        def close(self):
            pass

    monkeypatch.setattr(account, "Reader", Reading)
    return Ledger("127.0.0.1:9092", prefix="run."), waiting


def test_every_event_ends_in_one_of_three_counts(told):
    ledger, waiting = told
    waiting += [
        frame(decision("a", 0), decision("a", 1), decision("b", 0)),
        letter(1),
        letter(2, kind="late"),
    ]
    decisions, dead = ledger.poll()
    assert (len(decisions), len(dead)) == (3, 2)
    assert ledger.accounted == 5
    assert ledger.balance(6) == Balance(
        events_in=6,
        decided=3,
        revised=1,
        dead_lettered=1,
        late=1,
        lost=1,
        duplicated=0,
        differing=0,
    )
    assert str(ledger.balance(5)) == (
        "in 5 = decided 3 + dead 1 + late 1; lost 0, duplicated 0"
    )


def test_a_record_that_comes_again_is_counted_apart(told):
    ledger, waiting = told
    waiting += [frame(decision("a", 0)), letter(1)]
    ledger.poll()
    # written again after a failure: at another time, with the same content
    waiting += [frame(decision("a", 0, decided_ms=77)), letter(1)]
    assert ledger.poll() == ([], [])
    found = ledger.balance(2)
    assert (found.decided, found.dead_lettered, found.lost) == (1, 1, 0)
    assert (found.duplicated, found.differing) == (1, 0)
    waiting.append(frame(decision("a", 0, score=0.6)))
    ledger.poll()
    found = ledger.balance(2)
    assert (found.duplicated, found.differing) == (2, 1)


def test_rows_of_one_frame_are_dead_letters_of_their_own(told):
    ledger, waiting = told
    waiting += [letter(1, row=0), letter(1, row=1), letter(1, row=1)]
    ledger.poll()
    assert ledger.balance(2).dead_lettered == 2
    assert len(ledger.dead_letters()) == 2


def test_decisions_come_back_once_each_as_a_table(told):
    ledger, waiting = told
    waiting += [frame(decision("a", 0), decision("b", 0)), frame(decision("a", 0))]
    ledger.poll()
    table = ledger.decisions()
    assert table.schema == DECISIONS
    assert table["case_id"].to_pylist() == ["a", "b"]
    ledger.close()


def test_an_empty_account_is_in_balance(told):
    ledger, _ = told
    assert ledger.balance(0).to_dict() == dict.fromkeys(ledger.balance(0).to_dict(), 0)
    assert ledger.decisions().num_rows == 0
