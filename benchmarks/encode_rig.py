"""A running encode job on two nodes, fed with events and timed by what it writes."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.cpu import CpuClock, ThreadClock, busy_s
from benchmarks.media import media_model
from benchmarks.raw_encode import Fill, Filler
from benchmarks.reader import assigned, frame_columns
from connectors.kafka import create_topics, delete_topics
from connectors.records import MEDIA
from pipelines import jobs, stack
from pipelines.config import JobConfig

NODES = 2
STALL_S = 60.0
#: Threads of a TaskManager by what they are for.
STAGES = {
    "Source: media": "read",
    "Source Data Fet": "read",
    "Calc": "read",
    "encode": "encode",
    "sluice_out": "write",
    "kafka-producer": "write",
}

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeBenchConfig:
    """What to measure.

    Attributes:
        home: folder of the stack and the model.
        modalities: one after the other.
        batch_rows: of the job, which takes up to `CALL_BATCHES` times as many in a
            call; the bare loop takes these.
        frame_rows: events of a Kafka value.
        seconds: of work in each run.
        minutes: how long the job runs on while its memory is looked at.
        model_folder: of the encoders; without it, the usual ones.
    """

    home: Path
    modalities: tuple[str, ...] = MEDIA
    batch_rows: int = 16
    frame_rows: int = 256
    seconds: float = 10.0
    minutes: float = 0.0
    model_folder: Path | None = None


class EncodeRig:
    """A running encode job on two nodes, and a reader of what it writes."""

    def __init__(self, config: EncodeBenchConfig, say: Say) -> None:
        self._own = stack.find(config.home) is None
        self.config = config
        self.folder = config.model_folder or media_model(config.home)
        self.local = stack.start(
            config.home, nodes=NODES, owner_pid=os.getpid(), say=say
        )
        self.prefix = f"encode-{uuid.uuid4().hex[:8]}."
        self.sent: dict[str, int] = {modality: 0 for modality in MEDIA}
        self._job_id = ""

    def __enter__(self) -> Self:
        create_topics(self.local.bootstrap, prefix=self.prefix)
        job = JobConfig(
            bootstrap=self.local.bootstrap,
            model_folder=str(self.folder),
            prefix=self.prefix,
            nodes=NODES,
            batch_rows=self.config.batch_rows,
        )
        self._job_id = jobs.submit(self.local, ["encode"], job)["encode"]
        topics = [self.prefix + "embeddings", self.prefix + "dead-letters"]
        # one that asked more often would be the broker's work, not the job's
        patient = {"fetch.wait.max.ms": 200, "fetch.min.bytes": 2**20}
        self._reader = assigned(self.local.bootstrap, topics, **patient)
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()
        jobs.cancel(self.local, self._job_id)
        delete_topics(self.local.bootstrap, prefix=self.prefix)
        if self._own:
            stack.stop(self.config.home)

    def pids(self) -> dict[str, int]:
        """The broker and the nodes."""
        found = {p["name"]: int(p["pid"]) for p in self.local.processes()}
        return {n: p for n, p in found.items() if n == "broker" or n.startswith("tm-")}

    def node_pids(self) -> dict[str, int]:
        """The TaskManagers."""
        return {n: pid for n, pid in self.pids().items() if n.startswith("tm-")}

    def run(
        self, modality: str, count: int, *, payloads: int | None = None
    ) -> dict[str, Any]:
        """Put events in the job's topic, and take and time what it makes of them."""
        rows = self.config.frame_rows
        count = -(-count // rows) * rows
        told = Fill(
            bootstrap=self.local.bootstrap,
            topic=f"{self.prefix}events.{modality}",
            modality=modality,
            first=self.sent[modality],
            count=count,
            rows=rows,
            payloads=payloads,
        )
        self.sent[modality] += count
        filler = Filler(told)
        filler.go()
        found = self._read(count)
        filler.join()
        return found

    def restarts(self) -> int:
        """How often the job failed and was started again."""
        return jobs.restarts(self.local, self._job_id)

    def counted(self, name: str) -> int:
        """The sum of a counter of the encode operator over the nodes."""
        return jobs.counter(self.local, self._job_id, "encode", name)

    def _read(self, count: int) -> dict[str, Any]:
        """Take what the job makes of so many events, timed in their middle.

        The first tenth and the last are left out: nodes begin and end apart.
        """
        samples, got, dead = [], 0, 0
        moved = time.monotonic()
        clocks: list[Any] = []
        ends: list[Any] = []
        while got < count and time.monotonic() - moved < STALL_S:
            for message in [m for m in self._reader.consume(50, 0.05) if not m.error()]:
                rows = frame_columns(message.value()).num_rows
                dead += rows if message.topic().endswith("dead-letters") else 0
                got, moved = got + rows, time.monotonic()
            samples.append((time.monotonic(), got))
            if not clocks and got >= 0.1 * count:
                clocks = [
                    CpuClock({**self.pids(), "bench": os.getpid()}),
                    ThreadClock([*self.node_pids().values()], STAGES),
                    samples[-1],
                    busy_s(),
                ]
            if not ends and got >= 0.9 * count:
                cpu, threads = clocks[0].seconds(), clocks[1].seconds()
                ends = [cpu, threads, samples[-1], busy_s()]
        if not ends or ends[2][1] == clocks[2][1]:
            lost = {"events_per_s": 0.0, "other_cores": 0.0, "cpu_us_per_event": {}}
            return {
                "events": count,
                "missing": count - got,
                "dead": dead,
                **lost,
            }
        (began_s, before), (ended_s, after) = clocks[2], ends[2]
        events = after - before
        stages = {f"{n}_us": round(1e6 * s / events, 1) for n, s in ends[1].items()}
        stages["decode_us"] = stages.pop("children_us")
        broker_us = 1e6 * ends[0]["broker"] / events
        others = (ends[3] - clocks[3] - sum(ends[0].values())) / (ended_s - began_s)
        return {
            "events": count,
            "missing": count - got,
            "dead": dead,
            "events_per_s": round(events / (ended_s - began_s), 1),
            "other_cores": round(max(0.0, others), 2),
            "cpu_us_per_event": {**stages, "broker_us": round(broker_us, 1)},
        }
