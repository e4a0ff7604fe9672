import numpy as np
import pytest

from connectors.codec import decode_frame
from connectors.records import DeadLetter, Place
from connectors.rows import EventRows, Origins, concat_rows

JSON = Place(topic="t", partition=0, offset=1)
FRAME = Place(topic="t", partition=2, offset=3)


def rows(ids, origins):
    return EventRows(
        modality="tabular",
        event_id=list(ids),
        case_id=[f"case-{i}" for i in ids],
        event_time_ms=np.arange(len(ids)) + 1000,
        created_ms=np.arange(len(ids)) + 5,
        origins=origins,
        columns={
            "amount": np.arange(len(ids)) * 1.5,
            "customer": np.array([f"c-{i}" for i in ids], dtype=object),
            "windows": np.ones((len(ids), 2)),
        },
    )


@pytest.fixture
def mixed():
    framed = rows("abc", Origins.of_frame(FRAME, np.array([4, 5, 9], dtype=np.int32)))
    single = rows("z", Origins.of_object(JSON, b'{"event_id": "z"}'))
    return concat_rows([single, framed])


def test_concatenated_rows_keep_their_order_and_their_places(mixed):
    assert mixed.event_id == ["z", "a", "b", "c"]
    assert mixed.columns["amount"].tolist() == [0.0, 0.0, 1.5, 3.0]
    letters = [mixed.dead_letter(i, kind="late", reason="r") for i in range(4)]
    assert [(x.place, x.row) for x in letters] == [
        (JSON, -1),
        (FRAME, 4),
        (FRAME, 5),
        (FRAME, 9),
    ]


def test_taken_rows_keep_the_place_they_came_from(mixed):
    some = mixed.take([3, 0])
    assert len(some) == 2
    assert some.event_id == ["c", "z"]
    assert some.case_id == ["case-c", "case-z"]
    assert some.event_time_ms.tolist() == [1002, 1000]
    assert some.columns["customer"].tolist() == ["c-c", "c-z"]
    assert some.columns["windows"].shape == (2, 2)
    letter = some.dead_letter(0, kind="late", reason="r")
    assert (letter.place, letter.row) == (FRAME, 9)


def test_the_dead_letter_of_a_json_event_is_the_event_to_the_byte(mixed):
    assert mixed.dead_letter(0, kind="late", reason="too old") == DeadLetter(
        place=JSON,
        row=-1,
        kind="late",
        reason="too old",
        event_id="z",
        modality="tabular",
        value=b'{"event_id": "z"}',
    )


def test_the_dead_letter_of_a_frame_row_is_a_frame_of_that_row(mixed):
    letter = mixed.dead_letter(2, kind="late", reason="too old")
    found = decode_frame(letter.value).to_pylist()
    assert len(found) == 1
    assert found[0]["event_id"] == "b"
    assert found[0]["event_time"].timestamp() == 1.001
    assert found[0]["amount"] == 1.5
    assert found[0]["windows"] == [1.0, 1.0]


def test_one_part_is_not_copied(mixed):
    assert concat_rows([mixed]) is mixed
