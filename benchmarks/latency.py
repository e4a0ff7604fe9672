"""How long a tabular event waits for its decision, at a fixed rate that never yields.

An open-loop driver in a process of its own sends plain JSON events at their due times,
whatever comes back; this process reads the decisions and takes the time from an
event's creation to the moment its decision was read. Broker, cluster, driver and
reader share the machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from connectors.demo import DemoWorld
from connectors.kafka import Producer, create_topics, delete_topics
from pipelines import jobs, stack
from pipelines.account import Ledger
from pipelines.commands.progress import say
from pipelines.config import JobConfig
from pipelines.demo_run import fit_first_model
from pipelines.keeper import tie_to
from pipelines.operators.read import now_ms


def drive(
    parent_pid: int, bootstrap: str, topic: str, rate: float, seconds: float, seed: int
) -> None:
    """Send tabular events at their due times, late ones at once."""
    tie_to(parent_pid)
    count = int(rate * seconds)
    world = DemoWorld(seed)
    start_ms = now_ms() - int(1000 * 2000 / world.config.rate)
    cases = world.live(2000, start_ms, part=seed)
    rows = [e for e in (case.event("tabular") for case in cases) if e is not None]
    with Producer(bootstrap, linger_ms=5) as producer:  # Kafka 4's default
        began = time.monotonic()
        for i in range(count):
            time.sleep(max(0.0, began + i / rate - time.monotonic()))
            event = rows[i % len(rows)].to_json(now_ms())
            lap = i // len(rows)
            event["event_id"] += f"#{lap}"
            event["case_id"] += f"#{lap}"
            value = json.dumps(event).encode()
            producer.send(topic, value, key=event["case_id"])
        producer.flush()


def measure(
    home: Path, *, rate: float, warm_s: float, seconds: float, model: Path | None = None
) -> dict[str, Any]:
    """Figures of one run; starts a stack in `home` and ends it.

    Fits the demo's first model unless the folder of one is given.
    """
    own = stack.find(home) is None
    local = stack.start(home, nodes=1, owner_pid=os.getpid(), say=say)
    folder = model or fit_first_model(home, seed=0).folder
    prefix = f"bench-{uuid.uuid4().hex[:8]}."
    create_topics(local.bootstrap, prefix=prefix)
    config = JobConfig(
        bootstrap=local.bootstrap,
        model_folder=str(folder.resolve()),
        prefix=prefix,
    )
    ledger = Ledger(local.bootstrap, prefix=prefix)
    job_id = jobs.submit(local, ["score"], config)["score"]
    try:
        topic = f"{prefix}events.tabular"
        context = multiprocessing.get_context("spawn")
        driver = context.Process(
            target=drive,
            args=(os.getpid(), local.bootstrap, topic, rate, warm_s + seconds, 1),
        )
        driver.start()
        latencies = _read(ledger, rate, warm_s, int(rate * (warm_s + seconds)))
        driver.join()
        restarts = jobs.restarts(local, job_id)
    finally:
        ledger.close()
        jobs.cancel(local, job_id)
        delete_topics(local.bootstrap, prefix=prefix)
        if own:
            stack.stop(home)
    p50, p95, p99, p999 = np.percentile(latencies, [50, 95, 99, 99.9])
    return {
        "rate": rate,
        "seconds": seconds,
        "decisions": len(latencies),
        "missing": int(rate * seconds) - len(latencies),
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "p99_ms": round(float(p99), 1),
        "p999_ms": round(float(p999), 1),
        "max_ms": round(float(np.max(latencies)), 1),
        "job_restarts": restarts,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "settings": {
            "warm_s": warm_s,
            "nodes": config.nodes,
            "shards": config.shards,
            "checkpoint_ms": config.checkpoint_ms,
            "events": "one JSON object a value",
            "versions": local.versions,
        },
    }


def _read(ledger: Ledger, rate: float, warm_s: float, total: int) -> list[float]:
    """Milliseconds from creation to reading, of events sent after the warm-up."""
    gc.disable()  # what the reader keeps only grows; its pauses are none of the jobs'
    warm = int(rate * warm_s)
    found: list[tuple[int, float]] = []
    last = time.monotonic()
    while len(found) < total and time.monotonic() - last < 30:
        decisions, _ = ledger.poll(timeout_ms=20)
        at = now_ms()
        for row in decisions:
            found.append((row["created_ms"], at - row["created_ms"]))
            last = time.monotonic()
    found.sort()
    return [latency for _, latency in found[warm:]]


def cpu_model() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def main() -> int:
    """Measure and print; exit code 1 when decisions are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python -m benchmarks.latency --rate 500"
    )
    parser.add_argument("--home", type=Path, default=Path(".sluice/bench"))
    parser.add_argument("--rate", type=float, default=500.0, help="events per second")
    parser.add_argument("--warm", type=float, default=60.0, help="seconds not counted")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds counted")
    parser.add_argument("--model", type=Path, help="folder of a model fitted before")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(
        args.home,
        rate=args.rate,
        warm_s=args.warm,
        seconds=args.seconds,
        model=args.model,
    )
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:14} {value}")
    return 1 if found["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
