"""Everything that is measured in one run, and the one object that it gives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.beside import LoopSizes, bound, loops_beside
from benchmarks.cpu import cpu_model
from benchmarks.driver import MOST_ROWS
from benchmarks.latency import RUNS, latency
from benchmarks.loops import alone
from benchmarks.rig import Rig, RigConfig
from benchmarks.state import SIZES, growth, state_of
from benchmarks.throughput import Times, sustained, warm_up
from pipelines.commands.bench import PARTS

#: The short form: it shows that everything runs, its figures are of a cold machine.
QUICK = Times(warm=8.0, drain=3.0, hold=6.0, settle=2.0, latency=4.0)
QUICK_LOOPS = LoopSizes(events=100_000, frame_events=500_000, seconds=5.0)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteConfig:
    """What to measure.

    Attributes:
        home: folder of the stack and the model.
        parts: of `PARTS`.
        quick: a short run of everything.
        job: settings of the score job other than the usual ones.
        labels: the task has shares of frauds, and labels are sent.
    """

    home: Path
    parts: tuple[str, ...] = PARTS
    quick: bool = False
    job: dict[str, Any] = field(default_factory=dict)
    labels: bool = True


def measure(config: SuiteConfig, say: Say) -> dict[str, Any]:
    """The figures of the parts asked for; starts a stack in `home` and ends it."""
    began = time.monotonic()
    times = QUICK if config.quick else Times()
    found: dict[str, Any] = {"cpu": cpu_model(), "cores": os.cpu_count()}
    if set(config.parts) - {"state"}:
        archive_rows = 40_000 if config.quick else 200_000
        rig = Rig(
            RigConfig(
                home=config.home,
                job=config.job,
                labels=config.labels,
                archive_rows=archive_rows,
            ),
            say,
        )
        try:
            _on_rig(rig, config, times, found, say)
        finally:
            rig.close()
        found["settings"] = {
            **rig.settings(),
            "warm_s": times.warm,
            "hold_s": times.hold,
            "latency_s": times.latency,
            "frame_rows": MOST_ROWS,
            "quick": config.quick,
        }
    if "state" in config.parts:
        found["state"] = _state(config.quick, say)
    found["missing"] = sum(missing_in(found))
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def _on_rig(
    rig: Rig, config: SuiteConfig, times: Times, found: dict[str, Any], say: Say
) -> None:
    parts = set(config.parts)
    if parts & {"throughput", "json", "latency"}:
        with rig:
            if parts & {"throughput", "latency"}:
                warm_up(rig, times, "frames", say)
            if "latency" in parts:
                found["latency_ms"] = {
                    name: latency(rig, times, rate, hot=hot, say=say)
                    for name, (rate, hot) in RUNS.items()
                }
            if "throughput" in parts:
                found["frames"] = sustained(rig, times, "frames", say)
                found["frames_events_per_s"] = found["frames"]["events_per_s"]
                found["cpu_s_per_event"] = found["frames"]["cpu_s_per_event"]
            if "json" in parts:
                warm_up(rig, times, "json", say)
                found["json"] = sustained(rig, times, "json", say)
                found["json_events_per_s"] = found["json"]["events_per_s"]
            found["job_restarts"] = rig.restarts()
    if "loops" in parts:
        sizes = QUICK_LOOPS if config.quick else LoopSizes()
        loops = loops_beside(
            rig.local, rig.folder, sizes, labels=config.labels, say=say
        )
        found["loops"] = loops
        found["loop_events_per_s"] = loops["b"]["events_per_s"]
        found["bound_events_per_s"] = round(bound(loops))
        found |= ratios(found)


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """Frames against the bound, JSON against loop (b); of what was measured."""
    out = {}
    if "frames_events_per_s" in found:
        share = found["frames_events_per_s"] / found["bound_events_per_s"]
        out["share_of_bound"] = round(share, 3)
    if "json_events_per_s" in found:
        share = found["json_events_per_s"] / found["loop_events_per_s"]
        out["json_share_of_loop"] = round(share, 3)
    return out


def missing_in(found: dict[str, Any]) -> list[int]:
    """Events without a decision, of every phase."""
    runs = [
        found.get("frames"),
        found.get("json"),
        *found.get("latency_ms", {}).values(),
    ]
    return [int(run["missing"]) for run in runs if run]


def _state(quick: bool, say: Say) -> dict[str, Any]:
    sizes = SIZES[:1] if quick else SIZES
    found: dict[str, Any] = {}
    for entities, rows in sizes:
        found[str(entities)] = alone(state_of, "customer", entities, rows)
        say(f"state: {found[str(entities)]['bytes_per_row']} bytes a row, {entities:,}")
    found["growth"] = alone(growth, 800_000 if quick else 5_000_000)
    say(f"state: rows grew by {found['growth'].get('rows_growth', 0):.1%} once full")
    return found
