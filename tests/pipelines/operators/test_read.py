import json
import time

from pyflink.common import Row

from automl.keys import key_of
from connectors.codec import decode_frame
from connectors.records import DeadLetter, Place
from pipelines.operators.read import ReadEvents, letters_out, now_ms

AT_MS = 1_760_000_000_000


def read(value, *, modality="text", topic="run.events", nodes=1):
    operator = ReadEvents(
        topics={topic: modality},
        shards=4,
        nodes=nodes,
        dead_letters="run.dead-letters",
    )
    operator.open(None)
    return list(
        operator.process_element(Row(1, (f"{topic} 1 9".encode(), value)), None)
    )


def test_a_value_of_nothing_is_a_dead_letter(apart):
    on, (letter,) = apart(read(None))
    assert (on, letter["value"]) == ([], b"")
    on, (letter,) = apart(read(bytearray(b"junk")))
    assert (on, letter["value"]) == ([], b"junk")


def test_media_topics_are_read_by_their_modality():
    event = {"event_id": "e", "case_id": "k", "event_time_ms": AT_MS, "text": "hi"}
    ((_, rows),) = read(json.dumps(event).encode(), modality="text")
    assert rows.modality == "text"
    assert rows.columns["text"].tolist() == ["hi"]
    assert rows.keys("case_id").tolist() == [key_of("k")]


def test_dead_letters_leave_one_by_one_with_their_modality_as_key():
    def letter(modality):
        return DeadLetter(
            place=Place(topic="t", partition=0, offset=0),
            row=-1,
            kind="mismatch",
            reason="r",
            event_id="e",
            modality=modality,
            value=b"v",
        )

    out = list(letters_out("run.dead-letters", [letter("text"), letter("")]))
    assert [(row[0], row[1]) for row in out] == [
        ("run.dead-letters", b"text"),
        ("run.dead-letters", b"mismatch"),
    ]
    assert decode_frame(out[0][2]).to_pylist()[0]["value"] == b"v"


def test_the_clock_is_in_milliseconds():
    assert abs(now_ms() - time.time() * 1000) < 1000
