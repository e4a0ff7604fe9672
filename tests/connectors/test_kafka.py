"""Clients on a stand-in for the library; integration tests use a real broker."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError, TopicAlreadyExistsError

from connectors import kafka
from connectors.kafka import (
    BrokerError,
    Producer,
    Reader,
    create_topics,
    delete_topics,
)
from connectors.topics import TOPICS


class Admin:
    there: tuple[str, ...] = ()
    error: Exception | None = None

    def __init__(self, bootstrap_servers):
        assert bootstrap_servers == "127.0.0.1:9092"
        self.closed = False
        Admin.last = self
        self.created = []
        self.deleted = []

    def list_topics(self):
        return list(self.there)

    def create_topics(self, topics):
        if self.error:
            raise self.error
        self.created += topics

    def delete_topics(self, names):
        self.deleted += names

    def close(self):
        self.closed = True


@pytest.fixture
def admin(monkeypatch):
    monkeypatch.setattr(kafka, "KafkaAdminClient", Admin)
    monkeypatch.setattr(Admin, "there", ())
    monkeypatch.setattr(Admin, "error", None)
    return Admin


def test_missing_topics_are_made_with_prefix_and_partitions(admin):
    admin.there = ("run.models", "decisions")
    create_topics("127.0.0.1:9092", prefix="run.", partitions={"events.tabular": 1})
    made = {topic.name: topic for topic in admin.last.created}
    assert set(made) == {f"run.{name}" for name in TOPICS} - {"run.models"}
    assert made["run.events.tabular"].num_partitions == 1
    assert made["run.events.text"].num_partitions == 2
    assert made["run.labels"].topic_configs["max.message.bytes"] == "50331648"
    assert admin.last.closed


def test_a_second_creator_at_the_same_time_is_no_error(admin):
    admin.error = TopicAlreadyExistsError()
    create_topics("127.0.0.1:9092")
    assert admin.last.closed


def test_a_broker_that_refuses_is_named(admin):
    admin.error = KafkaError("policy")
    with pytest.raises(BrokerError, match=r"create topics at 127.0.0.1:9092: .*policy"):
        create_topics("127.0.0.1:9092")
    assert admin.last.closed


def test_only_the_topics_of_one_run_are_deleted(admin):
    admin.there = ("run.labels", "labels", "run.other", "runs.labels")
    delete_topics("127.0.0.1:9092", prefix="run.")
    assert admin.last.deleted == ["run.labels"]
    with pytest.raises(ValueError, match="needs a prefix"):
        delete_topics("127.0.0.1:9092", prefix="")


class Sending:
    failures: tuple[Exception, ...] = ()

    def __init__(self, **settings):
        self.settings = settings
        self.sent = []
        self.failures_left = list(self.failures)
        self.closed = False
        Sending.last = self

    def send(self, topic, value, key):
        self.sent.append((topic, value, key))
        failure = self.failures_left.pop(0) if self.failures_left else None

        def add_errback(tell):
            if failure is not None:
                tell(failure)

        return SimpleNamespace(add_errback=add_errback)

    def flush(self, timeout):
        assert timeout > 0

    def close(self):
        self.closed = True


@pytest.fixture
def sending(monkeypatch):
    monkeypatch.setattr(kafka, "KafkaProducer", Sending)
    monkeypatch.setattr(Sending, "failures", ())
    return Sending


def test_values_go_out_with_their_key_to_all_replicas(sending):
    with Producer("b:1", linger_ms=7) as producer:
        producer.send("t", b"v", key="ä")
        producer.send("t", None)
        producer.flush()
    assert sending.last.sent == [("t", b"v", "ä".encode()), ("t", None, None)]
    assert sending.last.settings["acks"] == "all"
    assert sending.last.settings["linger_ms"] == 7
    assert sending.last.closed


def test_a_failed_delivery_is_raised_by_flush_once(sending):
    sending.failures = (KafkaError("too large"), KafkaError("again"))
    producer = Producer("b:1")
    producer.send("t", b"1")
    producer.send("t", b"2")
    producer.send("t", b"3")
    with pytest.raises(BrokerError, match=r"produce: .*too large"):
        producer.flush()
    producer.flush()


class Consuming:
    """Topic t with two partitions of three and one records."""

    topics: ClassVar = {"t": {1, 0}, "empty": {0}}
    ends: ClassVar = {("t", 0): 3, ("t", 1): 1, ("empty", 0): 0}

    def __init__(self, **settings):
        self.settings = settings
        self.positions = {}

    def partitions_for_topic(self, topic):
        return self.topics.get(topic)

    def assign(self, parts):
        self.positions = dict.fromkeys(parts, -1)

    def seek_to_beginning(self, *parts):
        self.positions |= dict.fromkeys(parts, 0)

    def seek_to_end(self, *parts):
        self.positions |= {p: self.ends[tuple(p)] for p in parts}

    def seek(self, part, offset):
        self.positions[part] = offset

    def position(self, part):
        return self.positions[part]

    def end_offsets(self, parts):
        return {p: self.ends[tuple(p)] for p in parts}

    def poll(self, timeout_ms):
        for part, at in self.positions.items():
            if at < self.ends[tuple(part)]:
                self.positions[part] += 1
                record = SimpleNamespace(
                    topic=part.topic,
                    partition=part.partition,
                    offset=at,
                    key=None,
                    value=b"v",
                    timestamp=9,
                )
                return {part: [record]}
        return {}

    def close(self):
        self.positions = {}


@pytest.fixture
def consuming(monkeypatch):
    monkeypatch.setattr(kafka, "KafkaConsumer", Consuming)
    monkeypatch.setattr(kafka.time, "sleep", lambda s: None)


def places(values):
    return [(v.place.partition, v.place.offset) for v in values]


def test_a_reader_gives_all_that_is_stored_and_then_stops(consuming):
    with Reader("b:1", ["t", "empty"]) as reader:
        assert places(reader.until_end()) == [(0, 0), (0, 1), (0, 2), (1, 0)]
        assert list(reader.until_end()) == []


def test_a_reader_begins_where_it_is_told(consuming):
    reader = Reader("b:1", ["t"], start={("t", 0): 2, ("elsewhere", 0): 7})
    assert places(reader.until_end()) == [(0, 2), (1, 0)]
    assert list(Reader("b:1", ["t"], from_end=True).until_end()) == []
    late = Reader("b:1", ["t"], from_end=True, start={("t", 1): 0})
    assert places(late.until_end()) == [(1, 0)]


def test_reading_as_they_come_ends_when_done_or_out_of_time(consuming):
    seen = []
    reader = Reader("b:1", ["t"])
    for value in reader.until(lambda: len(seen) == 2, timeout_s=5):
        seen.append(value)
    assert places(seen) == [(0, 0), (0, 1)]
    assert list(reader.until(lambda: False, timeout_s=0)) == []


def test_an_unknown_topic_is_named(consuming):
    with pytest.raises(BrokerError, match=r"read nowhere: no such topic; .*sluice up"):
        Reader("b:1", ["nowhere"])


def test_a_reader_leaves_no_offsets_behind(consuming):
    reader = Reader("b:1", ["t"])
    assert reader._consumer.settings["enable_auto_commit"] is False
    assert "group_id" not in reader._consumer.settings
    assert TopicPartition("t", 0) in reader._consumer.positions
