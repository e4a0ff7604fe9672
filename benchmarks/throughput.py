"""The most events a second that the job keeps up with, and what each of them costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from benchmarks.driver import Phase
from benchmarks.rig import Rig, Run

#: Growth of the lag that is none: this share of the rate.
STEADY_SHARE = 0.005
#: Part of the rate of a full drain that is tried first, and how often one is tried.
FIRST_SHARE, TRIES = 0.95, 4
#: What is tried next, as a part of what was decided at the rate that was too much.
NEXT_SHARE = 0.92

Form = Literal["frames", "json"]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """How long the parts of a run take, in seconds.

    Attributes:
        warm: before anything is measured.
        drain: sending as fast as decisions come, to find the rate to try.
        hold: a rate that is kept up.
        settle: at each rate, before anything is timed.
        latency: at each rate; a minute holds one checkpoint, as all others do.
    """

    warm: float = 45.0
    drain: float = 10.0
    hold: float = 60.0
    settle: float = 15.0
    latency: float = 60.0


def is_steady(run: Run) -> bool:
    """Whether the job kept up to the end: no growing lag, nothing missing."""
    whole = run.sent >= 0.99 * run.phase.rate * run.phase.seconds
    steady = run.slope <= STEADY_SHARE * run.phase.rate
    return whole and steady and run.missing == 0


def warm_up(rig: Rig, times: Times, form: Form, say: Say) -> Run:
    """Send as fast as decisions come back; the figures of it are not shown."""
    run = rig.run(Phase(seconds=times.warm, form=form))
    say(f"{form}: warm-up of {times.warm:.0f} s, {run.events_per_s:,.0f} events/s")
    return run


def sustained(rig: Rig, times: Times, form: Form, say: Say) -> dict[str, Any]:
    """The highest rate tried at which the lag did not grow for the whole hold.

    The rate of a drain is what the job does when there is always more to do; parts of
    it are held, open loop, until one is kept up.
    """
    drained = rig.run(Phase(seconds=times.drain, form=form))
    tried: list[dict[str, float]] = []
    missing = drained.missing
    rate = FIRST_SHARE * drained.events_per_s
    for _ in range(TRIES):
        run = rig.run(Phase(seconds=times.hold, rate=rate, form=form))
        missing += run.missing
        held = is_steady(run)
        tried.append(
            {
                "rate": round(rate),
                "decided_per_s": round(run.events_per_s),
                "lag_slope_per_s": round(run.slope, 1),
            }
        )
        say(
            f"{form}: {rate:,.0f} events/s for {times.hold:.0f} s: decided "
            f"{run.events_per_s:,.0f}/s, lag grew by {run.slope:,.0f}/s, "
            f"{'held' if held else 'not held'}"
        )
        if held:
            break
        rate = NEXT_SHARE * min(rate, run.events_per_s)
    by_process = run.cpu_us_per_event()
    return {
        "events_per_s": round(run.events_per_s) if held else 0,
        "held_s": times.hold,
        "drained_events_per_s": round(drained.events_per_s),
        "tried": tried,
        "missing": missing,
        "latency_ms": run.latency_ms(),
        "cpu_s_per_event": round(sum(by_process.values()) / 1e6, 9),
        "cpu_us_per_event": by_process,
    }
