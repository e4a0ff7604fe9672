"""The encode job through Kafka and Flink beside the same work in a bare loop."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from automl.manifest import load_manifest
from benchmarks.cpu import CpuClock, ThreadClock, busy_s, cpu_model
from benchmarks.encode_memory import growth, planned, resident_mb
from benchmarks.media import media_model
from benchmarks.raw_encode import (
    Fill,
    Filler,
    RawKafka,
    RawLoop,
    raw_forward,
    raw_kafka,
)
from benchmarks.reader import assigned, frame_columns
from connectors.kafka import create_topics, delete_topics
from connectors.records import MEDIA
from pipelines import jobs, stack
from pipelines.config import JobConfig

NODES = CORES = 2
STALL_S = 60.0
#: Flink gathers what operators count at most so often.
METRICS_S = 12.0
#: Runs as long as the measured one before it: the JVM still compiles in the first.
WARM_UP = 2
#: Payloads that the events share which show the cache.
DISTINCT = 256
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
        batch_rows: payloads encoded in one call, by the job and by the bare loop.
        frame_rows: events of a Kafka value.
        seconds: of work in each run.
        minutes: how long the job runs on while its memory is looked at.
        model_folder: of the encoders; without it, the usual ones.
    """

    home: Path
    modalities: tuple[str, ...] = MEDIA
    batch_rows: int = 16
    frame_rows: int = 256
    seconds: float = 20.0
    minutes: float = 0.0
    model_folder: Path | None = None


class EncodeRig:
    """A running encode job on two nodes, and a reader of what it writes."""

    def __init__(self, config: EncodeBenchConfig, say: Say) -> None:
        self._own = stack.find(config.home) is None
        self.config, self._say = config, say
        self.folder = config.model_folder or media_model(config.home)
        self.local = stack.start(
            config.home, nodes=NODES, owner_pid=os.getpid(), say=say
        )
        self.prefix = f"encode-{uuid.uuid4().hex[:8]}."
        self.sent: dict[str, int] = {modality: 0 for modality in MEDIA}
        self._dead, self._rows, self._job_id = 0, 0, ""

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
        samples, got = [], 0
        moved = time.monotonic()
        clocks: list[Any] = []
        ends: list[Any] = []
        while got < count and time.monotonic() - moved < STALL_S:
            for message in [m for m in self._reader.consume(50, 0.05) if not m.error()]:
                rows = frame_columns(message.value()).num_rows
                dead = message.topic().endswith("dead-letters")
                self._dead += rows if dead else 0
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
                "dead": self._dead,
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
            "dead": self._dead,
            "events_per_s": round(events / (ended_s - began_s), 1),
            "other_cores": round(max(0.0, others), 2),
            "cpu_us_per_event": {**stages, "broker_us": round(broker_us, 1)},
        }


def measure(config: EncodeBenchConfig, say: Say) -> dict[str, Any]:
    """The figures of every modality; starts a stack in `home` and ends it."""
    began = time.monotonic()
    found: dict[str, Any] = {"cpu": cpu_model(), "cores": os.cpu_count()}
    with EncodeRig(config, say) as rig:
        found["encode"] = {
            modality: _one(rig, modality, say) for modality in config.modalities
        }
        found["cache"] = _repeats(rig, config.modalities[0])
        found["memory"] = memory(rig)
        if config.minutes:
            found["growth"] = _growth(rig, say)
        found["job_restarts"] = rig.restarts()
    found["settings"] = {
        "nodes": NODES,
        "batch_rows": config.batch_rows,
        "frame_rows": config.frame_rows,
        "seconds": config.seconds,
    }
    runs = found["encode"].values()
    found["missing"] = sum(run["missing"] + run["dead"] for run in runs)
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def _one(rig: EncodeRig, modality: str, say: Say) -> dict[str, Any]:
    config = rig.config
    loop = RawLoop(
        model_folder=rig.folder,
        modality=modality,
        batch_rows=config.batch_rows,
        seconds=config.seconds / 4,
    )
    guess = 1e6 / sum(raw_forward(loop, CORES)[n] for n in ("decode_us", "encode_us"))
    say(f"{modality}: {guess:,.0f} events/s in a bare loop on each of {CORES} cores")
    rig.run(modality, int(guess * CORES * WARM_UP * config.seconds))
    before = raw_forward(loop, CORES)
    job = rig.run(modality, int(guess * CORES * config.seconds))
    after = raw_forward(loop, CORES)
    kafka = raw_kafka(
        RawKafka(
            bootstrap=rig.local.bootstrap,
            broker_pid=rig.pids()["broker"],
            prefix="raw." + rig.prefix,
            modality=modality,
            width=load_manifest(rig.folder).width,
            frames=200,
            rows=config.frame_rows,
        )
    )
    return {**job, **share_of_bound(job, before, after, kafka)}


def share_of_bound(
    job: dict[str, Any],
    before: dict[str, Any],
    after: dict[str, Any],
    kafka: dict[str, float],
) -> dict[str, Any]:
    """The job against both cores doing nothing but decoding, encoding and Kafka."""
    raw = (before["events_per_s"] + after["events_per_s"]) / 2
    kafka_s = kafka["us_per_event"] / 1e6
    bound = CORES / (1 / raw + kafka_s)
    used_us = sum(job["cpu_us_per_event"].values())
    raw_us = sum(before[n] + after[n] for n in ("decode_us", "encode_us")) / 2
    return {
        "raw_forward_per_s": round(raw, 1),
        "raw": [before, after],
        "raw_kafka": kafka,
        "bound_events_per_s": round(bound, 1),
        "share_of_bound": round(job["events_per_s"] / bound, 3),
        "share_of_bound_in_cpu": round((raw_us + 1e6 * kafka_s) / used_us, 3)
        if used_us
        else 0.0,
    }


def _repeats(rig: EncodeRig, modality: str) -> dict[str, Any]:
    """What the operator counted of events that share few payloads."""
    before = _settled(rig)
    run = rig.run(modality, 2048, payloads=DISTINCT)
    after = _settled(rig)
    seen, repeats = (after[name] - before[name] for name in ("payloads", "repeats"))
    return {
        "events": run["events"],
        "payloads": DISTINCT,
        "encoded": seen - repeats,
        "hit_rate": round(repeats / max(1, seen), 3),
        "missing": run["missing"],
    }


def _settled(rig: EncodeRig) -> dict[str, int]:
    """The counters, once Flink has gathered what was counted last."""
    for wait_s in (METRICS_S, METRICS_S, 0.0):  # asking is what makes Flink gather
        found = {name: rig.counted(name) for name in ("payloads", "repeats")}
        time.sleep(wait_s)
    return found


def memory(rig: EncodeRig) -> dict[str, Any]:
    """Resident megabytes of each node beside what was planned for all of them."""
    nodes = {name: resident_mb(pid) for name, pid in rig.node_pids().items()}
    plan = planned(rig.folder, NODES, rig.config.batch_rows)
    return {"nodes": nodes, "resident_mb": _sum_mb(nodes), **plan}


def _sum_mb(nodes: dict[str, dict[str, int]]) -> int:
    return sum(one["node_mb"] + one["decode_mb"] for one in nodes.values())


def _growth(rig: EncodeRig, say: Say) -> dict[str, Any]:
    def sample_mb() -> int:
        return _sum_mb({n: resident_mb(pid) for n, pid in rig.node_pids().items()})

    def work() -> int:
        return sum(rig.run(m, 1024)["missing"] for m in rig.config.modalities)

    return growth(sample_mb, work, rig.config.minutes, say)
