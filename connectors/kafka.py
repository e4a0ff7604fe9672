"""Kafka clients outside Flink: make topics, produce values, read them back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from connectors.records import Place
from connectors.topics import MAX_VALUE_BYTES, TOPICS


class BrokerError(Exception):
    """The broker did not do what was asked; the message says what and where."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One Kafka value with its key, its place and when the broker took it."""

    place: Place
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


def create_topics(
    bootstrap: str, *, prefix: str = "", partitions: Mapping[str, int] | None = None
) -> None:
    """Create every topic of the table that is not there yet.

    Args:
        bootstrap: HOST:PORT of the broker.
        prefix: put before every topic name, so that runs stay apart.
        partitions: other partition counts, by topic name without prefix.
    """
    wanted = [
        NewTopic(
            prefix + topic.name,
            (partitions or {}).get(topic.name, topic.partitions),
            1,
            topic_configs=topic.settings(),
        )
        for topic in TOPICS.values()
    ]
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        there = set(admin.list_topics())
        missing = [topic for topic in wanted if topic.name not in there]
        if missing:
            admin.create_topics(missing)
    except TopicAlreadyExistsError:
        return
    except KafkaError as error:
        msg = f"create topics at {bootstrap}: {error}"
        raise BrokerError(msg) from error
    finally:
        admin.close()


def delete_topics(bootstrap: str, *, prefix: str) -> None:
    """Delete the topics of one run (a prefix is required)."""
    if not prefix:
        msg = "deleting topics needs a prefix: the shared topics are kept"
        raise ValueError(msg)
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        there = set(admin.list_topics())
        ours = [prefix + name for name in TOPICS if prefix + name in there]
        if ours:
            admin.delete_topics(ours)
    finally:
        admin.close()


class Producer:
    """Sends values and says so when one did not arrive.

    At-least-once: `flush` returns only when the broker has every value.
    """

    def __init__(self, bootstrap: str, *, linger_ms: int = 0) -> None:
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            linger_ms=linger_ms,
            batch_size=256 * 1024,
            max_request_size=MAX_VALUE_BYTES,
        )
        self._failed: list[Exception] = []

    def send(self, topic: str, value: bytes | None, *, key: str | None = None) -> None:
        """Queue one value; a failed delivery is raised by `flush`."""
        raw = None if key is None else key.encode()
        self._producer.send(topic, value=value, key=raw).add_errback(
            self._failed.append
        )

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(self._producer.partitions_for(topic))

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until all queued values are stored.

        Raises:
            BrokerError: at least one value could not be delivered.
        """
        try:
            self._producer.flush(timeout=timeout_s)
        except KafkaError as error:
            self._failed.append(error)
        if self._failed:
            first, self._failed = self._failed[0], []
            msg = f"produce: {first}"
            raise BrokerError(msg) from first

    def close(self) -> None:
        """Flush and leave."""
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Reader:
    """Reads topics from given offsets, without a consumer group.

    Args:
        bootstrap: HOST:PORT of the broker.
        topics: full topic names; they must exist.
        start: first offset per (topic, partition); others begin at the oldest
            record, or after the newest with `from_end`.
        from_end: see `start`.
        max_wait_ms: longest time the broker holds an answer back.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Sequence[str],
        *,
        start: Mapping[tuple[str, int], int] | None = None,
        from_end: bool = False,
        max_wait_ms: int = 50,
    ) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=max_wait_ms,
            max_partition_fetch_bytes=MAX_VALUE_BYTES,
            fetch_max_bytes=2 * MAX_VALUE_BYTES,
        )
        self._parts: list[Any] = []
        for topic in topics:
            numbers = _partitions(self._consumer, topic)
            self._parts += [TopicPartition(topic, number) for number in numbers]
        self._consumer.assign(self._parts)
        if from_end:
            self._consumer.seek_to_end(*self._parts)
        else:
            self._consumer.seek_to_beginning(*self._parts)
        for (topic, number), offset in (start or {}).items():
            part = TopicPartition(topic, number)
            if part in self._parts:
                self._consumer.seek(part, offset)
        for part in self._parts:  # resolve lazily sought positions now
            self._consumer.position(part)

    def poll(self, timeout_ms: int = 100) -> list[Value]:
        """Values that have arrived, possibly none."""
        found = self._consumer.poll(timeout_ms=timeout_ms)
        return [
            Value(
                place=Place(
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                ),
                key=record.key,
                value=record.value,
                timestamp_ms=record.timestamp,
            )
            for records in found.values()
            for record in records
        ]

    def until_end(self) -> Iterator[Value]:
        """Values up to those that are stored at the time of the call."""
        ends = self._consumer.end_offsets(self._parts)
        while any(self._consumer.position(p) < ends[p] for p in self._parts):
            yield from self.poll()

    def until(self, done: Callable[[], bool], timeout_s: float) -> Iterator[Value]:
        """Values as they come, until `done()` or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not done() and time.monotonic() < deadline:
            yield from self.poll()

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _partitions(consumer: KafkaConsumer, topic: str) -> list[int]:
    for _ in range(20):
        numbers = consumer.partitions_for_topic(topic)
        if numbers:
            return sorted(numbers)
        time.sleep(0.1)
    msg = f"read {topic}: no such topic; create it with: sluice up"
    raise BrokerError(msg)
