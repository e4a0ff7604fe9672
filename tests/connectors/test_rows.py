import pickle

import numpy as np
import pyarrow as pa
import pytest

from connectors.codec import decode_frame, encode_frame
from connectors.events import EventReader
from connectors.origins import Origins
from connectors.records import DeadLetter, Place
from connectors.rows import ADDED_PREFIX, CASE_KEY, CLOCK, EventRows, concat_rows
from connectors.schemas import TIME

JSON = Place(topic="t", partition=0, offset=1)
FRAME = Place(topic="t", partition=2, offset=3)


def rows(ids, origins):
    return EventRows(
        modality="tabular",
        event_id=pa.array(list(ids)),
        case_id=pa.array([f"case-{i}" for i in ids]),
        event_time_ms=np.arange(len(ids)) + 1000,
        created_ms=np.arange(len(ids)) + 5,
        origins=origins,
        columns={
            "amount": np.arange(len(ids)) * 1.5,
            "customer": pa.array([f"c-{i}" for i in ids]),
            "foreign": np.arange(len(ids)) % 2.0,
            "vector": np.ones((len(ids), 2)),
            "windows.customer": np.ones((len(ids), 2)),
            CASE_KEY: np.arange(len(ids), dtype=np.uint64),
            CLOCK: np.arange(len(ids)),
        },
        bools=("foreign",),
    )


@pytest.fixture
def mixed():
    framed = rows("abc", Origins.of_frame(FRAME, np.array([4, 5, 9], dtype=np.int32)))
    single = rows("z", Origins.of_objects(("t", 0), [1], [b'{"event_id": "z"}']))
    return concat_rows([single, framed])


def test_concatenated_rows_keep_their_order_and_their_places(mixed):
    assert mixed.event_id.to_pylist() == ["z", "a", "b", "c"]
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
    assert some.event_id.to_pylist() == ["c", "z"]
    assert some.case_id.to_pylist() == ["case-c", "case-z"]
    assert some.event_time_ms.tolist() == [1002, 1000]
    assert some.columns["customer"].tolist() == ["c-c", "c-z"]
    assert some.columns["vector"].shape == (2, 2)
    assert some.bools == ("foreign",)
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
    assert found[0]["foreign"] is True
    assert found[0]["vector"] == [1.0, 1.0]


def test_what_operators_added_is_not_in_a_dead_letter(mixed):
    letter = mixed.dead_letter(2, kind="late", reason="too old")
    names = decode_frame(letter.value).schema.names
    assert not [name for name in names if name.startswith(ADDED_PREFIX)]


KINDS = {
    "amount": "number",
    "foreign": "bool",
    "note": "string",
    "customer": "id",
    "windows.open": "number",
}


def frame(*bad):
    """Three payments; the rows in `bad` have no amount."""
    return encode_frame(
        pa.RecordBatch.from_pydict(
            {
                "event_id": ["e0", "e1", "e2"],
                "case_id": ["k0", "k1", "k2"],
                "event_time": pa.array([1_760_000_000_000 + i for i in range(3)], TIME),
                "created_ms": [5, 6, 7],
                "amount": [None if i in bad else 1.5 * i for i in range(3)],
                "foreign": [False, True, False],
                "note": ["", "b", "c"],
                "customer": [10, 11, 12],
                "windows.open": [1.0, 2.0, 3.0],
                "not needed": ["x", "y", "z"],
            }
        )
    )


@pytest.mark.parametrize("copies", [1, 9])
@pytest.mark.parametrize("bad", [(), (2,)])
def test_the_dead_letter_of_a_valid_row_is_read_as_that_row_again(bad, copies):
    reader = EventReader("tabular", columns=KINDS, now_ms=lambda: 1_760_000_001_000)
    read, _ = reader.read(frame(*bad), FRAME)
    read.columns["windows.customer"] = np.ones((len(read), 2))
    read = pickle.loads(pickle.dumps(concat_rows([read] * copies)))  # as they travel
    for row in range(2):
        letter = read.dead_letter(row, kind="late", reason="too old")
        again, letters = reader.read(letter.value, FRAME)
        assert letters == []
        assert again.event_id.to_pylist() == [f"e{row}"]
        assert again.case_id.to_pylist() == [f"k{row}"]
        assert again.event_time_ms.tolist() == [1_760_000_000_000 + row]
        assert again.created_ms.tolist() == [5 + row]
        assert {n: v.tolist() for n, v in again.columns.items()} == {
            "amount": [1.5 * row],
            "foreign": [float(row)],
            "note": [["", "b"][row]],
            "customer": [str(10 + row)],
            "windows.open": [1.0 + row],
        }


@pytest.mark.parametrize(
    ("modality", "column", "content"),
    [("text", "text", "hello"), ("image", "payload", b"\x00\xff")],
)
def test_the_dead_letter_of_a_medium_is_read_again(modality, column, content):
    reader = EventReader(modality, now_ms=lambda: 1_760_000_001_000)
    table = {
        "event_id": ["e"],
        "case_id": ["k"],
        "event_time": pa.array([1_760_000_000_000], TIME),
        column: [content],
    }
    read, _ = reader.read(encode_frame(pa.RecordBatch.from_pydict(table)), FRAME)
    letter = read.dead_letter(0, kind="unreadable", reason="r")
    again, letters = reader.read(letter.value, FRAME)
    assert letters == []
    assert again.columns[column].tolist() == [content]


def test_one_part_is_not_copied(mixed):
    assert concat_rows([mixed]) is mixed


@pytest.mark.parametrize("copies", [1, 300])
def test_rows_travel_as_they_are(mixed, copies):
    sent = concat_rows([mixed] * copies).take(range(1, 4 * copies - 1))
    came = pickle.loads(pickle.dumps(sent))
    assert came.modality == "tabular"
    assert (came.event_id, came.case_id) == (sent.event_id, sent.case_id)
    assert came.event_time_ms.tolist() == sent.event_time_ms.tolist()
    assert came.created_ms.tolist() == sent.created_ms.tolist()
    assert list(came.columns) == list(sent.columns)
    for name, cells in sent.columns.items():
        assert came.columns[name].tolist() == cells.tolist()
        if isinstance(cells, np.ndarray):
            assert came.columns[name].dtype == cells.dtype
    assert came.bools == ("foreign",)
    for row in (0, len(sent) - 1):
        told = [x.dead_letter(row, kind="late", reason="r") for x in (sent, came)]
        assert told[0] == told[1]


def test_rows_that_travelled_may_be_changed(mixed):
    came = pickle.loads(pickle.dumps(mixed))
    came.columns["amount"][:] = 7.0
    assert came.columns["amount"].tolist() == [7.0] * 4
    assert mixed.columns["amount"].tolist() == [0.0, 0.0, 1.5, 3.0]


def test_keys_are_those_of_the_cases_or_of_a_column_that_has_keys(mixed):
    assert mixed.keys("case_id") is mixed.columns[CASE_KEY]
    mixed.columns["customer"] = np.arange(4, dtype=np.uint64)
    assert mixed.keys("customer") is mixed.columns["customer"]


def test_there_are_no_keys_of_texts_and_numbers(mixed):
    with pytest.raises(TypeError, match="column 'customer': it holds string"):
        mixed.keys("customer")
    with pytest.raises(TypeError, match="column 'amount': it holds float64"):
        mixed.keys("amount")
