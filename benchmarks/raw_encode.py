"""What the encode job is compared with: decode and encode alone, and Kafka alone."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from benchmarks.cpu import CpuClock
from benchmarks.loops import alone, like_a_node, producer_of, put, started
from benchmarks.media import Payloads, vectors_frame
from benchmarks.reader import assigned
from connectors.kafka import create_topics, delete_topics

#: Of a batch before anything is measured.
WARM_UP_ROWS = 16


class RawForward:
    """Decoding and encoding payloads in memory, one torch thread in each process.

    As many processes at once as the job has cores: each is slower then than one alone.
    They rest between two runs, their model loaded.

    Args:
        model_folder: of the encoders.
        modality: of the payloads.
        cores: processes.
    """

    def __init__(self, model_folder: Path, modality: str, cores: int) -> None:
        like_a_node()
        children = [started(_forward, model_folder, modality) for _ in range(cores)]
        self._pipes = [pipe for pipe, _ in children]
        self._processes = [process for _, process in children]
        for pipe in self._pipes:
            pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def run(self, seconds: float, rows: int) -> dict[str, float]:
        """What one core does in so many seconds while the others do the same.

        Args:
            seconds: how long.
            rows: payloads decoded and encoded together.
        """
        for pipe in self._pipes:
            pipe.send((seconds, rows))
        found: list[Mapping[str, float]] = [pipe.recv() for pipe in self._pipes]
        each = sum(one["events"] / one["wall_s"] for one in found) / len(found)
        events = sum(one["events"] for one in found)
        return {
            "events_per_s": round(each, 1),
            "decode_us": round(1e6 * sum(one["decode_s"] for one in found) / events, 1),
            "encode_us": round(1e6 * sum(one["encode_s"] for one in found) / events, 1),
        }


def _forward(pipe: Connection, folder: Path, modality: str) -> None:
    from encoders.store import load_encoder

    encoder = load_encoder(folder / "encoders" / modality)
    payloads = Payloads(modality)
    spent = {"decode_s": 0.0, "encode_s": 0.0}

    def batch(first: int, rows: int) -> None:
        of = [payloads[n] for n in range(first, first + rows)]
        began = time.thread_time()
        decoded = [encoder.decode(one) for one in of]
        between = time.thread_time()
        encoder.encode(decoded)
        spent["decode_s"] += between - began
        spent["encode_s"] += time.thread_time() - between

    events = 0
    for _ in range(8):
        batch(events, WARM_UP_ROWS)
        events += WARM_UP_ROWS
    pipe.send("ready")
    while True:
        seconds, rows = pipe.recv()
        spent |= dict.fromkeys(spent, 0.0)
        began, before = time.monotonic(), events
        while time.monotonic() - began < seconds:
            batch(events, rows)
            events += rows
        took_s = time.monotonic() - began
        pipe.send({"events": events - before, "wall_s": took_s, **spent})


@dataclass(frozen=True, kw_only=True, slots=True)
class RawKafka:
    """Frames of events in, frames of vectors out, nothing done with either.

    Attributes:
        bootstrap: HOST:PORT of the broker.
        broker_pid: whose CPU time counts, too.
        prefix: of the topics.
        modality: of the events.
        width: of the vectors.
        frames: how many.
        rows: of a frame.
    """

    bootstrap: str
    broker_pid: int
    prefix: str
    modality: str
    width: int
    frames: int
    rows: int


def raw_kafka(told: RawKafka) -> dict[str, float]:
    """CPU of clients and broker for what the job reads and writes, per event."""
    create_topics(told.bootstrap, prefix=told.prefix)
    try:
        return alone(_kafka, told)
    finally:
        delete_topics(told.bootstrap, prefix=told.prefix)


def _kafka(told: RawKafka) -> dict[str, float]:
    topic = f"{told.prefix}events.{told.modality}"
    payloads = Payloads(told.modality)
    values = [payloads.frame(n * told.rows, told.rows) for n in range(told.frames)]
    made = vectors_frame(told.modality, told.width, told.rows)
    producer = producer_of(told.bootstrap)
    clock = CpuClock({"client": os.getpid(), "broker": told.broker_pid})
    for value in values:
        put(producer, topic, value)
    producer.flush()
    consumer, read = assigned(told.bootstrap, [topic]), 0
    while read < told.frames:
        for message in consumer.consume(100, 0.05):
            if not message.error():
                read += 1
                put(producer, told.prefix + "embeddings", made)
                put(producer, told.prefix + "vectors", made)
    producer.flush()
    consumer.close()
    events = told.frames * told.rows
    used = {name: 1e6 * s / events for name, s in clock.seconds().items()}
    return {
        "us_per_event": round(sum(used.values()), 2),
        **{f"{name}_us": round(us, 2) for name, us in used.items()},
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill:
    """Events to put in a topic.

    Attributes:
        bootstrap: HOST:PORT of the broker.
        topic: full name.
        modality: of the events.
        first: number of the first event.
        count: how many; a multiple of `rows`.
        rows: of a frame.
        payloads: how many payloads the events share; None for one each.
    """

    bootstrap: str
    topic: str
    modality: str
    first: int
    count: int
    rows: int
    payloads: int | None = None


class Filler:
    """A process that makes frames of events first and sends them at a word."""

    def __init__(self, told: Fill) -> None:
        self._pipe, self._process = started(_fill, told)
        self._pipe.recv()

    def go(self) -> None:
        """Send; returns at once."""
        self._pipe.send("go")

    def join(self) -> None:
        """Wait until all is sent."""
        self._pipe.recv()
        self._process.join()


def _fill(pipe: Connection, told: Fill) -> None:
    producer, payloads = producer_of(told.bootstrap), Payloads(told.modality)
    numbers = range(told.first, told.first + told.count, told.rows)
    frames = [payloads.frame(n, told.rows, payloads=told.payloads) for n in numbers]
    pipe.send("ready")
    pipe.recv()
    for frame in frames:
        put(producer, told.topic, frame)
    producer.flush()
    pipe.send("sent")
