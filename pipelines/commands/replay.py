"""`sluice replay`: publish an archive to the topics of the running stack."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "publish an archive to the topics, in event-time order"
EXAMPLE = "sluice replay archive/ --rate 200"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice replay`."""
    parser.add_argument("archive", type=Path, help="folder of Parquet files")
    parser.add_argument("--rate", type=float, metavar="R", help="events per second")


def run(args: argparse.Namespace) -> int:
    """Publish every row once and print the counts."""
    from connectors.kafka import create_topics
    from pipelines import stack
    from pipelines.commands.progress import say
    from pipelines.replay import replay

    local = stack.find(args.home)
    if local is None:
        msg = f"no stack runs in {args.home}; start one with: sluice up"
        raise stack.StackError(msg)
    create_topics(local.bootstrap)
    sent = replay(args.archive, local.bootstrap, rate=args.rate)
    say(f"published {sent.total} events")
    found = {**sent.events, "repeated": sent.repeated}
    print(json.dumps(found) if args.json else sent.total)
    return 0
