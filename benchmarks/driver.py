"""The open-loop driver: a process that sends payments at their due times, whatever.

It is told one `Phase` after the other. `created_ms` of an event is when it was due: a
driver that falls behind, or an event that waits for its frame, makes latency longer,
never shorter.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np
from confluent_kafka import Producer

from benchmarks.payments import (
    LABEL_LAG,
    PaymentFrames,
    PaymentObjects,
    draw_payments,
)
from pipelines.keeper import tie_to

MOST_ROWS = 512
LABEL_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """What to send for a while.

    Attributes:
        seconds: how long.
        rate: events per second; 0 sends as fast as `most_lag` allows.
        form: frames, or one JSON object a value.
        hot: one customer makes a fifth of the events.
        most_lag: events that may be undecided at a rate of 0.
        frame_ms: how long a frame waits for further events.
        give_up_s: a phase at a rate ends early when the events of so many seconds are
            undecided.
    """

    seconds: float
    rate: float = 0.0
    form: Literal["frames", "json"] = "frames"
    hot: bool = False
    most_lag: int = 30_000
    frame_ms: float = 5.0
    give_up_s: float = 10.0

    @property
    def step_rows(self) -> int:
        """Events that are sent together."""
        if not self.rate:
            return MOST_ROWS
        return int(min(MOST_ROWS, max(1, self.rate * self.frame_ms / 1000)))


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverConfig:
    """Where the driver sends to.

    Attributes:
        bootstrap: HOST:PORT of the broker.
        prefix: of the topics.
        parent_pid: the driver ends with this process.
        labels: send labels too.
        label_partitions: of the topic `labels`.
        seed: of the payments.
    """

    bootstrap: str
    prefix: str
    parent_pid: int
    labels: bool = True
    label_partitions: int = 2
    seed: int = 0


class Driver:
    """The driver as its parent sees it; `decided` is told to it by the reader."""

    def __init__(self, config: DriverConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, inner = context.Pipe()
        self._sent = context.Value("q", 0, lock=False)
        self._decided = context.Value("q", 0, lock=False)
        given = (config, inner, self._sent, self._decided)
        self._process = context.Process(target=drive, args=given, daemon=True)
        self._process.start()
        inner.close()
        self._pipe.recv()  # its payments are drawn

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    @property
    def sent(self) -> int:
        """Events sent so far, over all phases."""
        return int(self._sent.value)

    def tell_decided(self, count: int) -> None:
        """How many events have an outcome."""
        self._decided.value = count

    def begin(self, phase: Phase) -> None:
        """Send for the time of a phase."""
        self._pipe.send(phase)

    def is_done(self) -> bool:
        """Whether everything of the phase was stored; raises what went wrong there."""
        if not self._pipe.poll():
            return False
        failure = self._pipe.recv()
        if failure:
            msg = f"the driver failed: {failure}"
            raise RuntimeError(msg)
        return True

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def drive(config: DriverConfig, pipe: Connection, sent: Any, decided: Any) -> None:
    """The driver's process: phases come through the pipe, `None` when each is done."""
    tie_to(config.parent_pid)
    sender = _Sender(config, sent, decided)
    pipe.send(None)
    while True:
        phase = pipe.recv()
        try:
            sender.run(phase)
            failure = sender.failure
        except Exception as error:
            failure = repr(error)
        pipe.send(failure)


class _Sender:
    def __init__(self, config: DriverConfig, sent: Any, decided: Any) -> None:
        even, hot = (draw_payments(config.seed, hot=hot) for hot in (False, True))
        self._frames = {False: PaymentFrames(even), True: PaymentFrames(hot)}
        self._objects = PaymentObjects(even)
        self._config = config
        self._sent, self._decided = sent, decided
        self._topic = config.prefix + "events.tabular"
        self._labels = config.prefix + "labels"
        self._labelled = 0
        self.failure: str | None = None
        self._producers = {
            form: Producer(
                {
                    "bootstrap.servers": config.bootstrap,
                    "acks": "all",
                    "linger.ms": linger_ms,
                    "batch.size": 1_000_000,
                    "queue.buffering.max.messages": 1_000_000,
                    "delivery.report.only.error": True,
                    "on_delivery": self._failed,
                }
            )
            for form, linger_ms in (("frames", 0), ("json", 5))
        }

    def _failed(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failure = str(error)

    def run(self, phase: Phase) -> None:
        """Send a phase and wait until the broker has all of it."""
        send = self._send_objects if phase.form == "json" else self._send_frame
        producer = self._producers[phase.form]
        rows, number = phase.step_rows, 0
        most = phase.rate * phase.seconds or float("inf")
        began, clock_ms = time.monotonic(), time.time() * 1000
        while number < most:
            if phase.rate:
                due_s = (number + rows) / phase.rate
                time.sleep(max(0.0, began + due_s - time.monotonic()))
                ahead = np.arange(number + 1, number + rows + 1) / phase.rate
                created = (clock_ms + 1000 * ahead).astype(np.int64)
            else:
                while self._sent.value - self._decided.value > phase.most_lag:
                    time.sleep(0.0005)
                    if time.monotonic() - began > phase.seconds:
                        break
                created = np.full(rows, time.time_ns() // 1_000_000)
            if self._is_over(phase, time.monotonic() - began):
                break
            self._send_labels(producer, self._sent.value + rows)
            send(producer, phase, created)
            number += rows
            producer.poll(0)
        producer.flush(60)

    def _is_over(self, phase: Phase, seconds: float) -> bool:
        if not phase.rate:
            return seconds > phase.seconds
        undecided = self._sent.value - self._decided.value
        # in the first seconds a job may yet wake up
        return seconds > 5 and undecided > phase.give_up_s * phase.rate

    def _send_frame(self, producer: Any, phase: Phase, created: Any) -> None:
        first, rows = self._sent.value, len(created)
        value = self._frames[phase.hot].frame(first, rows, created)
        self._put(producer, self._topic, value)
        self._sent.value = first + rows

    def _send_objects(self, producer: Any, phase: Phase, created: Any) -> None:
        first = self._sent.value
        for number, at_ms in enumerate(created.tolist(), first):
            self._put(producer, self._topic, self._objects.value(number, at_ms))
        self._sent.value = first + len(created)

    def _send_labels(self, producer: Any, until: int) -> None:
        """Labels in their time, those of a few minutes of events together."""
        if not self._config.labels:
            return
        while self._labelled < until - LABEL_LAG:
            values = self._frames[False].label_values(
                self._labelled, LABEL_ROWS, self._config.label_partitions
            )
            for partition, value in enumerate(values):
                self._put(producer, self._labels, value, partition=partition)
            self._labelled += LABEL_ROWS

    def _put(self, producer: Any, topic: str, value: bytes, **place: int) -> None:
        while True:
            try:
                producer.produce(topic, value, **place)
                return
            except BufferError:  # librdkafka's queue is full
                producer.poll(0.01)
