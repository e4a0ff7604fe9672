"""Raw loops to compare with: a plain Kafka loop by hand, and Kafka alone.

Each runs in a process of its own against topics that were filled before. None of them
recovers from anything: no checkpoint, no dead letters, no place to go on from.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from confluent_kafka import Producer
from kafka import KafkaConsumer, KafkaProducer

from automl.candidates import TreeCandidate
from benchmarks.by_hand import FeaturesByHand
from benchmarks.cpu import CpuClock
from benchmarks.payments import PaymentFrames, PaymentObjects, draw_payments
from benchmarks.reader import assigned, frame_columns
from connectors.topics import MAX_VALUE_BYTES
from pipelines.keeper import tie_to
from pipelines.scorer import TREE_FILE
from pipelines.stack_files import MEMORY_ENV, THREADS_ENV

POLL_MESSAGES = 500
#: A loop ends when nothing has come for so long.
QUIET_S = 1.0
LABEL_ROWS = 4096
#: What processes of loops have loaded before they are told which one to run.
LOOP_MODULES = ["benchmarks.bare", "benchmarks.loops", "benchmarks.state"]

Take = Callable[[], list[bytes]]
Give = Callable[[bytes], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopJob:
    """What a loop is given.

    Attributes:
        bootstrap: HOST:PORT of the broker.
        events: full name of the topic it reads.
        labels: full name of the topic of labels, read whole before the events.
        out: full name of the topic it writes.
        model_folder: holds the trees.
        seconds: it ends after so long, or when no event has come for a second.
        has_label_features: the trees know shares of frauds.
    """

    bootstrap: str
    events: str
    labels: str
    out: str
    model_folder: Path
    seconds: float
    has_label_features: bool


def fill(job: LoopJob, count: int, frame_rows: int = 0) -> dict[str, float]:
    """Put payments in the topic of events, as JSON objects with labels or as frames."""
    payments = draw_payments()
    frames, objects = PaymentFrames(payments), PaymentObjects(payments)
    producer = producer_of(job.bootstrap)
    if frame_rows:
        for first in range(0, count, frame_rows):
            put(producer, job.events, frames.frame(first, frame_rows, 0))
    else:
        for number in range(count):
            put(producer, job.events, objects.value(number, 0))
        for first in range(0, count, LABEL_ROWS):
            for value in frames.label_values(first, LABEL_ROWS, 1):
                put(producer, job.labels, value)
    producer.flush()
    return {"events": count}


def producer_of(bootstrap: str) -> Any:
    """A producer for volume."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 5,
            "batch.size": 1_000_000,
            "message.max.bytes": MAX_VALUE_BYTES,
            "queue.buffering.max.messages": 1_000_000,
        }
    )


def put(producer: Any, topic: str, value: bytes) -> None:
    """Send a value, waiting for room."""
    while True:
        try:
            producer.produce(topic, value)
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.01)


def confluent_loop(job: LoopJob) -> dict[str, float]:
    """Loop (b): the plain loop with confluent-kafka."""
    consumer = assigned(job.bootstrap, [job.events])
    producer = producer_of(job.bootstrap)

    def take() -> list[bytes]:
        one = consumer.poll(0.05)  # `consume` waits for all it may give
        found = [] if one is None else [one, *consumer.consume(POLL_MESSAGES - 1, 0)]
        return [message.value() for message in found if not message.error()]

    return _loop(job, take, lambda value: put(producer, job.out, value), producer.flush)


def kafka_python_loop(job: LoopJob) -> dict[str, float]:
    """Loop (c): the same with kafka-python."""
    consumer = KafkaConsumer(
        job.events,
        bootstrap_servers=job.bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = KafkaProducer(
        bootstrap_servers=job.bootstrap, linger_ms=5, batch_size=256 * 1024
    )

    def take() -> list[bytes]:
        found = consumer.poll(timeout_ms=50, max_records=POLL_MESSAGES)
        return [record.value for records in found.values() for record in records]

    return _loop(job, take, lambda value: producer.send(job.out, value), producer.flush)


def _loop(
    job: LoopJob, take: Take, give: Give, flush: Callable[[], Any]
) -> dict[str, float]:
    trees = TreeCandidate.load(job.model_folder / TREE_FILE)
    features, count = FeaturesByHand(), 0
    while not (values := take()):  # the first poll also waits for the broker
        pass
    cpu, began = CpuClock({"loop": os.getpid()}), time.monotonic()
    for batch in _stored(assigned(job.bootstrap, [job.labels])):
        cases, found = (batch.column(name).to_pylist() for name in ("case_id", "label"))
        features.labels.update(zip(cases, found, strict=True))
    last = time.monotonic()
    while (values or time.monotonic() - last < QUIET_S) and last - began < job.seconds:
        if values:
            _decide(trees, features, values, give, job.has_label_features)
            count, last = count + len(values), time.monotonic()
        values = take()
    flush()
    seconds = last - began
    return {
        "events": count,
        "events_per_s": round(count / seconds),
        "cpu_us_per_event": round(1e6 * cpu.seconds()["loop"] / count, 2),
    }


def _stored(consumer: Any) -> Iterator[pa.RecordBatch]:
    """Every frame that is stored now."""
    parts = consumer.assignment()
    left = sum(consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts)
    while left:
        message = consumer.poll(1.0)
        if message is not None and not message.error():
            left -= 1
            yield frame_columns(message.value())
    consumer.close()


def _decide(
    trees: TreeCandidate,
    features: FeaturesByHand,
    values: list[bytes],
    give: Give,
    has_label_features: bool,
) -> None:
    events = [orjson.loads(value) for value in values]
    x = np.array(features.rows(events))
    if not has_label_features:
        x = x[:, :-3]
    scores = 1.0 / (1.0 + np.exp(-trees.predict_logit(x)))
    for event, score in zip(events, scores.tolist(), strict=True):
        case = event["case_id"]
        give(orjson.dumps({"case_id": case, "score": round(score, 6)}))


def kafka_alone(job: LoopJob, value: bytes, frame_rows: int) -> dict[str, float]:
    """Frames read and as many frames written, nothing done with either.

    Args:
        job: where from and where to.
        value: what is written for each frame: decisions of as many rows.
        frame_rows: rows of a frame.
    """
    consumer = assigned(job.bootstrap, [job.events])
    producer = producer_of(job.bootstrap)
    cpu, rows = CpuClock({"client": os.getpid()}), 0
    last = began = time.monotonic()
    while time.monotonic() - last < 0.5 or not rows:
        for _ in consumer.consume(POLL_MESSAGES, 0.05):
            put(producer, job.out, value)
            rows += frame_rows
            last = time.monotonic()
        if time.monotonic() - began > job.seconds:
            break
    producer.flush()
    return {"events": rows, "client_cpu_s": cpu.seconds()["client"]}


def alone(
    run: Callable[..., Mapping[str, float]], *given: Any, how: str = "forkserver"
) -> dict[str, float]:
    """What a loop gives that runs in a process of its own.

    Args:
        run: the loop.
        given: its arguments.
        how: "forkserver" starts it with libraries loaded, which take seconds each time;
            "spawn" with nothing, for who asks what they take.
    """
    outer, process = started(_answer, run, given, how=how)
    try:
        found: dict[str, float] = outer.recv()
        return found
    except EOFError as error:
        msg = f"{run.__name__} ended without a result; its error is above"
        raise RuntimeError(msg) from error
    finally:
        process.join()


def _answer(pipe: Connection, run: Callable[..., Any], given: tuple[Any, ...]) -> None:
    pipe.send(run(*given))


def like_a_node() -> None:
    """Give processes that are spawned from here on a node's threads and memory."""
    os.environ.update(THREADS_ENV | MEMORY_ENV)  # read when libraries load: in them


def started(
    work: Callable[..., None], *given: Any, how: str = "spawn"
) -> tuple[Connection, BaseProcess]:
    """A process that does `work(pipe, *given)`, and the other end of its pipe.

    It ends with this process at the latest.
    """
    context: Any = multiprocessing.get_context(how)
    context.set_forkserver_preload(LOOP_MODULES)
    outer, inner = context.Pipe()
    process = context.Process(target=_tied, args=(work, inner, *given), daemon=True)
    process.start()
    inner.close()
    return outer, process


def _tied(work: Callable[..., None], *given: Any) -> None:
    tie_to(os.getppid())
    work(*given)
