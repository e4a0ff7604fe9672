import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.codec import encode_frame
from connectors.kafka import Value
from connectors.records import Place
from connectors.schemas import TIME
from pipelines import feature_table as module
from pipelines.feature_table import (
    MissingFeaturesError,
    read_served,
    served_once,
    write_features,
)


def frame(*rows):
    """A served frame of (event_id, event_time, x, y), with columns beside these."""
    ids, times, *values = zip(*rows, strict=True)
    flat = pa.array(np.column_stack(values).reshape(-1))
    columns = {
        "event_id": pa.array(ids),
        "case_id": pa.array([f"case-{one}" for one in ids]),
        "event_time": pa.array(times, TIME),
        "source_offset": pa.array([7] * len(ids)),
        "values": pa.FixedSizeListArray.from_arrays(flat, 2),
    }
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    schema = pa.schema(fields, metadata={"features": json.dumps(["x", "y"])})
    return pa.RecordBatch.from_arrays([*columns.values()], schema=schema)


def table(*rows):
    ids, times, x, y = zip(*rows, strict=True)
    return pa.table(
        {
            "event_id": ids,
            "case_id": [f"case-{one}" for one in ids],
            "event_time": pa.array(times, TIME),
            "x": pa.array(x, pa.float64()),
            "y": pa.array(y, pa.float64()),
        }
    )


ROWS = [("a", 1, 0.1, 1.0), ("b", 2, 0.2, 2.0), ("c", 2, np.nan, -0.0)]


def test_each_event_is_kept_once_as_it_was_served_first():
    again = ("b", 2, 0.25, 2.0)
    found = served_once([frame(ROWS[2], ROWS[1]), frame(ROWS[1], again, ROWS[0])])
    assert found.table.column("event_id").to_pylist() == ["c", "b", "a"]
    assert found.table.column("x").to_pylist()[1:] == [0.2, 0.1]
    assert (found.repeated, found.differing) == (2, 1)


def test_a_repeated_nan_does_not_differ_but_a_zero_of_other_sign_does():
    found = served_once([frame(ROWS[2], ROWS[2], ("c", 2, np.nan, 0.0))])
    assert (found.repeated, found.differing) == (2, 1)
    moved = served_once([frame(ROWS[0], ("a", 5, 0.1, 1.0))])
    assert moved.differing == 1


def test_equal_values_are_equal_bytes_whoever_computed_them(tmp_path):
    backfilled = pa.concat_tables([table(ROWS[0]), table(*ROWS[1:])])
    write_features(backfilled.replace_schema_metadata({"by": "x"}), tmp_path / "a")
    served = served_once([frame(ROWS[2]), frame(ROWS[1]), frame(ROWS[0], ROWS[0])])
    write_features(served.table, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = pq.read_table(tmp_path / "a")
    assert found.column("event_id").to_pylist() == ["a", "b", "c"]
    assert found.schema == table(*ROWS).schema
    write_features(table(*ROWS[:2], ("c", 2, np.nan, 0.0)), tmp_path / "c")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_nothing_served_is_no_row():
    assert served_once([]).table.num_rows == 0


@pytest.fixture
def topic(monkeypatch):
    """Frames in the topic, one more at each poll."""
    waiting = []

    class Reading:
        def __init__(self, bootstrap, topics):
            assert topics == ["run.features"]

        def poll(self):
            place = Place(topic="run.features", partition=0, offset=0)
            value = [encode_frame(waiting.pop(0))] if waiting else []
            return [
                Value(place=place, key=None, value=one, timestamp_ms=0) for one in value
            ]

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(module, "Reader", Reading)
    return waiting


def test_it_waits_for_as_many_events_as_were_decided(topic):
    topic += [frame(ROWS[0]), frame(ROWS[0]), frame(ROWS[1])]
    found = read_served("b:1", prefix="run.", events=2)
    assert (found.table.num_rows, found.repeated) == (2, 1)


def test_features_that_never_come_are_counted(topic):
    topic += [frame(ROWS[0])]
    with pytest.raises(MissingFeaturesError, match=r"run\.features: 1 of 2 events"):
        read_served("b:1", prefix="run.", events=2, timeout_s=0.05)
