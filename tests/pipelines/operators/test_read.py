import json
import time

import pyarrow as pa
from pyflink.common import Row

from connectors.codec import decode_frame, encode_frame
from connectors.records import DeadLetter, Place
from connectors.schemas import TIME
from pipelines.operators.read import (
    ReadEvents,
    by_shard,
    letters_out,
    now_ms,
    shard_of,
)

AT_MS = 1_760_000_000_000


def read(value, *, key="case_id", modality="tabular", topic="run.events"):
    operator = ReadEvents(
        columns={"customer": "id"},
        topics={topic: modality},
        key=key,
        shards=4,
        dead_letters="run.dead-letters",
    )
    operator.open(None)
    return list(operator.process_element(Row(topic, 1, 9, value), None))


def frame(ids, customers):
    at = pa.array([AT_MS] * len(ids), pa.int64()).cast(TIME)
    return encode_frame(
        pa.RecordBatch.from_pydict(
            {
                "event_id": ids,
                "case_id": [f"k{i}" for i in ids],
                "event_time": at,
                "customer": customers,
            }
        )
    )


def test_a_shard_is_the_same_in_every_process():
    # crc32("case-1") = 3717390022
    assert shard_of("case-1", 16) == 3717390022 % 16
    assert {shard_of(f"case-{i}", 4) for i in range(50)} == {0, 1, 2, 3}


def test_rows_go_to_the_shard_of_their_case_in_their_order():
    ids = [f"e{i}" for i in range(40)]
    out = read(frame(ids, ["c"] * 40))
    assert sorted(i for _, rows in out for i in rows.event_id) == sorted(ids)
    assert len({shard for shard, _ in out}) == len(out) == 4
    for shard, rows in out:
        assert {shard_of(case_id, 4) for case_id in rows.case_id} == {shard}
        numbers = [int(i[1:]) for i in rows.event_id]
        assert numbers == sorted(numbers)


def test_the_key_may_be_an_entity():
    out = read(frame(["a", "b"], [7, 7]), key="customer")
    assert [(shard, len(rows)) for shard, rows in out] == [(shard_of("7", 4), 2)]


def test_a_value_of_good_and_bad_rows_gives_both(apart):
    good, (letter,) = apart(read(frame(["a", "b", "c"], ["x", None, "x"])))
    assert (letter["event_id"], letter["row"]) == ("b", 1)
    place = letter["topic"], letter["partition"], letter["offset"]
    assert place == ("run.events", 1, 9)
    assert sorted(i for _, rows in good for i in rows.event_id) == ["a", "c"]


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


def test_one_key_is_not_copied():
    ((_, rows),) = read(frame(["a"], ["x"]))
    ((_, same),) = by_shard(rows, ["k"], 4)
    assert same is rows


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
