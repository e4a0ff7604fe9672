"""The measured system: a stack of its own, the score job, the driver and the reader."""

from __future__ import annotations

import gc
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from automl.candidates import TreeConfig
from automl.registry import ArtefactError, Registry, verify
from benchmarks.cpu import CpuClock
from benchmarks.driver import Driver, DriverConfig, Phase
from benchmarks.payments import payments_archive, payments_task
from benchmarks.reader import Decided, Sample, decided_rate, lag_slope, percentiles
from connectors.kafka import create_topics, delete_topics
from connectors.topics import TOPICS
from pipelines import jobs, stack
from pipelines.config import JobConfig
from pipelines.train import TrainConfig, train

MODEL = "payments"
TREES = 100
STALL_S = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class RigConfig:
    """How the system is set up.

    Attributes:
        home: of the stack and the model.
        job: settings of the score job other than the usual ones.
        labels: the task has shares of frauds, and labels are sent.
        archive_rows: payments the model is fitted on.
    """

    home: Path
    job: dict[str, Any] = field(default_factory=dict)
    labels: bool = True
    archive_rows: int = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one phase gave.

    Attributes:
        phase: what was sent.
        sent: events.
        missing: events without a decision.
        samples: lag over the time of sending, every fifth of a second.
        latencies_ms: int64, one for each decision.
        cpu_s: CPU seconds by process, until the last decision was read.
    """

    phase: Phase
    sent: int
    missing: int
    samples: list[Sample]
    latencies_ms: npt.NDArray[np.int64]
    cpu_s: dict[str, float]

    @property
    def events_per_s(self) -> float:
        """Decided per second while the driver sent."""
        return decided_rate(self.samples)

    @property
    def slope(self) -> float:
        """Events per second by which the lag grew."""
        return lag_slope(self.samples)

    def latency_ms(self) -> dict[str, float]:
        """Percentiles from creation to the decision read back."""
        return percentiles(self.latencies_ms)

    def cpu_us_per_event(self) -> dict[str, float]:
        """CPU microseconds per event, by process."""
        events = max(1, self.sent)
        return {name: round(1e6 * s / events, 3) for name, s in self.cpu_s.items()}


def model_folder(config: RigConfig, say: Say) -> Path:
    """A model of a hundred trees fitted on the same kind of payments; made once."""
    registry = Registry(config.home / "models")
    name = MODEL if config.labels else f"{MODEL}-no-labels"
    wanted = payments_task(labels=config.labels, name=name)
    folder = config.home / "models" / name
    for made in sorted(folder.glob("*/manifest.json"), reverse=True):
        try:
            manifest = verify(made.parent)
        except ArtefactError as error:
            say(f"{made.parent} is fitted anew: {error}")
            continue
        if len(manifest.features) == len(wanted["features"]):
            return made.parent
    say(f"fitting {TREES} trees on {config.archive_rows} payments")
    given = TrainConfig(trees=TreeConfig(trees=TREES))
    archive = payments_archive(config.archive_rows)
    return train(archive, wanted, name, registry, config=given, say=say).folder


class Rig:
    """A running score job that phases of payments are sent to."""

    def __init__(self, config: RigConfig, say: Say) -> None:
        self._config = config
        self._say = say
        self._own = stack.find(config.home) is None
        self.folder = model_folder(config, say)
        nodes = config.job.get("nodes", 1)
        self.local = stack.start(
            config.home, nodes=nodes, owner_pid=os.getpid(), say=say
        )
        self._prefix = f"bench-{uuid.uuid4().hex[:8]}."
        create_topics(self.local.bootstrap, prefix=self._prefix)
        self.job = JobConfig(
            bootstrap=self.local.bootstrap,
            model_folder=str(self.folder.resolve()),
            prefix=self._prefix,
            **config.job,
        )
        self._driver: Driver | None = None
        self._reader: Decided | None = None
        self._job_id = ""

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        self._job_id = jobs.submit(self.local, ["score"], self.job)["score"]
        self._reader = Decided(self.local.bootstrap, self._prefix)
        self._driver = Driver(
            DriverConfig(
                bootstrap=self.local.bootstrap,
                prefix=self._prefix,
                parent_pid=os.getpid(),
                labels=self._config.labels,
                label_partitions=TOPICS["labels"].partitions,
            )
        )
        gc.collect()
        gc.freeze()  # what the reader keeps only grows: no pause of it is the jobs'
        gc.disable()

    def __exit__(self, *error: object) -> None:
        gc.enable()
        if self._driver is not None:
            self._driver.close()
        if self._reader is not None:
            self._reader.close()
        if self._job_id:
            jobs.cancel(self.local, self._job_id)
        delete_topics(self.local.bootstrap, prefix=self._prefix)

    def close(self) -> None:
        """End the stack, when this rig started it."""
        if self._own:
            stack.stop(self._config.home)

    def restarts(self) -> int:
        """How often the job failed and was started again."""
        return jobs.restarts(self.local, self._job_id)

    def pids(self) -> dict[str, int]:
        """The processes whose CPU time counts."""
        found = {p["name"]: int(p["pid"]) for p in self.local.processes()}
        assert self._driver is not None
        return {**found, "driver": self._driver.pid, "reader": os.getpid()}

    def run(self, phase: Phase) -> Run:
        """Send a phase and read until everything of it is decided."""
        driver, reader = self._driver, self._reader
        assert driver is not None
        assert reader is not None
        reader.forget()
        sent_before, decisions_before = driver.sent, reader.decisions
        cpu = CpuClock(self.pids(), alone=("reader",))
        samples: list[Sample] = []
        driver.begin(phase)
        began = sampled = moved = time.monotonic()
        sending, last = True, 0
        while sending or last < driver.sent:
            reader.poll(0.02)
            decided = reader.decisions + reader.dead
            driver.tell_decided(decided)
            now = time.monotonic()
            if decided > last:
                last, moved = decided, now
            elif now - moved > STALL_S and not sending:
                break
            if sending and now - sampled > 0.2:
                samples.append((now - began, driver.sent, decided))
                sampled = now
            sending = sending and not driver.is_done()
        sent = driver.sent - sent_before
        return Run(
            phase=phase,
            sent=sent,
            missing=sent - (reader.decisions - decisions_before),
            samples=samples,
            latencies_ms=reader.latencies(),
            cpu_s=cpu.seconds(),
        )

    def settings(self) -> dict[str, Any]:
        """What a reader of the figures has to know."""
        return {
            "nodes": self.job.nodes,
            "shards": self.job.shards,
            "checkpoint_ms": self.job.checkpoint_ms,
            "labels": self._config.labels,
            "trees": TREES,
            "versions": self.local.versions,
        }
