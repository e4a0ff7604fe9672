import numpy as np
import pyarrow as pa
import pytest

from connectors.cells import EventLimits
from connectors.frame_rows import clean_rows, objects_of_frame, rows_of_frame
from connectors.records import Place
from connectors.schemas import TIME

AT_MS = 1_760_000_000_000
PLACE = Place(topic="run.embeddings", partition=1, offset=9)


def batch(drop=(), **changes):
    """Two rows, good but for whole columns given as `changes`."""
    columns = {
        "event_id": ["e0", "e1"],
        "case_id": ["k0", "k1"],
        "event_time": pa.array([AT_MS, AT_MS + 1], pa.int64()).cast(TIME),
        "created_ms": pa.array([5, 6], pa.int64()),
        "amount": [12.5, 13.5],
        "foreign": [True, False],
    }
    kept = {k: v for k, v in {**columns, **changes}.items() if k not in drop}
    return pa.RecordBatch.from_pydict(kept)


def clean(given):
    return clean_rows(
        given,
        PLACE,
        modality="tabular",
        columns={"amount": "number", "foreign": "bool"},
        limits=EventLimits(max_id_chars=8),
        latest_ms=AT_MS + 1,
    )


def test_a_frame_of_ours_becomes_rows_that_know_their_places():
    vectors = np.eye(2)
    rows = rows_of_frame(
        batch(), PLACE, modality="embedding", columns={"vector": vectors}
    )
    assert rows.modality == "embedding"
    assert rows.event_id.to_pylist() == ["e0", "e1"]
    assert rows.case_id.to_pylist() == ["k0", "k1"]
    assert rows.event_time_ms.tolist() == [AT_MS, AT_MS + 1]
    assert rows.created_ms.tolist() == [5, 6]
    assert rows.columns == {"vector": vectors}
    letter = rows.dead_letter(1, kind="mismatch", reason="r")
    assert (letter.place, letter.row, letter.event_id) == (PLACE, 1, "e1")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (batch(drop=["case_id"]), KeyError),
        (batch(created_ms=[None, 1]), pa.ArrowException),
        (batch(event_time=[[1], [2]]), pa.ArrowException),
        (batch(case_id=["k0", None]), ValueError),
        (batch(event_id=[1, 2]), ValueError),
    ],
)
def test_a_frame_that_is_not_ours_raises(given, error):
    with pytest.raises(error):
        rows_of_frame(given, PLACE, modality="embedding", columns={})


def test_valid_events_are_read_at_once():
    rows = clean(batch())
    assert rows.event_time_ms.tolist() == [AT_MS, AT_MS + 1]
    assert rows.columns["amount"].tolist() == [12.5, 13.5]
    assert rows.columns["foreign"].tolist() == [1.0, 0.0]
    assert rows.bools == ("foreign",)
    assert clean(batch(drop=["created_ms"])).created_ms.tolist() == [0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": ["e0", None]},
        {"event_id": ["e0", "  "]},
        {"event_id": ["e0", ""]},
        {"event_id": ["\u3000", "e1"]},
        {"event_id": ["e0", "x" * 9]},
        {"case_id": [1, 2]},
        {"event_time": [AT_MS, AT_MS]},
        {"event_time": pa.array([AT_MS, AT_MS + 2], pa.int64()).cast(TIME)},
        {"event_time": pa.array([AT_MS, 0], pa.int64()).cast(TIME)},
        {"created_ms": pa.array([5, -1], pa.int64())},
        {"created_ms": [5.0, 6.0]},
        {"amount": [1.0, float("nan")]},
        {"foreign": [1, 0]},
        {"schema_version": [1, 1]},
    ],
)
def test_anything_else_is_left_to_the_reading_row_by_row(changes):
    assert clean(batch(**changes)) is None


@pytest.mark.parametrize("ids", [[" e0", "e1"], ["é", "\u3000x"], ["éééééééé", "e"]])
def test_an_id_may_begin_with_a_space_and_hold_any_character(ids):
    assert clean(batch(event_id=ids)).event_id.to_pylist() == ids


def test_a_slice_of_a_frame_is_read_as_its_own_rows():
    rows = clean(batch(event_id=["  ", "e1"]).slice(1))
    assert rows.event_id.to_pylist() == ["e1"]
    assert rows.columns["amount"].tolist() == [13.5]


def test_rows_one_by_one_are_what_json_would_say():
    given = batch(schema_version=[1, None], note=["x", "y"])
    assert objects_of_frame(given, {"amount": "number"}) == [
        {
            "event_id": "e0",
            "case_id": "k0",
            "created_ms": 5,
            "amount": 12.5,
            "schema_version": 1,
            "event_time_ms": AT_MS,
        },
        {
            "event_id": "e1",
            "case_id": "k1",
            "created_ms": 6,
            "amount": 13.5,
            "schema_version": None,
            "event_time_ms": AT_MS + 1,
        },
    ]


def test_a_cell_that_no_field_may_have_is_its_type():
    far = pa.array([2**62] * 2, pa.timestamp("s"))
    objects = objects_of_frame(batch(amount=far), {"amount": "number"})
    assert [found["amount"] for found in objects] == [far.type] * 2
