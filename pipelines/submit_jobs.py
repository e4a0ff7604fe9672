"""The script that `flink run` executes: builds and submits the jobs it is told to.

It waits for the file of settings, so that it can be started before they are known.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from pipelines import encode_job, score_job, warm_up
from pipelines.config import JobConfig
from pipelines.jobs import READY

BUILD = {"encode": encode_job.build, "score": score_job.build}


def await_file(path: Path) -> None:
    """Wait until `path` is there; ends this process when its parent ends."""
    parent = os.getppid()
    while not path.is_file():
        if os.getppid() != parent:
            raise SystemExit(1)
        time.sleep(0.05)


def main() -> None:
    """Submit the jobs named on the command line, with one settings file for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--warm-nodes", type=int, default=0)
    parser.add_argument("jobs", nargs="+", choices=BUILD)
    args = parser.parse_args()
    if args.warm_nodes:
        warm_up.submit(args.warm_nodes)
    print(READY, flush=True)
    await_file(args.config)
    config = JobConfig.read(args.config)
    for name in args.jobs:
        print(f"submitted {name} {BUILD[name](config)}", flush=True)


if __name__ == "__main__":
    main()
