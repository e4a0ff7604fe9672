"""What the job is compared with, on the same machine, broker and payments."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.bare import BareConfig, bare_loop
from benchmarks.cpu import CpuClock
from benchmarks.driver import MOST_ROWS
from benchmarks.loops import (
    LoopJob,
    alone,
    confluent_loop,
    fill,
    kafka_alone,
    kafka_python_loop,
)
from connectors.kafka import create_topics, delete_topics
from connectors.records import MODALITIES
from connectors.schemas import DECISIONS, frame_of
from pipelines.stack import Stack

#: Said of the loops wherever their figures are shown.
NO_RECOVERY = "loops b and c have no recovery: what they know is lost with them"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSizes:
    """How much the loops are given.

    Attributes:
        events: JSON events in the topic of (b) and (c).
        frame_events: events in frames, for Kafka alone.
        seconds: each loop ends after so long.
    """

    events: int = 400_000
    frame_events: int = 2_000_000
    seconds: float = 15.0


def decisions_value(rows: int) -> bytes:
    """A frame of decisions of the usual size, as the job writes it."""
    texts = [f"t{i:09d}" for i in range(rows)]
    numbers = np.arange(rows)
    return frame_of(
        DECISIONS,
        {
            "decision_id": [f"{i:032x}" for i in range(rows)],
            "case_id": texts,
            "revision": numbers,
            "event_id": texts,
            "modality": ["tabular"] * rows,
            "score": numbers / rows,
            "alert": numbers < 0,
            "threshold": np.full(rows, 0.5),
            "model_name": ["payments"] * rows,
            "model_version": np.ones(rows, np.int64),
            "modalities": pa.array([["tabular"]] * rows),
            **{f"gate_{modality}": np.zeros(rows) for modality in MODALITIES},
            "evidence": pa.array([[]] * rows, pa.list_(pa.float32())),
            "reasons": ["[]"] * rows,
            "event_time": numbers,
            "created_ms": numbers,
            "decided_at": numbers,
        },
    )


def loops_beside(
    local: Stack, model_folder: Path, sizes: LoopSizes, *, labels: bool, say: Say
) -> dict[str, Any]:
    """Loops (b), (c) and Kafka alone against a broker, and loop (a) beside them."""
    found: dict[str, Any] = {}
    prefix = f"loops-{uuid.uuid4().hex[:8]}."
    create_topics(local.bootstrap, prefix=prefix, partitions={"labels": 1})
    job = LoopJob(
        bootstrap=local.bootstrap,
        events=prefix + "events.tabular",
        labels=prefix + "labels",
        out=prefix + "decisions",
        model_folder=model_folder,
        seconds=sizes.seconds,
        has_label_features=labels,
    )
    try:
        say(f"loops: putting {sizes.events:,} JSON events in a topic")
        alone(fill, job, sizes.events)
        for name, loop in (("b", confluent_loop), ("c", kafka_python_loop)):
            found[name] = {**alone(loop, job), "recovery": False}
            say(f"loop {name}: {found[name]['events_per_s']:,} events/s")
    finally:
        delete_topics(local.bootstrap, prefix=prefix)
    found["kafka_alone"] = _kafka_alone(local, job, sizes)
    say(f"Kafka alone: {found['kafka_alone']['cpu_us_per_event']} us of CPU an event")
    config = BareConfig(model_folder=model_folder, seconds=sizes.seconds)
    found["a"] = alone(bare_loop, config)
    say(f"loop a: {found['a']['events_per_s']:,} events/s")
    return {**found, "note": NO_RECOVERY}


def _kafka_alone(local: Stack, job: LoopJob, sizes: LoopSizes) -> dict[str, Any]:
    prefix = f"raw-{uuid.uuid4().hex[:8]}."
    create_topics(local.bootstrap, prefix=prefix)
    raw = LoopJob(
        bootstrap=job.bootstrap,
        events=prefix + "events.tabular",
        labels=prefix + "labels",
        out=prefix + "decisions",
        model_folder=job.model_folder,
        seconds=sizes.seconds,
        has_label_features=False,
    )
    try:
        alone(fill, raw, sizes.frame_events, MOST_ROWS)
        pids = {p["name"]: int(p["pid"]) for p in local.processes()}
        broker = CpuClock({"broker": pids["broker"]})
        found = alone(kafka_alone, raw, decisions_value(MOST_ROWS), MOST_ROWS)
        used = {"client": found["client_cpu_s"], "broker": broker.seconds()["broker"]}
    finally:
        delete_topics(local.bootstrap, prefix=prefix)
    events = found["events"]
    shares = {f"{name}_us": round(1e6 * s / events, 3) for name, s in used.items()}
    total = round(1e6 * sum(used.values()) / events, 3)
    return {"events": events, "cpu_us_per_event": total, **shares}


def bound(loops: dict[str, Any], cores: int = 2) -> float:
    """R*: events per second if the cores did features, trees and Kafka alone.

    Kafka in and out is one frame of events read and one frame of decisions written, as
    much of it as the broker and one client take; driver and reader do not count.
    """
    each = loops["a"]["cpu_us_per_event"] + loops["kafka_alone"]["cpu_us_per_event"]
    return float(cores * 1e6 / each)
