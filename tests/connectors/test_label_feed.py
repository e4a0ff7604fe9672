from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from connectors import label_feed
from connectors.label_feed import LabelFeed, LabelFeedError
from connectors.labels import Label, labels_frame


class Message:
    def __init__(self, partition, offset, value=None, error=None):
        self.place, self.told, self.failed = (partition, offset), value, error

    def error(self):
        return (
            None if self.failed is None else SimpleNamespace(code=lambda: self.failed)
        )

    def value(self):
        return self.told

    def partition(self):
        return self.place[0]

    def offset(self):
        return self.place[1]


class Topic:
    """Two partitions that a consumer reads from; stands in for `Consumer`."""

    def __init__(self):
        self.waiting, self.ends, self.asked = [], {0: 0, 1: 0}, 0
        self.refused = {}

    def __call__(self, settings):
        return self

    def list_topics(self, topic, timeout):
        found = SimpleNamespace(error=None, partitions={0: None, 1: None})
        return SimpleNamespace(topics={topic: found})

    def assign(self, places):
        self.assigned = [(place.partition, place.offset) for place in places]

    def offsets_for_times(self, places, timeout):
        self.asked += 1
        assert [place.offset for place in places] == [-1, -1]  # Kafka's latest
        return [
            SimpleNamespace(
                partition=place.partition,
                offset=self.ends[place.partition],
                error=self.refused.get(place.partition),
            )
            for place in places
        ]

    def consume(self, most, timeout):
        given, self.waiting = self.waiting, []
        return given

    def poll(self, timeout):
        return None

    def publish(self, partition, *values):
        end = self.ends[partition]
        for value in values:
            self.waiting.append(Message(partition, end, value))
            end += 1
        self.ends[partition] = end


@pytest.fixture
def topic(monkeypatch):
    found = Topic()
    monkeypatch.setattr(label_feed, "Consumer", found)
    return found


@pytest.fixture
def feed(topic):
    return LabelFeed("nowhere:9092", "run.labels", now_ms=lambda: 1000)


def frame(case, label=1):
    return labels_frame([Label(case_id=case, label_time_ms=7, label=label)])


def test_all_that_was_published_comes_before_an_answer(topic, feed):
    topic.publish(0, frame("a"), frame("b", 0))
    topic.publish(1, b'{"case_id": "c", "label_time_ms": 9, "label": 1}')
    cases, times, labels = feed.fresh(0)
    assert cases.to_pylist() == ["a", "b", "c"]
    assert (times.tolist(), labels.tolist()) == ([7, 7, 9], [1.0, 0.0, 1.0])
    assert feed.read_to == {0: 2, 1: 1}
    assert feed.fresh(0) is None


def test_a_backlog_asks_the_broker_once(topic, feed):
    feed.fresh(0)
    asked = topic.asked
    assert feed.fresh(999) is None  # created before the broker was asked
    assert topic.asked == asked
    topic.publish(0, frame("a"))
    assert feed.fresh(1000)[0].to_pylist() == ["a"]


def test_marks_behind_the_last_record_are_passed(topic, feed):
    topic.publish(0, frame("a"))
    topic.ends[0] = 3  # two marks of transactions
    topic.waiting.append(Message(0, 3, error=KafkaError._PARTITION_EOF))
    assert feed.fresh(0)[0].to_pylist() == ["a"]
    assert feed.read_to[0] == 3


def test_what_was_deleted_is_not_waited_for(topic, feed):
    topic.ends[1] = 5  # the first of them is where the partition begins now
    topic.waiting.append(Message(1, 5, error=KafkaError._PARTITION_EOF))
    assert feed.fresh(0) is None
    assert feed.read_to[1] == 5


def test_a_value_that_is_no_label_is_passed_over_and_counted(topic, feed, caplog):
    topic.publish(0, b"junk", frame("a"))
    assert feed.fresh(0)[0].to_pylist() == ["a"]
    assert "1 values of run.labels are no labels" in caplog.text


def test_labels_that_do_not_come_are_an_error_that_names_them(topic, feed, monkeypatch):
    monkeypatch.setattr(label_feed, "_ANSWER_S", 0.01)
    topic.ends[0] = 4
    with pytest.raises(LabelFeedError, match=r"run\.labels: nothing came.*ends are"):
        feed.fresh(0)


def test_a_partition_without_an_end_is_named(topic, feed):
    topic.refused[1] = "broker: not the leader"
    with pytest.raises(LabelFeedError, match=r"run\.labels\[1\]: broker: not the lead"):
        feed.fresh(0)
