from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from connectors.codec import encode_frame
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
        "evidence": [],
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


def rows(*events):
    """The value of a dead letter: a frame with the rows of some texts."""
    names = ("case_id", "modality", "event_id")
    columns = zip(*events, strict=True)
    return encode_frame(
        pa.RecordBatch.from_pydict(
            {
                name: pa.array(column, pa.string())
                for name, column in zip(names, columns, strict=True)
                if name != "modality" or any(column)
            }
        )
    )


def letter(
    offset,
    kind="unreadable",
    row=-1,
    event_id="",
    topic="run.events.text",
    value=b"",
):
    place = Place(topic=topic, partition=0, offset=offset)
    return "run.dead-letters", dead_letters_frame(
        [
            DeadLetter(
                place=place,
                row=row,
                kind=kind,
                reason="r",
                event_id=event_id,
                modality="text",
                value=value,
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


@pytest.mark.parametrize(
    "topic", ["run.models", "run.labels", "events.text", "other.events.text"]
)
def test_letters_about_other_things_are_kept_but_do_not_count(told, topic):
    ledger, waiting = told
    waiting += [frame(decision("a", 0)), letter(1, kind="mismatch", topic=topic)]
    assert len(ledger.poll()[1]) == 1
    assert ledger.accounted == 1
    found = ledger.balance(1)
    assert (found.dead_lettered, found.lost) == (0, 0)
    assert len(ledger.dead_letters()) == 1


def refused(offset, *events):
    return letter(
        offset, kind="mismatch", row=0, topic="run.embeddings", value=rows(*events)
    )


def test_a_refused_embedding_is_a_dead_event_once(told):
    ledger, waiting = told
    event = ("a", "text", "t")
    waiting += [refused(1, event), refused(1, event)]
    ledger.poll()
    assert ledger.balance(1).dead_lettered == 1
    waiting.append(refused(9, event))  # a restarted encode job wrote it again
    ledger.poll()
    found = ledger.balance(1)
    assert (found.dead_lettered, found.lost) == (1, 0)
    assert ledger.accounted == 1
    twice = ledger.balance(2, {event: 1})  # unless it was sent twice
    assert (twice.dead_lettered, twice.lost) == (2, 0)


def test_a_decided_event_is_not_dead_for_an_embedding_refused_later(told):
    ledger, waiting = told
    event = ("a", MODALITIES[1], "a.1")
    waiting += [frame(decision("a", 1)), refused(1, event)]
    ledger.poll()
    found = ledger.balance(1)
    assert (found.decided, found.dead_lettered, found.lost) == (1, 0, 0)


def test_something_unreadable_among_the_embeddings_is_no_event(told):
    ledger, waiting = told
    waiting.append(letter(1, topic="run.embeddings", value=b"noise"))
    ledger.poll()
    assert ledger.accounted == 0


def test_a_letter_about_a_whole_frame_stands_for_each_of_its_rows(told):
    ledger, waiting = told
    waiting += [
        letter(1, value=rows(("a", None, "1"), ("b", None, "2"), ("c", None, "3"))),
        letter(2, value=b"SLF\x01 cut short"),
        letter(3, value=b"{"),
    ]
    ledger.poll()
    assert ledger.balance(5).dead_lettered == 5
    assert ledger.accounted == 5


def test_one_event_id_in_two_cases_is_two_decisions(told):
    ledger, waiting = told
    waiting.append(frame(decision("a", 0, event="e"), decision("b", 0, event="e")))
    ledger.poll()
    assert ledger.balance(2).decided == 2
    assert ledger.balance(2).lost == 0


def test_an_event_whose_revision_was_taken_is_decided_too(told):
    ledger, waiting = told
    # after a restart media may land in another order
    waiting += [frame(decision("a", 1, event="x")), frame(decision("a", 1, event="y"))]
    ledger.poll()
    found = ledger.balance(2)
    assert (found.decided, found.lost) == (2, 0)
    assert (found.duplicated, found.differing) == (1, 1)


EVENT = ("a", MODALITIES[1], "a.1")


@pytest.mark.parametrize(
    ("dead", "decided", "dead_lettered", "repeated", "lost"),
    [
        (0, True, 0, 2, 0),  # sent three times, decided once
        (1, True, 1, 1, 0),  # one of the three rows was bad
        (2, True, 2, 0, 0),
        (3, False, 3, 0, 0),  # all were
        (2, False, 2, 0, 1),
        (0, False, 0, 0, 3),  # not decided yet: nothing is a repetition
    ],
)
def test_a_row_sent_again_is_repeated_dead_or_lost(
    told, dead, decided, dead_lettered, repeated, lost
):
    ledger, waiting = told
    case, _, event_id = EVENT
    value = rows((case, None, event_id))
    waiting += [letter(i, row=0, value=value) for i in range(dead)]
    if decided:
        waiting.append(frame(decision("a", 1)))
    ledger.poll()
    found = ledger.balance(3, Counter({EVENT: 2}))
    assert found.decided == decided
    assert found.dead_lettered == dead_lettered
    assert (found.repeated, found.lost) == (repeated, lost)
    assert found.accounted == 3 - lost


def test_a_late_row_sent_again_is_late_not_repeated(told):
    ledger, waiting = told
    value = rows(("a", None, "a.0"))
    tabular = "run.events.tabular"
    waiting += [
        frame(decision("a", 0)),
        letter(1, kind="late", row=0, topic=tabular, value=value),
    ]
    ledger.poll()
    found = ledger.balance(3, {("a", "tabular", "a.0"): 2})
    assert (found.late, found.repeated, found.lost) == (1, 1, 0)
    assert str(found) == (
        "in 3 = decided 1 + dead 0 + late 1 + repeated 1; lost 0, duplicated 0"
    )


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
