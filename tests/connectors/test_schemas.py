import numpy as np
import pyarrow as pa
import pytest

from connectors.codec import decode_frame
from connectors.records import MODALITIES, DeadLetter, Place
from connectors.schemas import (
    DEAD_LETTERS,
    DECISIONS,
    LABELS,
    TIME,
    dead_letters_frame,
    feature_names,
    features_schema,
    frame_of,
    rows_of_list,
    vectors_schema,
)


def test_a_decision_says_what_outside_checks_look_for():
    names = set(DECISIONS.names)
    assert names >= {"decision_id", "case_id", "revision", "score", "alert"}
    assert names >= {"threshold", "model_name", "model_version", "modalities"}
    assert names >= {"reasons", "event_time", "decided_at"}
    assert names >= {f"gate_{modality}" for modality in MODALITIES}


def test_times_are_milliseconds_utc():
    assert pa.timestamp("ms", "UTC") == TIME
    assert DECISIONS.field("event_time").type == TIME
    assert LABELS.field("label_time").type == TIME


def test_vectors_keep_their_width_and_values():
    vectors = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
    frame = frame_of(
        vectors_schema(3),
        {
            "event_id": ["a", "b"],
            "case_id": ["c", "c"],
            "modality": ["text", "image"],
            "event_time": np.array([1, 1_760_000_000_123]),
            "created_ms": [0, 5],
            "fingerprint": ["f", "g"],
            "vector": vectors,
        },
    )
    batch = decode_frame(frame)
    assert batch.schema == vectors_schema(3)
    assert batch.column("vector").to_pylist() == vectors.tolist()
    assert batch.column("event_time").cast(pa.int64()).to_pylist()[1] % 1000 == 123


def test_features_are_one_list_and_their_names_travel_with_the_frame():
    names = ("hour<=6", "amount", "case_id")  # a feature may be named like a key
    x = np.array([[1.5, np.nan, -0.0], [1e308, 5e-324, 3.0]])
    frame = frame_of(
        features_schema(names),
        {
            "event_id": ["a", "b"],
            "case_id": ["c", "d"],
            "event_time": np.array([1, 2]),
            "created_ms": [0, 5],
            "source_offset": [2**40, 3],
            "source_row": [-1, 7],
            "model_name": ["m", "m"],
            "model_version": [1, 2],
            "values": x,
        },
    )
    batch = decode_frame(frame)
    assert feature_names(batch.schema) == list(names)
    assert batch.schema.names.count("case_id") == 1
    assert batch.column("case_id").to_pylist() == ["c", "d"]
    assert batch.column("source_offset").to_pylist() == [2**40, 3]
    assert batch.column("source_row").to_pylist() == [-1, 7]
    found = rows_of_list(batch.column("values"))
    assert found.shape == (2, 3)
    assert found.tobytes() == x.tobytes()


def test_rows_of_a_slice_of_a_list_are_those_of_the_slice():
    values = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2, 3, 4, 5, 6]), 2)
    assert rows_of_list(values[1:]).tolist() == [[3, 4], [5, 6]]
    assert rows_of_list(values[3:]).shape == (0, 2)


def test_a_missing_column_is_named():
    with pytest.raises(KeyError, match="label_time"):
        frame_of(LABELS, {"case_id": ["a"], "label": [1]})


def test_dead_letters_come_back_whole():
    letter = DeadLetter(
        place=Place(topic="events.text", partition=3, offset=2**40),
        row=-1,
        kind="limits",
        reason="too long",
        event_id="",
        modality="text",
        value=bytes(range(256)),
    )
    batch = decode_frame(dead_letters_frame([letter, letter]))
    assert batch.schema == DEAD_LETTERS
    assert batch.num_rows == 2
    assert batch.to_pylist()[0] == {
        "topic": "events.text",
        "partition": 3,
        "offset": 2**40,
        "row": -1,
        "kind": "limits",
        "reason": "too long",
        "event_id": "",
        "modality": "text",
        "value": bytes(range(256)),
    }
