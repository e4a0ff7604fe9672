import json

import numpy as np
import pyarrow as pa
import pytest

from automl.keys import key_of
from connectors.codec import decode_frame, encode_frame
from connectors.rows import CLOCK
from connectors.schemas import TIME
from pipelines.operators import collect
from pipelines.operators.collect import (
    BUSY_FRAMES,
    LOOK_MS,
    MOST_LOOKS,
    CollectEvents,
)
from pipelines.operators.read import now_ms
from pipelines.operators.shards import shard_of
from pipelines.operators.turn import UNDER_WAY

AT_MS = 1_760_000_000_000


@pytest.fixture
def collector(runtime):
    """Payments keyed by customer, which wait 5 ms for each other."""

    def make(nodes=1, key="case_id", horizon_ms=0, limits=None):
        operator = CollectEvents(
            topic="run.events",
            columns={"customer": "id"} | {name: "number" for name in limits or ()},
            number_limits=limits or {},
            key=key,
            wait_ms=5,
            horizon_ms=horizon_ms,
            shards=4,
            nodes=nodes,
            dead_letters="run.dead-letters",
        )
        return runtime.open(operator)

    return make


def record(offset, value, partition=1):
    return (f"run.events {partition} {offset}".encode(), value)


def one(number, customer="x", at_ms=AT_MS, **columns):
    event = {"event_id": f"e{number}", "case_id": f"k{number}"}
    event |= {"event_time_ms": at_ms, "customer": customer, **columns}
    return json.dumps(event).encode()


def frame(ids, customers, at_ms=AT_MS, **columns):
    at = pa.array(np.broadcast_to(at_ms, len(ids)), pa.int64()).cast(TIME)
    return encode_frame(
        pa.RecordBatch.from_pydict(
            {
                "event_id": ids,
                "case_id": [f"k{i}" for i in ids],
                "event_time": at,
                "customer": customers,
                **columns,
            }
        )
    )


#: Longer than anything waits, whatever is under way.
LONG_MS = 5 + LOOK_MS * MOST_LOOKS


def ids_of(rows):
    return rows.event_id.to_pylist()


def test_a_frame_goes_on_at_once_in_its_order(runtime, collector):
    ids = [f"e{i}" for i in range(40)]
    operator = collector()
    ((node, rows),) = runtime.give(operator, 1, record(9, frame(ids, ["c"] * 40)))
    assert (node, ids_of(rows)) == (0, ids)


def test_rows_go_to_the_node_of_their_key_in_their_order(runtime, collector):
    ids = [f"e{i}" for i in range(40)]
    out = runtime.give(collector(nodes=2), 1, record(9, frame(ids, ["c"] * 40)))
    assert sorted(i for _, rows in out for i in ids_of(rows)) == sorted(ids)
    assert sorted(node for node, _ in out) == [0, 2]  # the first shard of each
    for node, rows in out:
        assert {shard_of(k, 4) // 2 * 2 for k in rows.keys("case_id")} == {node}
        numbers = [int(i[1:]) for i in ids_of(rows)]
        assert numbers == sorted(numbers)


def test_the_key_may_be_an_entity(runtime, collector):
    operator = collector(nodes=4, key="customer")
    out = runtime.give(operator, 1, record(9, frame(["a", "b"], [7, 7])))
    # every node hears of the frame, one gets its rows
    assert [node for node, _ in out] == [0, 1, 2, 3]
    assert len({part.frame for _, part in out}) == 1
    found = {node: ids_of(part.rows) for node, part in out if part.rows is not None}
    assert found == {shard_of(key_of("7"), 4): ["a", "b"]}


def test_frames_of_a_partition_are_numbered_in_their_order(runtime, collector):
    operator = collector(key="customer")
    frames = []
    for partition in (1, 1, 2, 1):
        value = record(0, frame(["a"], ["x"]), partition)
        ((_, part),) = runtime.give(operator, partition, value)
        UNDER_WAY.arrive()
        frames.append(part.frame)
    assert [partition for partition, _ in frames] == [1, 1, 2, 1]
    assert frames[0] < frames[1] < frames[3]


def test_single_events_wait_for_each_other(runtime, collector):
    operator = collector()
    assert runtime.give(operator, 1, record(1, one(1))) == []
    assert runtime.wait(operator, 3) == []
    assert runtime.give(operator, 1, record(2, one(2))) == []
    assert runtime.wait(operator, 1) == []
    ((_, rows),) = runtime.wait(operator, 1)
    assert ids_of(rows) == ["e1", "e2"]
    places = [str(rows.origins.place(i)) for i in (0, 1)]
    assert places == ["run.events[1]@1", "run.events[1]@2"]
    assert runtime.wait(operator, 1000) == []


def test_many_single_events_do_not_wait(runtime, collector, monkeypatch):
    monkeypatch.setattr(collect, "MOST_EVENTS", 3)
    operator = collector()
    out = [runtime.give(operator, 1, record(i, one(i))) for i in range(4)]
    assert [len(rows) for _, rows in out[2]] == [3]
    assert out[0] == out[1] == out[3] == []
    ((_, rest),) = runtime.wait(operator, LONG_MS)
    assert ids_of(rest) == ["e3"]


def test_what_came_since_waits_its_own_time(runtime, collector, monkeypatch):
    monkeypatch.setattr(collect, "MOST_EVENTS", 2)
    operator = collector()
    runtime.give(operator, 1, record(1, one(1)))
    ((_, rows),) = runtime.give(operator, 1, record(2, one(2)))
    assert ids_of(rows) == ["e1", "e2"]
    UNDER_WAY.arrive()
    runtime.wait(operator, 3)
    runtime.give(operator, 1, record(3, one(3)))
    assert runtime.wait(operator, 4) == []  # the timer of e1 is over
    ((_, rows),) = runtime.wait(operator, 1)
    assert ids_of(rows) == ["e3"]


def test_events_that_come_fast_wait_for_more(runtime, collector, monkeypatch):
    monkeypatch.setattr(collect, "MANY_EVENTS", 3)
    operator = collector()
    for number in range(3):
        runtime.give(operator, 1, record(number, one(number)))
    assert runtime.wait(operator, 5 + LOOK_MS * (MOST_LOOKS - 2)) == []
    ((_, rows),) = runtime.wait(operator, LOOK_MS)
    assert len(rows) == 3


def test_single_events_wait_for_what_is_under_way(runtime, collector):
    operator = collector()
    runtime.give(operator, 1, record(1, frame(["e1"], ["c"])))
    runtime.give(operator, 1, record(2, one(2)))
    assert runtime.wait(operator, 8) == []
    runtime.give(operator, 1, record(3, one(3)))
    UNDER_WAY.arrive()
    ((_, rows),) = runtime.wait(operator, LOOK_MS)
    assert ids_of(rows) == ["e2", "e3"]


def test_slots_are_used_again_and_hold_what_waits(runtime, collector):
    for offset in range(0, 40, 4):
        operator = collector()
        for number in range(offset, offset + 3):
            runtime.give(operator, 1, record(number, one(number)))
        ((_, rows),) = runtime.wait(operator, LONG_MS)
        assert ids_of(rows) == [f"e{number}" for number in range(offset, offset + 3)]
        UNDER_WAY.arrive()
        runtime.give(operator, 1, record(offset + 3, one(offset + 3)))
        ((_, rows),) = runtime.wait(collector(), LONG_MS)
        assert ids_of(rows) == [f"e{offset + 3}"]
    assert len(runtime.kept[("slots", 1)]) == 3


def test_a_frame_does_not_overtake_what_waits(runtime, collector):
    operator = collector()
    runtime.give(operator, 1, record(1, one(1)))
    out = runtime.give(operator, 1, record(2, frame(["e2"], ["x"])))
    assert [ids_of(rows) for _, rows in out] == [["e1"], ["e2"]]
    assert runtime.wait(operator, 1000) == []


def test_what_waits_is_not_lost_in_a_restart(runtime, collector, apart):
    operator = collector()
    runtime.give(operator, 1, record(1, one(1)))
    runtime.give(operator, 1, record(2, b"junk"))
    runtime.give(operator, 2, record(1, one(3), 2))
    on, (letter,) = apart(runtime.wait(collector(), LONG_MS))
    assert [ids_of(rows) for _, rows in on] == [["e1"], ["e3"]]
    assert (letter["value"], letter["offset"]) == (b"junk", 2)
    assert runtime.wait(collector(), 1000) == []


def test_a_restart_goes_on_behind_what_waits(runtime, collector):
    runtime.give(collector(), 1, record(1, one(1)))
    operator = collector()
    assert runtime.give(operator, 1, record(2, one(2))) == []
    ((_, rows),) = runtime.wait(operator, 5)
    assert ids_of(rows) == ["e1", "e2"]


def test_a_value_of_good_and_bad_rows_gives_both(runtime, collector, apart):
    value = frame(["a", "b", "c"], ["x", None, "x"])
    good, (letter,) = apart(runtime.give(collector(), 1, record(9, value)))
    assert (letter["event_id"], letter["row"]) == ("b", 1)
    place = letter["topic"], letter["partition"], letter["offset"]
    assert place == ("run.events", 1, 9)
    assert sorted(i for _, rows in good for i in ids_of(rows)) == ["a", "c"]


def test_a_tombstone_among_events_survives_a_restart(runtime, collector, apart):
    runtime.give(collector(), 1, record(1, None))
    runtime.give(collector(), 1, record(2, one(2)))
    on, (letter,) = apart(runtime.wait(collector(), 5))
    assert [ids_of(rows) for _, rows in on] == [["e2"]]
    assert (letter["topic"], letter["offset"]) == ("run.events", 1)
    assert letter["reason"].startswith("empty value")


def test_texts_go_on_as_keys_and_bytes_stay_behind(runtime, collector):
    operator = collector()
    runtime.give(operator, 1, record(1, one(1, "ada")))
    ((_, rows),) = runtime.wait(operator, 5)
    assert rows.columns["customer"].tolist() == [key_of("ada")]
    assert rows.keys("case_id").tolist() == [key_of("k1")]
    assert rows.origins.values is None


#: More than a block of the clock, which moves on to their median.
BLOCK = [f"b{i}" for i in range(256)]


def late(runtime, operator, at_ms, apart):
    """What becomes of one event at `at_ms`: ids that go on, and dead letters."""
    runtime.give(operator, 1, record(7, one(7, at_ms=at_ms)))
    on, letters = apart(runtime.wait(operator, LONG_MS))
    return [i for _, rows in on for i in ids_of(rows)], letters


def test_an_event_behind_the_horizon_is_late(runtime, collector, apart):
    operator = collector(horizon_ms=1000)
    assert late(runtime, operator, AT_MS - 10**9, apart) == (["e7"], [])
    runtime.give(operator, 1, record(8, frame(BLOCK, ["x"] * 256)))
    assert late(runtime, operator, AT_MS - 1000, apart) == (["e7"], [])
    on, (letter,) = late(runtime, operator, AT_MS - 1001, apart)
    assert (on, letter["kind"], letter["event_id"]) == ([], "late", "e7")
    assert letter["value"] == one(7, at_ms=AT_MS - 1001)
    assert letter["reason"] == (
        f"event time {AT_MS - 1001} ms is more than the horizon of 1000 ms "
        f"behind the stream's time {AT_MS} ms"
    )


def test_a_late_row_of_a_frame_goes_alone_and_can_be_read_again(
    runtime, collector, apart
):
    operator = collector(horizon_ms=1000)
    runtime.give(operator, 1, record(8, frame(BLOCK, ["x"] * 256)))
    at_ms = [AT_MS, AT_MS - 5000, AT_MS + 5]
    value = frame(["a", "b", "c"], ["x", "y", "z"], at_ms)
    ((_, rows),), (letter,) = apart(runtime.give(operator, 1, record(9, value)))
    assert ids_of(rows) == ["a", "c"]
    assert rows.columns[CLOCK].tolist() == [AT_MS, AT_MS]
    assert (letter["row"], letter["offset"], letter["kind"]) == (1, 9, "late")
    (again,) = decode_frame(letter["value"]).to_pylist()
    assert (again["event_id"], again["customer"]) == ("b", "y")


def test_without_a_horizon_nothing_is_late(runtime, collector, apart):
    operator = collector()
    runtime.give(operator, 1, record(8, frame(BLOCK, ["x"] * 256)))
    assert late(runtime, operator, AT_MS - 10**10, apart) == (["e7"], [])


def test_one_partition_does_not_move_the_time_of_another(runtime, collector, apart):
    operator = collector(horizon_ms=1000)
    runtime.give(operator, 2, record(8, frame(BLOCK, ["x"] * 256), 2))
    assert late(runtime, operator, AT_MS - 5000, apart) == (["e7"], [])


def test_the_clock_goes_on_after_a_restart(runtime, collector, apart):
    half = frame(BLOCK[:128], ["x"] * 128)
    for offset in (7, 8):
        runtime.give(collector(horizon_ms=1000), 1, record(offset, half))
    on, (letter,) = late(runtime, collector(horizon_ms=1000), AT_MS - 5000, apart)
    assert (on, letter["kind"]) == ([], "late")


def test_a_number_out_of_its_limits_is_a_dead_letter(runtime, collector, apart):
    operator = collector(limits={"amount": (0.0, 10.0)})
    value = frame(["a", "b"], ["x", "x"], amount=[10.0, 11.0])
    ((_, rows),), (letter,) = apart(runtime.give(operator, 1, record(9, value)))
    assert ids_of(rows) == ["a"]
    assert letter["kind"] == "limits"
    assert letter["reason"] == "amount: 11 is over the limit of 10"
    for number, amount in ((1, -1), (2, 5)):
        runtime.give(operator, 1, record(number, one(number, amount=amount)))
    on, (letter,) = apart(runtime.wait(operator, LONG_MS))
    assert [ids_of(rows) for _, rows in on] == [["e2"]]
    assert letter["reason"] == "amount: -1 is under the limit of 0"


def test_a_column_of_a_name_of_ours_is_refused_before_the_job_starts(collector):
    with pytest.raises(ValueError, match=r"'windows\.clock'.*rename the column"):
        collector(limits={CLOCK: (0.0, 1.0)})


def old_frame(ids):
    """A frame that waited for the job: it was created a second ago."""
    return frame(ids, ["c"] * len(ids), created_ms=[now_ms() - 1000] * len(ids))


def test_frames_that_are_behind_go_on_together(runtime, collector):
    operator = collector()
    assert runtime.give(operator, 1, record(1, old_frame(["e1", "e2"]))) == []
    assert runtime.give(operator, 1, record(2, old_frame(["e3"]))) == []
    ((_, rows),) = runtime.wait(operator, 5)
    assert ids_of(rows) == ["e1", "e2", "e3"]
    assert rows.origins.offset.tolist() == [1, 1, 2]


def test_frames_that_are_behind_do_not_wait_when_there_are_many(
    runtime, collector, monkeypatch
):
    monkeypatch.setattr(collect, "MOST_ROWS", 3)
    operator = collector()
    assert runtime.give(operator, 1, record(1, old_frame(["e1", "e2"]))) == []
    ((_, rows),) = runtime.give(operator, 1, record(2, old_frame(["e3"])))
    assert ids_of(rows) == ["e1", "e2", "e3"]
    assert runtime.wait(operator, 1000) == []


def test_nothing_overtakes_frames_that_wait(runtime, collector):
    operator = collector()
    runtime.give(operator, 1, record(1, old_frame(["e1"])))
    ((_, rows),) = runtime.give(operator, 1, record(2, one(2)))
    assert ids_of(rows) == ["e1"]
    out = runtime.give(operator, 1, record(3, old_frame(["e3"])))
    assert [ids_of(rows) for _, rows in out] == [["e2"]]
    out = runtime.give(operator, 1, record(4, frame(["e4"], ["c"])))
    assert [ids_of(rows) for _, rows in out] == [["e3", "e4"]]


def busy(runtime, operator):
    """As many frames under way as make others wait."""
    for number in range(BUSY_FRAMES):
        value = record(number, frame([f"b{number}"], ["c"]))
        assert len(runtime.give(operator, 1, value)) == 1


def test_frames_wait_for_those_under_way_and_go_on_together(runtime, collector):
    operator = collector()
    busy(runtime, operator)
    for number in (5, 6):
        value = record(number, frame([f"e{number}"], ["c"]))
        assert runtime.give(operator, 1, value) == []
    UNDER_WAY.arrive()
    out = runtime.give(operator, 1, record(7, frame(["e7"], ["c"])))
    assert [ids_of(rows) for _, rows in out] == [["e5", "e6", "e7"]]


def test_a_frame_waits_no_longer_when_one_has_arrived(runtime, collector):
    operator = collector()
    busy(runtime, operator)
    assert runtime.give(operator, 1, record(5, frame(["e5"], ["c"]))) == []
    assert runtime.wait(operator, 1) == []
    UNDER_WAY.arrive()
    ((_, rows),) = runtime.wait(operator, 1)
    assert ids_of(rows) == ["e5"]


def test_a_frame_waits_no_longer_than_it_may(runtime, collector):
    operator = collector()
    busy(runtime, operator)
    assert runtime.give(operator, 1, record(5, frame(["e5"], ["c"]))) == []
    for _ in range(MOST_LOOKS - 1):
        assert runtime.wait(operator, LOOK_MS) == []
    ((_, rows),) = runtime.wait(operator, LOOK_MS)
    assert ids_of(rows) == ["e5"]


def test_of_several_nodes_nobody_knows_what_is_under_way(runtime, collector):
    operator = collector(nodes=2)
    for number in range(BUSY_FRAMES + 1):
        value = record(number, frame([f"b{number}"], ["c"]))
        assert len(runtime.give(operator, 1, value)) == 1


def test_frames_that_wait_are_not_lost_in_a_restart(runtime, collector):
    runtime.give(collector(), 1, record(1, old_frame(["e1", "e2"])))
    runtime.give(collector(), 1, record(2, old_frame(["e3"])))
    ((_, rows),) = runtime.wait(collector(), 5)
    assert ids_of(rows) == ["e1", "e2", "e3"]
    assert runtime.wait(collector(), 1000) == []
