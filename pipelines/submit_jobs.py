"""The script that `flink run` executes: builds and submits the jobs it is told to."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines import encode_job, score_job
from pipelines.config import JobConfig

BUILD = {"encode": encode_job.build, "score": score_job.build}


def main() -> None:
    """Submit the jobs named on the command line, with one settings file for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("jobs", nargs="+", choices=BUILD)
    args = parser.parse_args()
    config = JobConfig.read(args.config)
    for name in args.jobs:
        print(f"submitted {name} {BUILD[name](config)}", flush=True)


if __name__ == "__main__":
    main()
