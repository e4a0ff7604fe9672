"""The encode job through Kafka and Flink beside the same work in a bare loop."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from automl.manifest import load_manifest
from benchmarks.cpu import cpu_model
from benchmarks.encode_memory import growth, planned, resident_mb
from benchmarks.encode_rig import NODES, EncodeBenchConfig, EncodeRig, Say
from benchmarks.raw_encode import RawForward, RawKafka, raw_kafka
from pipelines.operators.payload_vectors import CALL_BATCHES

CORES = 2
#: Flink gathers what operators count at most so often.
METRICS_S = 12.0
#: Runs as long as a measured one before it: the JVM still compiles in the first.
WARM_UP = 3
#: Runs that are measured, each between bare loops: cores speed up and slow down by a
#: tenth within seconds. The one with the median share is told.
ROUNDS = 5
#: Payloads that the events share which show the cache.
DISTINCT = 256


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
    with RawForward(rig.folder, modality, CORES) as bare:

        def alone() -> dict[str, Any]:
            half_s, rows = config.seconds / 2, config.batch_rows
            in_calls = bare.run(half_s, CALL_BATCHES * rows)
            return {**bare.run(half_s, rows), "in_calls": in_calls}

        guess = bare.run(config.seconds, config.batch_rows)["events_per_s"]
        count = int(guess * CORES * config.seconds)
        say(f"{modality}: {guess:,.0f} events/s on a core alone")
        rig.run(modality, WARM_UP * count)
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
        rounds, before = [], alone()
        for _ in range(ROUNDS):
            job = rig.run(modality, count)
            after = alone()
            told = share_of_bound(job, before, after, kafka)
            calls = before["in_calls"], after["in_calls"]
            in_calls = share_of_bound(job, *calls, kafka)["share_of_bound"]
            rounds.append({**job, **told, "share_in_calls": in_calls})
            say(f"{modality}: {rounds[-1]['share_of_bound']} of the bound")
            before = after
    return median_of(rounds)


def median_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median share of its bound, and the shares of all in turn.

    Events that are missing or were refused are those of all runs.
    """
    ordered = sorted(rounds, key=lambda run: float(run["share_of_bound"]))
    lost = {name: sum(run[name] for run in rounds) for name in ("missing", "dead")}
    in_calls = [run["share_in_calls"] for run in rounds]
    return {
        **ordered[len(rounds) // 2],
        **lost,
        "shares": [run["share_of_bound"] for run in rounds],
        "share_in_calls": statistics.median(in_calls),
        "shares_in_calls": in_calls,
    }


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
    plan = planned(rig.folder, NODES, CALL_BATCHES * rig.config.batch_rows)
    return {"nodes": nodes, "resident_mb": _sum_mb(nodes), **plan}


def _sum_mb(nodes: dict[str, dict[str, int]]) -> int:
    return sum(one["node_mb"] + one["decode_mb"] for one in nodes.values())


def _growth(rig: EncodeRig, say: Say) -> dict[str, Any]:
    def sample_mb() -> int:
        return _sum_mb({n: resident_mb(pid) for n, pid in rig.node_pids().items()})

    def work() -> int:
        return sum(rig.run(m, 1024)["missing"] for m in rig.config.modalities)

    return growth(sample_mb, work, rig.config.minutes, say)
