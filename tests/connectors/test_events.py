import base64
import json

import numpy as np
import pyarrow as pa
import pytest

from automl.task import TaskSpec
from connectors.archive import column_kinds
from connectors.cells import EventLimits
from connectors.codec import decode_frame, encode_frame
from connectors.demo import TABULAR_SCHEMA, DemoWorld
from connectors.demo_task import demo_task
from connectors.events import EventReader
from connectors.poison import POISON
from connectors.records import Place
from connectors.schemas import TIME

NOW_MS = 1_770_000_000_000
AT_MS = 1_760_000_000_123
PLACE = Place(topic="events.tabular", partition=1, offset=41)
TASK = TaskSpec.from_json(demo_task()).resolve(
    column_kinds(TABULAR_SCHEMA.empty_table())
)
EVENT = {
    "event_id": "e1",
    "case_id": "k1",
    "event_time_ms": AT_MS,
    "amount": 12.5,
    "customer": "c1",
    "foreign": False,
}
COLUMNS = {"amount": "number", "customer": "id", "foreign": "bool"}


def reader(modality="tabular", columns=COLUMNS, number_limits=None, **limits):
    return EventReader(
        modality,
        columns=columns,
        limits=EventLimits(**limits),
        number_limits=number_limits,
        now_ms=lambda: NOW_MS,
    )


def as_json(drop=(), **changes):
    event = {k: v for k, v in {**EVENT, **changes}.items() if k not in drop}
    return json.dumps(event).encode()


def frame(count=3, drop=(), **changes):
    """Rows e0, e1, ... that are good but for whole columns given as `changes`."""
    columns = {
        "event_id": [f"e{i}" for i in range(count)],
        "case_id": [f"k{i}" for i in range(count)],
        "event_time": pa.array([AT_MS + i for i in range(count)], pa.int64()).cast(
            TIME
        ),
        "created_ms": pa.array([5] * count, pa.int64()),
        "amount": [12.5 + i for i in range(count)],
        "customer": [f"c{i}" for i in range(count)],
        "foreign": [True] * count,
    }
    columns |= changes
    kept = {k: v for k, v in columns.items() if k not in drop}
    return encode_frame(pa.RecordBatch.from_pydict(kept))


def read(value, **settings):
    return reader(**settings).read(value, PLACE)


def test_a_json_event_becomes_one_row():
    rows, letters = read(as_json(created_ms=7))
    assert letters == []
    assert (rows.event_id.to_pylist(), rows.case_id.to_pylist()) == (["e1"], ["k1"])
    assert rows.event_time_ms.tolist() == [AT_MS]
    assert rows.created_ms.tolist() == [7]
    found = {name: values.tolist() for name, values in rows.columns.items()}
    assert found == {"amount": [12.5], "customer": ["c1"], "foreign": [0.0]}


@pytest.mark.parametrize("changes", [{}, {"created_ms": None}, {"created_ms": 0}])
def test_the_producers_clock_may_be_left_out(changes):
    rows, _ = read(as_json(**changes))
    assert rows.created_ms.tolist() == [0]


def test_integer_ids_and_numbers_and_unknown_fields_are_taken():
    rows, letters = read(as_json(customer=77, amount=3, note="x", schema_version=1))
    assert letters == []
    assert rows.columns["customer"].tolist() == ["77"]
    assert rows.columns["amount"].tolist() == [3.0]
    assert "note" not in rows.columns


@pytest.mark.parametrize(
    ("written", "at_ms"),
    [
        ("2025-10-09T08:53:20.123Z", AT_MS),
        ("2025-10-09T10:53:20.123+02:00", AT_MS),
        ("2025-10-09T08:53:20.123", AT_MS),
        ("2025-10-09", 1_759_968_000_000),
        ("2025-10-09T08:53:20.123999Z", AT_MS),
    ],
)
def test_iso_times_are_read_to_the_millisecond(written, at_ms):
    rows, letters = read(as_json(drop=["event_time_ms"], event_time=written))
    assert letters == []
    assert rows.event_time_ms.tolist() == [at_ms]


def test_every_millisecond_survives_iso():
    draw = np.random.default_rng(0)
    for at_ms in draw.integers(946_684_800_000, NOW_MS, 3000).tolist():
        text = str(np.datetime64(at_ms, "ms")) + "Z"
        rows, _ = read(as_json(drop=["event_time_ms"], event_time=text))
        assert rows.event_time_ms[0] == at_ms


@pytest.mark.parametrize("value", [b"", None])
def test_nothing_is_a_dead_letter(value):
    rows, letters = read(value)
    assert rows is None
    assert letters[0].reason.startswith("empty value")
    assert letters[0].value == b""


def test_a_json_dead_letter_carries_the_original_bytes_place_and_id():
    value = b'  {"event_id": "e9",\t"amount": "much"} '
    rows, (letter,) = read(value)
    assert rows is None
    assert letter.value == value
    assert letter.place == PLACE
    assert (letter.row, letter.event_id, letter.modality) == (-1, "e9", "tabular")
    assert letter.kind == "unreadable"
    assert letter.reason == "case_id: expected non-empty text, got NoneType None"


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"event_id": "x" * 257}, "limits", "257 characters is over the limit"),
        ({"event_id": "   "}, "unreadable", "event_id: expected non-empty text"),
        ({"event_id": 5}, "unreadable", "event_id: expected non-empty text, got int"),
        ({"case_id": "\ud83d"}, "unreadable", "half a surrogate pair"),
        ({"amount": 2e12}, "limits", "over the limit of 1e+12"),
        ({"foreign": 1}, "unreadable", "foreign: expected true or false, got int 1"),
        ({"customer": ""}, "unreadable", "customer: expected 1..256 characters"),
        ({"schema_version": 2}, "unreadable", "unknown schema version 2; known: 1"),
        ({"schema_version": "1"}, "unreadable", "unknown schema version '1'"),
        ({"created_ms": -1}, "unreadable", "created_ms: expected milliseconds"),
        ({"created_ms": 1.5}, "unreadable", "created_ms: expected milliseconds"),
        ({"created_ms": 2**70}, "unreadable", "created_ms: expected milliseconds"),
        ({"event_time_ms": 1.5}, "unreadable", "expected milliseconds, got float"),
        ({"event_time_ms": True}, "unreadable", "expected milliseconds, got bool"),
        ({"event_time_ms": 946_684_799_999}, "limits", "is outside 946684800000.."),
        ({"event_time_ms": NOW_MS + 86_400_001}, "limits", "..1770086400000"),
    ],
)
def test_a_bad_field_is_refused_by_kind_and_reason(changes, kind, reason):
    value = as_json(**changes)
    rows, (letter,) = read(value)
    assert rows is None
    assert letter.kind == kind
    assert reason in letter.reason
    assert letter.value == value


def test_the_edges_of_the_clock_are_allowed():
    for at_ms in (946_684_800_000, NOW_MS + 86_400_000):
        rows, letters = read(as_json(event_time_ms=at_ms))
        assert (len(rows), letters) == (1, [])


def test_a_value_over_the_limit_is_not_even_parsed():
    _, (letter,) = read(b"not json" * 10, max_value_bytes=79)
    assert letter.kind == "limits"
    assert letter.reason == "value of 80 bytes is over the limit of 79"


@pytest.mark.parametrize("amounts", [[5, -0.5, 7], [5, 10.5, 7]])
def test_the_limits_of_a_number_are_those_of_its_task(amounts):
    limits = {"amount": (0.0, 10.0)}
    side = ("under", "0") if amounts[1] < 0 else ("over", "10")
    reason = f"amount: {amounts[1]} is {side[0]} the limit of {side[1]}"
    framed, (letter,) = read(frame(amount=amounts), number_limits=limits)
    assert (letter.row, letter.kind, letter.reason) == (1, "limits", reason)
    values = [as_json(amount=amount) for amount in amounts]
    single, (letter,) = reader(number_limits=limits).read_objects(
        ("events.tabular", 1), [40, 41, 42], values
    )
    assert (letter.place, letter.kind, letter.reason) == (PLACE, "limits", reason)
    for rows in (framed, single):
        assert rows.columns["amount"].tolist() == [5.0, 7.0]


#: Each is read alone to the letter; beside good events it must come out the same.
ODD_EVENTS = [
    as_json(amount=2**70, customer=2**70),
    as_json(customer=77),
    as_json(amount=-0.0, created_ms=None),
    as_json(drop=["event_time_ms"], event_time="2025-10-09T08:53:20.123Z"),
    as_json(note="\ud83d"),
    as_json(note=[[[{"a": None}]]]),
    as_json(customer="caf\u00e9\u0000"),
    as_json(schema_version=True),
    as_json(event_time_ms=2**63),
    as_json(created_ms=2**63),
    as_json(amount=True),
    as_json(case_id="\u3000"),
    as_json(customer="x" * 257),
    as_json(drop=["amount"]),
    as_json(drop=["event_id"]),
    b'{"event_id": "a", ' + as_json()[1:],
    b"[" * 900 + b"]" * 900,
    as_json(note=float("nan")),
    as_json().replace(b"12.5", b"1e400"),
    as_json().replace(b"12.5", b"012"),
    b"\xef\xbb\xbf" + as_json(),
    as_json()[:-1] + b', "note": "\xff"}',
    b"[1]",
    b"",
    None,
]


@pytest.mark.parametrize("odd", ODD_EVENTS)
def test_an_event_comes_out_the_same_alone_and_among_others(odd):
    source = reader()
    # what makes all be read one by one, and each to the letter
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("connectors.events.plain_object", lambda value: None)
        alone, told = source.read(odd, PLACE)
    values = [as_json(event_id="first"), odd, as_json(event_id="last")]
    for objects in (values, [odd]):
        rows, letters = source.read_objects(
            ("events.tabular", 1), [*range(41, 41 + len(objects))], objects
        )
        assert [x.reason for x in letters] == [x.reason for x in told]
        assert [x.value for x in letters] == [x.value for x in told]
        assert (0 if rows is None else len(rows)) + len(letters) == len(objects)
        if alone is None:
            continue
        row = rows.take([objects.index(odd)])
        assert (row.event_id, row.case_id) == (alone.event_id, alone.case_id)
        assert row.event_time_ms.tolist() == alone.event_time_ms.tolist()
        assert row.created_ms.tolist() == alone.created_ms.tolist()
        for name in COLUMNS:
            assert row.columns[name].tolist() == alone.columns[name].tolist()
        kept = row.dead_letter(0, kind="late", reason="r")
        assert (kept.value, kept.row) == (odd, -1)


def test_most_events_are_not_read_one_by_one(monkeypatch):
    source = reader()
    monkeypatch.setattr(source, "_read_one_by_one", None)
    values = [as_json(event_id=f"e{i}", amount=i, customer=i) for i in range(300)]
    rows, letters = source.read_objects(("t", 0), [*range(300)], values)
    assert (len(rows), letters) == (300, [])
    assert rows.columns["customer"][299].as_py() == "299"
    assert rows.origins.place(299).offset == 299


#: Well-formed events whose content only an encoder can refuse.
CONTENT = ("image_", "jpeg", "png", "audio_", "wav", "text_of_100k")
LIMITS = {"value_of_20_mb", "year_1970", "year_2999", "time_negative"}
REFUSED = [kind for kind in POISON if not kind.startswith(CONTENT)]


@pytest.mark.parametrize("kind", REFUSED)
def test_poison_is_refused_before_decoding(kind):
    topic, value = POISON[kind](np.random.default_rng(3))
    modality = topic.removeprefix("events.")
    place = Place(topic=topic, partition=0, offset=0)
    rows, (letter,) = reader(modality, TASK.needed_columns).read(value, place)
    assert rows is None
    assert letter.kind == ("limits" if kind in LIMITS else "unreadable")
    assert len(letter.reason) > 10
    assert letter.modality == modality
    assert letter.place == place
    if letter.row == -1:
        assert letter.value == value


def test_there_is_poison_enough_to_refuse():
    assert len(REFUSED) >= 40


def test_a_clean_frame_reads_like_the_same_rows_one_by_one():
    whole, letters = read(frame())
    assert letters == []
    for i in range(3):
        single, _ = read(
            as_json(
                event_id=f"e{i}",
                case_id=f"k{i}",
                event_time_ms=AT_MS + i,
                created_ms=5,
                amount=12.5 + i,
                customer=f"c{i}",
                foreign=True,
            )
        )
        row = whole.take([i])
        assert (row.event_id, row.case_id) == (single.event_id, single.case_id)
        assert row.event_time_ms.tolist() == single.event_time_ms.tolist()
        assert row.created_ms.tolist() == single.created_ms.tolist()
        for name in COLUMNS:
            assert row.columns[name].tolist() == single.columns[name].tolist()
            assert type(row.columns[name]) is type(single.columns[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"drop": ["created_ms"]},
        {"created_ms": pa.array([None, 5, None], pa.int64())},
        {"customer": pa.array([7, 8, 9], pa.int16())},
        {"customer": pa.array(["a", "b", "a"]).dictionary_encode()},
        {"event_id": pa.array(["a", "b", "c"], pa.large_string())},
        {"event_time": pa.array([AT_MS] * 3, pa.int64())},
        {"event_time": pa.array([AT_MS * 1000] * 3, pa.timestamp("us"))},
        {"amount": pa.array([1, 2, 3], pa.uint8())},
        {"amount": pa.array([1, 2, 3], pa.float32())},
        {"schema_version": pa.array([1, 1, 1])},
        {"note": pa.array([2**62] * 3, pa.timestamp("s"))},
    ],
)
def test_frames_may_hold_equal_things_in_other_types(changes):
    rows, letters = read(frame(**changes))
    assert letters == []
    assert len(rows) == 3


BAD_COLUMNS = [
    ({"amount": [12.5, float("nan"), 1.0]}, "amount: float nan is not a finite"),
    ({"amount": [1.0, None, 1.0]}, "amount: expected a number, got NoneType"),
    ({"amount": [1.0, 1e13, 1.0]}, "over the limit of 1e+12"),
    ({"event_id": ["a", None, "c"]}, "event_id: expected non-empty text"),
    ({"case_id": ["a", "  ", "c"]}, "case_id: expected non-empty text"),
    ({"customer": ["a", "", "c"]}, "customer: expected 1..256 characters"),
    ({"foreign": [True, None, True]}, "foreign: expected true or false"),
    ({"schema_version": [1, 9, 1]}, "unknown schema version 9"),
    ({"created_ms": [1, -5, 1]}, "created_ms: expected milliseconds, got int -5"),
    (
        {"event_time": pa.array([AT_MS, 1000, AT_MS], pa.int64()).cast(TIME)},
        "event time 1000 ms is outside",
    ),
    (
        {"event_time": pa.array([AT_MS, 2**62, AT_MS], pa.int64()).cast(TIME)},
        "is outside",
    ),
    (
        {"event_time": pa.array([AT_MS, None, AT_MS], pa.int64()).cast(TIME)},
        "expected milliseconds, got NoneType",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_COLUMNS)
def test_one_bad_row_of_a_frame_is_set_aside_alone_with_its_content(changes, reason):
    value = frame(**changes)
    rows, (letter,) = read(value)
    assert len(rows) == 2
    assert rows.columns["customer"].tolist()[::2] in (["c0"], ["a"])
    assert reason in letter.reason
    assert letter.row == 1
    original = decode_frame(value).slice(1, 1)
    kept = decode_frame(letter.value)
    assert kept.schema == original.schema
    for name in original.schema.names:
        assert str(kept.column(name)) == str(original.column(name))
    again, (second,) = read(letter.value)
    assert again is None
    assert second.reason == letter.reason


def test_the_good_rows_beside_a_bad_one_keep_their_places():
    rows, _ = read(frame(amount=[1.0, None, 3.0]))
    assert [rows.dead_letter(i, kind="late", reason="").row for i in (0, 1)] == [0, 2]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"drop": ["amount"]}, "frame has no column 'amount'; it has"),
        ({"drop": ["event_time"]}, "frame has no column 'event_time'"),
        ({"count": 0}, "frame has no rows"),
    ],
)
def test_a_frame_that_cannot_be_read_at_all_is_one_dead_letter(changes, reason):
    value = frame(**changes)
    rows, (letter,) = read(value)
    assert rows is None
    assert reason in letter.reason
    assert (letter.row, letter.value) == (-1, value)


FAR = 2**62
ODD_COLUMNS = [
    {"amount": pa.array([FAR], pa.timestamp("s"))},
    {"amount": pa.array([[FAR]], pa.list_(pa.timestamp("s")))},
    {"amount": pa.array([FAR], pa.duration("s"))},
    {"customer": pa.array([1], pa.timestamp("ms", "No/Where"))},
    {"customer": pa.array([2**30], pa.date32())},
    {"foreign": pa.array([{"a": 1}])},
    {"event_time": pa.array([2**30], pa.date32())},
    {"created_ms": pa.array([FAR], pa.timestamp("s"))},
]


@pytest.mark.parametrize("changes", ODD_COLUMNS)
def test_columns_of_odd_types_are_dead_letters_not_errors(changes):
    rows, (letter,) = read(frame(count=1, **changes))
    assert rows is None
    assert letter.row == 0
    assert "expected" in letter.reason


def test_damaged_frames_never_raise():
    value, draw = bytearray(frame()), np.random.default_rng(1)
    for _ in range(1500):
        damaged = bytearray(value)
        for at in draw.integers(0, len(value), draw.integers(1, 5)):
            damaged[at] = draw.integers(256)
        rows, letters = read(bytes(damaged))
        assert rows is not None or letters


def test_media_are_read_as_bytes_and_texts_as_they_are():
    keys = {"event_id": "e", "case_id": "k", "event_time_ms": AT_MS}
    payload = base64.b64encode(b"\x89PNG").decode()
    value = json.dumps({**keys, "payload": payload}).encode()
    rows, _ = read(value, modality="image")
    assert rows.columns["payload"].tolist() == [b"\x89PNG"]
    value = json.dumps({**keys, "text": "  spaces kept "}).encode()
    rows, _ = read(value, modality="text")
    assert rows.columns["text"].tolist() == ["  spaces kept "]


def test_every_demo_event_is_accepted():
    for case in list(DemoWorld(seed=3).live(6, AT_MS)):
        for event in case.events:
            value = json.dumps(event.to_json(created_ms=AT_MS)).encode()
            source = reader(event.modality, TASK.needed_columns)
            rows, letters = source.read(value, PLACE)
            assert letters == []
            assert rows.event_id.to_pylist() == [event.event_id]
