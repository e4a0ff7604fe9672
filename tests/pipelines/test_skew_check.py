import json

import numpy as np
import pyarrow as pa
import pytest

from connectors.codec import decode_frame
from connectors.kafka import Value
from connectors.labels import Label, labels_frame
from connectors.records import DeadLetter, Place
from connectors.schemas import dead_letters_frame, features_schema, frame_of
from pipelines.skew_check import (
    labels_table,
    read_served,
    served_table,
    set_aside,
    with_known_from,
    write_served,
)

FEATURES = ("amount", "n")


def frame(offset, rows, *, labels_read=None, features=FEATURES):
    """A `features` frame of some rows of one events frame."""
    count = len(rows)
    columns = {
        "event_id": [f"e{offset}.{row}" for row in rows],
        "case_id": [f"k{offset}.{row}" for row in rows],
        "event_time": 1000 * offset + np.array(rows),
        "created_ms": [0] * count,
        "model_name": ["m"] * count,
        "model_version": [1] * count,
        "source_offset": [offset] * count,
        "source_row": rows,
        "values": np.arange(count * len(features), dtype=float).reshape(count, -1),
    }
    schema = features_schema(tuple(features))
    if labels_read is not None:
        told = {"labels_read": json.dumps(labels_read)}
        schema = schema.with_metadata({**schema.metadata, **told})
    return decode_frame(frame_of(schema, columns))


def label_value(partition, offset, *cases):
    labels = [Label(case_id=case, label_time_ms=5, label=1) for case in cases]
    place = Place(topic="labels", partition=partition, offset=offset)
    return Value(place=place, key=None, value=labels_frame(labels), timestamp_ms=0)


def test_served_rows_stand_in_order_of_arrival():
    table = served_table([frame(7, [1, 2]), frame(3, [4]), frame(7, [0])])
    assert table.column("event_id").to_pylist() == ["e3.4", "e7.0", "e7.1", "e7.2"]
    assert table.column("n").to_pylist() == [1.0, 1.0, 1.0, 3.0]
    assert table.column_names[-2:] == list(FEATURES)


def test_of_a_row_that_was_served_twice_the_first_stays_first():
    again = frame(3, [4])
    table = served_table([frame(3, [4, 5]), again])
    assert table.column("event_id").to_pylist() == ["e3.4", "e3.4", "e3.5"]


def test_frames_of_other_features_are_refused_or_left_out():
    frames = [frame(1, [0]), frame(2, [0], features=("amount",))]
    with pytest.raises(ValueError, match="frames have different features"):
        served_table(frames)
    assert served_table(frames, features=FEATURES).num_rows == 1
    assert served_table([], features=FEATURES).column_names[-1] == "n"


def test_a_label_is_known_from_the_row_that_had_read_it(tmp_path):
    frames = [
        frame(1, [0, 1], labels_read={"0": 0, "1": 0}),
        frame(2, [0], labels_read={"0": 2, "1": 0}),
        frame(3, [0], labels_read={"0": 2, "1": 1}),
    ]
    values = [label_value(0, 0, "a"), label_value(0, 1, "b", "c")]
    values += [label_value(1, 0, "d"), label_value(1, 1, "e")]
    file = tmp_path / "served.parquet"
    write_served(file, frames, labels_table(values))
    served, labels = read_served(file)
    known = with_known_from(labels, served)
    assert known.column("case_id").to_pylist() == ["a", "b", "c", "d", "e"]
    # rows 0 and 1 knew none, 2 those of partition 0; the last label came too late
    assert known.column("known_from").to_pylist() == [2, 2, 2, 3, 4]


def test_every_row_may_say_how_far_labels_were_read():
    one = frame(1, [0, 1])
    read = pa.array([[0, 0], [1, 0]], pa.list_(pa.int64()))
    schema = one.schema.append(pa.field("labels_read", read.type))
    told = pa.RecordBatch.from_arrays([*one.columns, read], schema=schema)
    labels = labels_table([label_value(0, 0, "a"), label_value(1, 0, "b")])
    known = with_known_from(labels, served_table([told]))
    assert known.column("known_from").to_pylist() == [1, 2]


def test_without_a_word_on_labels_they_are_known_from_their_time():
    labels = labels_table([label_value(0, 0, "a")])
    assert with_known_from(labels, served_table([frame(1, [0])])) is labels
    plain = labels.select(["case_id", "label_time", "label"])
    told = served_table([frame(1, [0], labels_read={"0": 1})])
    assert with_known_from(plain, told) is plain


def test_a_file_of_rows_by_time_can_be_read_too(tmp_path):
    file = tmp_path / "features.parquet"
    pa.parquet.write_table(pa.table({"event_id": ["b", "a"], "n": [1.0, 2.0]}), file)
    served, labels = read_served(file)
    assert served.column("event_id").to_pylist() == ["b", "a"]
    assert labels is None


def letter(topic, event_id, kind, value=b"x"):
    place = Place(topic=topic, partition=0, offset=1)
    return DeadLetter(
        place=place,
        row=-1,
        kind=kind,
        reason="",
        event_id=event_id,
        modality="tabular",
        value=value,
    )


def test_events_set_aside_are_found_in_dead_letters():
    whole = frame_of(
        features_schema(FEATURES),
        {name: frame(9, [0, 1]).column(name).to_pylist() for name in ("event_id",)}
        | {
            "case_id": ["a", "b"],
            "event_time": [1, 2],
            "created_ms": [0, 0],
            "model_name": ["m"] * 2,
            "model_version": [1, 1],
            "source_offset": [9, 9],
            "source_row": [0, 1],
            "values": np.zeros((2, 2)),
        },
    )
    letters = [
        letter("run.events.tabular", "a", "late"),
        letter("run.events.text", "b", "unreadable"),
        letter("run.events.tabular", "", "limits", whole),
        letter("run.events.tabular", "", "unreadable", b"noise"),
    ]
    rows = decode_frame(dead_letters_frame(letters)).to_pylist()
    assert set_aside(rows) == {"a": "late", "e9.0": "limits", "e9.1": "limits"}
