"""The script that `flink run` executes: builds and submits the jobs it is told to.

It waits for the file of settings, so that it can be started before they are known.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from pipelines.config import JobConfig
from pipelines.jobs import JOBS, READY

#: Who started this; asked at once, for what builds jobs takes seconds to load.
PARENT_PID = os.getppid()


def await_file(path: Path) -> None:
    """Wait until `path` is there; ends this process when its parent has ended."""
    while not path.is_file():
        if os.getppid() != PARENT_PID:
            raise SystemExit(1)
        time.sleep(0.05)


def main() -> None:
    """Submit the jobs named on the command line, with one settings file for all."""
    from pipelines import encode_job, score_job, warm_up

    build = {"encode": encode_job.build, "score": score_job.build}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--warm-nodes", type=int, default=0)
    parser.add_argument("jobs", nargs="+", choices=JOBS)
    args = parser.parse_args()
    if args.warm_nodes:
        warm_up.submit(args.warm_nodes)
    print(READY, flush=True)
    await_file(args.config)
    config = JobConfig.read(args.config)
    for name in args.jobs:
        print(f"submitted {name} {build[name](config)}", flush=True)


if __name__ == "__main__":
    main()
