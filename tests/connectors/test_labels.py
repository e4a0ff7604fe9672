import json

import pyarrow as pa
import pytest

from connectors.codec import encode_frame
from connectors.labels import Label, label_columns, labels_frame, read_labels
from connectors.records import DeadLetter, Place
from connectors.schemas import LABELS, TIME

AT = Place(topic="labels", partition=1, offset=2)


def label(case_id="k", label_time_ms=5, label=1):
    return Label(case_id=case_id, label_time_ms=label_time_ms, label=label)


def as_json(**changes):
    good = {"case_id": "k", "label_time_ms": 5, "label": 1}
    found = {n: v for n, v in {**good, **changes}.items() if v is not ...}
    return json.dumps(found).encode()


def test_labels_come_back_from_their_frame():
    some = [label("a", 1_760_000_000_123, 0), label("b", 7, 1)]
    assert read_labels(labels_frame(some), AT) == (some, [])
    assert read_labels(labels_frame([]), AT) == ([], [])


def test_one_json_object_is_one_label():
    assert read_labels(as_json(note="kept out"), AT) == ([label()], [])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (as_json(case_id=...), "case_id: expected non-empty text, got NoneType None"),
        (as_json(case_id=""), "case_id: expected non-empty text, got str ''"),
        (as_json(case_id=3), "case_id: expected non-empty text, got int 3"),
        (as_json(label_time_ms="x"), "label_time_ms: expected milliseconds, got str"),
        (as_json(label_time_ms=1.5), "label_time_ms: expected milliseconds"),
        (as_json(label=2), "label: expected 0 or 1, got int 2"),
        (as_json(label=-1), "label: expected 0 or 1, got int -1"),
        (as_json(label=True), "label: expected 0 or 1, got bool True"),
        (as_json(label=None), "label: expected 0 or 1, got NoneType None"),
        (b"[1]", "expected one JSON object, got list [1]"),
        (b"null", "expected one JSON object, got NoneType None"),
        (b"", "not a label: "),
        (b"{", "not a label: "),
        (b"caf\xe9", "not a label: "),
        (b"[" * 100_000, "not a label: "),
        (b"SLF\x01noise", "not a label: "),
        (b"SLF\x63", "not a label: unknown frame version 99"),
    ],
)
def test_what_is_no_label_is_a_dead_letter(value, reason):
    labels, letters = read_labels(value, AT)
    assert labels == []
    assert len(letters) == 1
    assert letters[0].reason.startswith(reason)
    row = -1 if reason.startswith("not a label") else 0
    told = (letters[0].place, letters[0].row, letters[0].kind, letters[0].value)
    assert told == (AT, row, "unreadable", value)


def test_a_tombstone_is_a_dead_letter_without_bytes():
    labels, letters = read_labels(None, AT)
    assert labels == []
    assert [letter.value for letter in letters] == [b""]


def test_bad_rows_of_a_frame_leave_the_good_ones():
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array(["a", None, "c", "d"]),
            pa.array([1, 2, None, 4], TIME),
            pa.array([1, 0, 1, 7], pa.int8()),
        ],
        schema=LABELS,
    )
    value = encode_frame(batch)
    labels, letters = read_labels(value, AT)
    assert labels == [label("a", 1, 1)]
    assert [(x.row, x.reason.split(":")[0]) for x in letters] == [
        (1, "case_id"),
        (2, "label_time_ms"),
        (3, "label"),
    ]
    assert isinstance(letters[0], DeadLetter)
    assert {x.value for x in letters} == {value}


def test_a_frame_without_a_column_names_it():
    batch = pa.RecordBatch.from_pydict({"case_id": ["a"], "label": [1]})
    labels, letters = read_labels(encode_frame(batch), AT)
    assert labels == []
    assert letters[0].reason == "not a label: frame has no column 'label_time'"


def frame_with(**changes):
    columns = {"case_id": ["a"], "label_time": [1], "label": [1], **changes}
    return encode_frame(pa.RecordBatch.from_pydict(columns))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("label_time", ["x"]),
        ("label_time", [1.5]),
        ("label_time", [[1]]),
        ("label_time", [True]),
        ("case_id", [3]),
        ("label", ["1"]),
        ("label", [[1]]),
    ],
)
def test_a_frame_with_a_column_of_another_type_stops_nothing(name, column):
    labels, letters = read_labels(frame_with(**{name: column}), AT)
    assert (labels, len(letters)) == ([], 1)
    assert letters[0].reason.startswith(f"not a label: column '{name}' is ")


def test_a_time_beyond_int64_stops_nothing():
    value = frame_with(label_time=pa.array([2**64 - 1], pa.uint64()))
    labels, letters = read_labels(value, AT)
    assert (labels, len(letters)) == ([], 1)


@pytest.mark.parametrize(
    ("unit", "count"), [("s", 7), ("ms", 7000), ("us", 7_000_999), ("ns", 7 * 10**9)]
)
def test_times_of_any_unit_are_milliseconds(unit, count):
    value = frame_with(label_time=pa.array([count], pa.timestamp(unit, "UTC")))
    assert read_labels(value, AT) == ([label("a", 7000)], [])


def test_many_values_become_columns_in_their_order():
    values = [
        labels_frame([label("b", 9, 0), label("a", 7, 1)]),
        as_json(case_id="c"),
        b"junk",
        labels_frame([label("d", 8, 2), label("e", 8, 0)]),
    ]
    cases, times, labels, bad = label_columns(values)
    assert cases.to_pylist() == ["b", "a", "c", "e"]
    assert (times.tolist(), times.dtype) == ([9, 7, 5, 8], "int64")
    assert (labels.tolist(), labels.dtype) == ([0.0, 1.0, 1.0, 0.0], "float64")
    assert bad == 2


def test_no_values_are_no_labels():
    cases, times, labels, bad = label_columns([])
    assert (len(cases), len(times), len(labels), bad) == (0, 0, 0, 0)
