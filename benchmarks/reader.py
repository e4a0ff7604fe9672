"""Reads decisions back and times them: what was decided, when, and how far behind."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "max": 100.0}

#: Seconds, events sent, events decided.
Sample = tuple[float, int, int]


def assigned(bootstrap: str, topics: list[str], **settings: Any) -> Any:
    """A consumer of all partitions of the topics, from their beginnings, no group."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
            "fetch.max.bytes": 64 * 1024 * 1024,
            "message.max.bytes": 64 * 1024 * 1024,
            **settings,
        }
    )
    known = consumer.list_topics(timeout=10).topics
    parts = [
        TopicPartition(topic, number, 0)
        for topic in topics
        for number in known[topic].partitions
    ]
    consumer.assign(parts)
    return consumer


def frame_columns(value: bytes) -> pa.RecordBatch:
    """The rows of a frame, read without the checks of a stranger's frame."""
    with pa.ipc.open_stream(pa.py_buffer(value)[4:]) as reader:
        return reader.read_next_batch()


@dataclass(slots=True)
class Decided:
    """Counts decisions and dead letters, and keeps the latency of each decision.

    Args:
        bootstrap: HOST:PORT of the broker.
        prefix: of the topics.

    Attributes:
        decisions: rows read so far.
        dead: rows of dead letters read so far.
        latency_ms: of decisions read since `forget`, an array for each frame.
    """

    bootstrap: str
    prefix: str
    decisions: int = 0
    dead: int = 0
    latency_ms: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _consumer: Any = None

    def __post_init__(self) -> None:
        names = [self.prefix + "decisions", self.prefix + "dead-letters"]
        self._consumer = assigned(self.bootstrap, names)

    def poll(self, timeout_s: float) -> None:
        """Take what has come, waiting for something at most so long."""
        # `consume` waits for all it may give, `poll` for one
        one = self._consumer.poll(timeout_s)
        messages = [] if one is None else [one, *self._consumer.consume(500, 0)]
        at_ms = time.time_ns() // 1_000_000
        for message in messages:
            if message.error():
                continue
            batch = frame_columns(message.value())
            if message.topic().endswith("dead-letters"):
                self.dead += batch.num_rows
                continue
            self.decisions += batch.num_rows
            self.latency_ms.append(at_ms - batch.column("created_ms").to_numpy())

    def forget(self) -> None:
        """Begin anew with latencies."""
        self.latency_ms = []

    def latencies(self) -> npt.NDArray[np.int64]:
        """Milliseconds of every decision since `forget`."""
        found = [np.empty(0, np.int64), *self.latency_ms]
        return np.concatenate(found)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def percentiles(latencies_ms: npt.NDArray[Any]) -> dict[str, float]:
    """The usual percentiles and the longest; empty when nothing was timed."""
    if not len(latencies_ms):
        return {}
    found = np.percentile(latencies_ms, list(PERCENTILES.values()))
    return {n: round(float(v), 1) for n, v in zip(PERCENTILES, found, strict=True)}


def lag_slope(samples: list[Sample]) -> float:
    """Events per second by which the lag grew: last third against first, by medians.

    A pause for a checkpoint moves no median; a lag that grows moves both thirds apart.
    """
    if len(samples) < 6:
        return 0.0
    third = len(samples) // 3
    lag = np.array([sent - decided for _, sent, decided in samples], dtype=np.float64)
    at_s = np.array([at for at, _, _ in samples])
    grown = np.median(lag[-third:]) - np.median(lag[:third])
    return float(grown / (np.median(at_s[-third:]) - np.median(at_s[:third])))


def decided_rate(samples: list[Sample]) -> float:
    """Events decided per second between the first sample and the last."""
    if len(samples) < 2:
        return 0.0
    (began, _, before), (ended, _, after) = samples[0], samples[-1]
    return (after - before) / (ended - began)
