import json

import numpy as np
import pyarrow as pa
import pytest

from automl.arrival import in_arrival_order
from automl.task import TaskSpec
from connectors.codec import encode_frame
from connectors.kafka import Value
from connectors.labels import Label, labels_frame
from connectors.records import DeadLetter, Place
from connectors.schemas import TIME, dead_letters_frame, features_schema, frame_of
from pipelines.stream_span import StreamSpan

START_MS, HOUR_MS = 1_760_000_000_000, 3_600_000
FRAME, FRAMES = 50, 20
ROWS = FRAME * FRAMES


@pytest.fixture(scope="module")
def spec():
    features = [
        {"name": "n", "entity": "card", "agg": "count", "window": "1h"},
        {"name": "risk", "entity": "card", "agg": "sum", "column": "label"}
        | {"window": "1h"},
        "amount",
    ]
    task = {"name": "t", "entities": {"card": "card"}, "features": features}
    return TaskSpec.from_json(task).resolve({"card": "string", "amount": "number"})


@pytest.fixture(scope="module")
def events():
    """Ten hours of events in the order in which they arrived, some out of order."""
    draw = np.random.default_rng(1)
    times = START_MS + np.sort(draw.choice(10 * HOUR_MS, ROWS, replace=False))
    times[330:340] = times[330:340][::-1]
    return pa.table(
        {
            "event_id": [f"e{i}" for i in range(ROWS)],
            "case_id": [f"k{i}" for i in range(ROWS)],
            "event_time": pa.array(times).cast(TIME),
            "card": [f"c{x}" for x in draw.integers(0, 5, ROWS)],
            "amount": draw.uniform(1, 9, ROWS),
        }
    )


def value(topic, content, offset=0):
    place = Place(topic=topic, partition=0, offset=offset)
    return Value(place=place, key=None, value=content, timestamp_ms=0)


class Stream:
    """A stream that serves events as it read them, and tells a span of it."""

    def __init__(self, spec, events, *, most_rows=None, skip=()):
        self.span = StreamSpan(most_rows=most_rows)
        self._spec = spec
        self._events = events
        # the label of every 9th case came after the 7th frame, at its event's time
        self._labelled = events.take(list(range(0, 7 * FRAME, 9)))
        kept = np.array([i for i in range(events.num_rows) if i not in skip])
        known = np.searchsorted(kept, 7 * FRAME)
        rows = events.take(kept)
        labels = pa.table(
            {
                "case_id": self._labelled.column("case_id"),
                "label_time": self._labelled.column("event_time"),
                "label": [1.0] * self._labelled.num_rows,
                "known_from": [int(known)] * self._labelled.num_rows,
            }
        )
        self.values = np.full((events.num_rows, 3), np.nan)
        self.values[kept] = in_arrival_order(spec, rows, labels)
        self._kept = set(kept.tolist())

    def tell(self, frames=range(FRAMES), *, served=True, first_offset=0):
        for number in frames:
            if number == 7:
                times = self._labelled.column("event_time").cast("int64").to_pylist()
                cases = self._labelled.column("case_id").to_pylist()
                told = [
                    Label(case_id=case, label_time_ms=at, label=1)
                    for case, at in zip(cases, times, strict=True)
                ]
                self.span.take("labels", value("labels", labels_frame(told)))
            part = self._events.slice(number * FRAME, FRAME).combine_chunks()
            offset = first_offset + number
            content = encode_frame(part.to_batches()[0])
            self.span.take("events.tabular", value("events.tabular", content, offset))
            if served:
                self.serve(number, first_offset)

    def serve(self, number, first_offset=0):
        start = number * FRAME
        rows = [i for i in range(FRAME) if start + i in self._kept]
        part = self._events.take([start + row for row in rows])
        columns = {name: part.column(name).to_pylist() for name in part.column_names}
        columns |= {
            "event_time": part.column("event_time").cast("int64").to_numpy(),
            "created_ms": [0] * len(rows),
            "model_name": ["m"] * len(rows),
            "model_version": [1] * len(rows),
            "source_offset": [first_offset + number] * len(rows),
            "source_row": rows,
            "values": self.values[start : start + FRAME][rows],
        }
        schema = features_schema(tuple(self._spec.feature_names))
        read = json.dumps({"0": int(number >= 7)})
        schema = schema.with_metadata({**schema.metadata, "labels_read": read})
        self.span.take("features", value("features", frame_of(schema, columns)))


def causes(found):
    return {name: count for name, count in found.causes.items() if count}


def test_all_that_the_topics_hold_is_explained(spec, events):
    stream = Stream(spec, events)
    stream.tell()
    found = stream.span.skew(spec)
    assert found.rows == ROWS
    assert causes(found).keys() == {"late_event", "label_late"}
    assert set(found.by_feature) == {"n", "risk"}
    assert found.passes(1.0)


def test_a_bug_is_found_in_the_topics(spec, events):
    stream = Stream(spec, events)
    stream.values[700, 0] += 1
    stream.tell()
    found = stream.span.skew(spec)
    assert found.bugs == 1
    assert not found.passes(1.0)


def test_only_what_has_its_whole_horizon_in_the_span_is_compared(spec, events):
    stream = Stream(spec, events, most_rows=400)
    stream.tell()
    found = stream.span.skew(spec)
    # 400 rows are four hours; the windows of the first need rows that are gone
    assert 250 < found.rows < 350
    assert found.differing_rows == 0


def test_a_topic_that_lost_its_beginning_is_compared_from_where_it_can_be(spec, events):
    stream = Stream(spec, events, most_rows=10 * ROWS)
    stream.tell(range(10, FRAMES), first_offset=5)
    found = stream.span.skew(spec)
    assert 300 < found.rows < 450
    assert found.differing_rows == 0


def test_events_on_their_way_are_not_missing(spec, events):
    stream = Stream(spec, events, most_rows=10 * ROWS)
    stream.tell(range(15))
    stream.tell(range(15, 17), served=False)
    stream.serve(16)  # another node was faster
    found = stream.span.skew(spec)
    assert found.rows == 15 * FRAME
    assert "missing_source" not in causes(found)


def test_an_event_that_was_read_but_not_served_is_missing(spec, events):
    stream = Stream(spec, events, skip=[600])
    stream.tell()
    found = stream.span.skew(spec)
    lost = found.differences.filter(pa.compute.is_null(found.differences["feature"]))
    assert lost.column("event_id").to_pylist() == ["e600"]
    assert found.bugs == 0


def test_an_event_set_aside_as_late_explains_what_did_not_see_it(spec, events):
    stream = Stream(spec, events, skip=[600])
    letter = DeadLetter(
        place=Place(topic="x.events.tabular", partition=0, offset=12),
        row=0,
        kind="late",
        reason="",
        event_id="e600",
        modality="tabular",
        value=b"",
    )
    stream.span.take(
        "dead-letters", value("dead-letters", dead_letters_frame([letter]))
    )
    stream.tell()
    assert "missing_source" not in causes(stream.span.skew(spec))
    assert stream.span.skew(spec).rows == ROWS - 1


def test_a_span_without_events_or_features_says_nothing(spec, events):
    assert StreamSpan().skew(spec) is None
    stream = Stream(spec, events)
    stream.span.take("features", value("features", b"noise"))
    stream.span.take("events.tabular", value("events.tabular", b"{"))
    stream.tell(served=False)
    assert stream.span.skew(spec) is None
