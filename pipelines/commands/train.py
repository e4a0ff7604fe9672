"""`sluice train`: an archive to a registered model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "fit a model on an archive, judge it on later cases and register it"
EXAMPLE = "sluice train past/ --task task.json --name fraud"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice train`."""
    parser.add_argument("archive", type=Path, help="folder of Parquet files")
    parser.add_argument("--task", type=Path, required=True, help="task file (JSON)")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument(
        "--from",
        dest="since",
        metavar="D",
        help="first day learnt from, 2026-01-31; windows reach back before it",
    )
    parser.add_argument("--until", metavar="D", help="day to stop before")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument(
        "--budget",
        type=float,
        default=720.0,
        metavar="S",
        help="most seconds for encoders and fusion together (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Train, register, and promote when it is the first version of its name."""
    from connectors.archive import read_archive
    from pipelines.commands.models import registry_of
    from pipelines.commands.progress import say
    from pipelines.train import TrainConfig, train

    registry = registry_of(args.home)
    config = TrainConfig(
        seed=args.seed,
        align_budget_s=args.budget * 5 / 6,
        fusion_budget_s=args.budget / 6,
    )
    version = train(
        read_archive(args.archive),
        args.task,
        args.name,
        registry,
        since=args.since,
        until=args.until,
        config=config,
        say=say,
        checkpoint=args.home / "training" / args.name,
    )
    if registry.champion(args.name) is None:
        registry.promote(args.name, version.version)
    if args.json:
        shown = {"name": version.name, "version": version.version}
        print(json.dumps({**shown, **version.manifest.metrics}))
    else:
        print(f"registered {version.name} v{version.version} in {version.folder}")
    return 0
