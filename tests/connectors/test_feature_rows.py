import numpy as np
import pytest

from connectors.feature_rows import VALUES, FeatureReader
from connectors.records import Place
from connectors.schemas import LABELS, features_schema, frame_of

PLACE = Place(topic="run.features", partition=1, offset=9)


def frame(x):
    rows = len(x)
    columns = {
        "event_id": [f"e{i}" for i in range(rows)],
        "case_id": [f"k{i}" for i in range(rows)],
        "event_time": np.arange(rows) + 1000,
        "created_ms": np.arange(rows) + 7,
        "source_offset": np.arange(rows),
        "source_row": np.arange(rows),
        "model_name": ["tiny"] * rows,
        "model_version": [1] * rows,
        "values": x,
    }
    return frame_of(features_schema(("amount", "age")), columns)


def test_features_come_back_as_rows_bit_for_bit():
    x = np.array([[1.5, np.nan], [-0.0, 1e308]])
    rows, letters = FeatureReader().read(frame(x), PLACE)
    assert letters == []
    assert rows.modality == "tabular"
    assert rows.event_id.to_pylist() == ["e0", "e1"]
    assert rows.case_id.to_pylist() == ["k0", "k1"]
    assert rows.event_time_ms.tolist() == [1000, 1001]
    assert rows.created_ms.tolist() == [7, 8]
    assert rows.columns[VALUES].tobytes() == x.tobytes()
    letter = rows.dead_letter(1, kind="unreadable", reason="r")
    assert (letter.place, letter.row, letter.event_id) == (PLACE, 1, "e1")


@pytest.mark.parametrize(
    "bad",
    [
        None,
        b"",
        b"noise",
        b'{"event_id": "e"}',
        frame(np.zeros((1, 2)))[:-9],
        frame_of(LABELS, {"case_id": ["a"], "label_time": [1], "label": [1]}),
    ],
    ids=["none", "empty", "noise", "json", "cut", "another"],
)
def test_what_is_no_features_frame_is_one_dead_letter(bad):
    rows, (letter,) = FeatureReader().read(bad, PLACE)
    assert rows is None
    assert (letter.place, letter.row) == (PLACE, -1)
    assert (letter.kind, letter.modality) == ("unreadable", "tabular")
    assert letter.reason.startswith("not a features frame: ")
    assert letter.value == (bad or b"")
