"""How long an event waits for its decision, at fixed rates that never yield.

An open-loop driver in a process of its own sends payments in frames at their due times,
whatever comes back; this process reads the decisions and takes the time from the moment
an event was due to the moment its decision was read. Broker, cluster, driver and reader
share the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cpu import cpu_model
from benchmarks.driver import Phase
from benchmarks.rig import Rig, RigConfig
from benchmarks.throughput import Times
from pipelines.commands.progress import say

#: Name in the output to rate and whether one customer makes a fifth of the events.
RUNS = {"1000": (1_000, False), "20000": (20_000, False), "20000_hot": (20_000, True)}

Say = Callable[[str], None]


def latency(
    rig: Rig, times: Times, rate: float, *, hot: bool = False, say: Say = say
) -> dict[str, Any]:
    """Percentiles at one rate, on a job that is warm already."""
    rig.run(Phase(seconds=times.settle, rate=rate, hot=hot))
    run = rig.run(Phase(seconds=times.latency, rate=rate, hot=hot))
    found = {**run.latency_ms(), "missing": run.missing}
    what = f"{rate:,.0f} events/s{', one customer makes 20 %' if hot else ''}"
    say(f"{what}: " + ", ".join(f"{n} {v} ms" for n, v in found.items() if n[0] != "m"))
    return found


def main() -> int:
    """Measure one rate and print; exit code 1 when decisions are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python -m benchmarks.latency --rate 500"
    )
    parser.add_argument("--home", type=Path, default=Path(".sluice/bench"))
    parser.add_argument("--rate", type=float, default=500.0, help="events per second")
    parser.add_argument("--warm", type=float, default=60.0, help="seconds not counted")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds counted")
    parser.add_argument("--hot", action="store_true", help="one customer makes 20 %%")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rig = Rig(RigConfig(home=args.home), say)
    try:
        with rig:
            rig.run(Phase(seconds=args.warm))
            times = Times(latency=args.seconds)
            found = latency(rig, times, args.rate, hot=args.hot)
            found |= {"job_restarts": rig.restarts(), "settings": rig.settings()}
    finally:
        rig.close()
    found |= {"rate": args.rate, "cpu": cpu_model(), "cores": os.cpu_count()}
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:14} {value}")
    return 1 if found["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
