"""The labels topic read as a table: everything that was published so far, at once."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from connectors.labels import label_columns

logger = logging.getLogger(__name__)

#: Labels as columns: case ids, label times in milliseconds, labels.
Labels = tuple[pa.Array, npt.NDArray[np.int64], npt.NDArray[np.float64]]
_ANSWER_S = 10.0
_MOST_VALUES = 1000
#: The time that stands for the end of a partition, in Kafka's protocol.
_LATEST = -1


class LabelFeedError(Exception):
    """Labels that the broker has could not be read; the message names the topic."""


class LabelFeed:
    """Reads every label from the beginning of the topic, without a group.

    `fresh` gives all labels up to the ends that the partitions have when it is asked.
    So an event that is answered after that has met every label published before it,
    at whatever speed topics are read. The broker is asked only for events created
    after it was asked last: of a backlog, once.

    Args:
        bootstrap: HOST:PORT of the broker.
        topic: full name of the topic.
        now_ms: the clock that events are stamped by.
    """

    def __init__(
        self, bootstrap: str, topic: str, *, now_ms: Callable[[], int]
    ) -> None:
        self._topic = topic
        self._now_ms = now_ms
        self._asked_ms = -1
        self._bad = 0
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"labels-{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 100,
                "isolation.level": "read_committed",
            }
        )
        # asks for the ends: on the connection that fetches, a question waits until the
        # fetch before it is answered, 100 ms when there is nothing new
        self._asker = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": f"labels-{uuid.uuid4().hex}"}
        )
        found = self._consumer.list_topics(topic, timeout=_ANSWER_S).topics[topic]
        if found.error is not None:
            msg = f"read topic {topic}: {found.error}; create it with: sluice up"
            raise LabelFeedError(msg)
        #: How far each partition was read.
        self.read_to = dict.fromkeys(sorted(found.partitions), 0)
        self._consumer.assign(
            [TopicPartition(topic, p, OFFSET_BEGINNING) for p in self.read_to]
        )

    def fresh(self, created_ms: int) -> Labels | None:
        """The labels not given before, in order; None when there are none.

        Args:
            created_ms: when the newest of the events in question was created; 0 when
                that is not known.

        Raises:
            LabelFeedError: the broker did not hand over what it has.
        """
        if 0 < created_ms < self._asked_ms:
            return None
        asked_ms = self._now_ms()
        ends = self._ends()
        values: list[bytes] = []
        deadline_s = time.monotonic() + _ANSWER_S
        while any(self.read_to[p] < end for p, end in ends.items()):
            # with a timeout it would wait until there are so many
            messages = self._consumer.consume(_MOST_VALUES, timeout=0)
            if not messages:
                one = self._consumer.poll(0.01)
                messages = [] if one is None else [one]
            for message in messages:
                deadline_s = time.monotonic() + _ANSWER_S
                self._take(message, values)
            if time.monotonic() > deadline_s:
                msg = (
                    f"read topic {self._topic}: nothing came for {_ANSWER_S:.0f} s at "
                    f"{self.read_to}, the ends are {ends}"
                )
                raise LabelFeedError(msg)
        self._asked_ms = asked_ms
        return self._columns(values)

    def _ends(self) -> dict[int, int]:
        """The ends of all partitions, by one question to each of their brokers."""
        places = [TopicPartition(self._topic, p, _LATEST) for p in self.read_to]
        try:
            found = self._asker.offsets_for_times(places, timeout=_ANSWER_S)
        except KafkaException as error:
            msg = f"ask for the ends of {self._topic}: {error}"
            raise LabelFeedError(msg) from error
        for place in found:
            if place.error is not None:
                name = f"{self._topic}[{place.partition}]"
                msg = f"ask for the end of {name}: {place.error}"
                raise LabelFeedError(msg)
        return {place.partition: place.offset for place in found}

    def _take(self, message: Any, values: list[bytes]) -> None:
        error = message.error()
        if error is None:
            values.append(message.value() or b"")
            self.read_to[message.partition()] = message.offset() + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            # behind the last record there may be marks of transactions
            self.read_to[message.partition()] = message.offset()
        else:
            msg = f"read topic {self._topic}: {error}"
            raise LabelFeedError(msg)

    def _columns(self, values: list[bytes]) -> Labels | None:
        if not values:
            return None
        *columns, bad = label_columns(values)
        if bad:
            self._bad += bad
            told = "%d values of %s are no labels so far and are passed over"
            logger.warning(told, self._bad, self._topic)
        cases, times, labels = columns
        return cases, times, labels

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()
        self._asker.close()
