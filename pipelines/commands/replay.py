"""`sluice replay`: publish an archive to the topics of the running stack."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "publish an archive's events and labels to the topics, in time order"
EXAMPLE = "sluice replay archive/ --rate 200"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice replay`."""
    parser.add_argument("archive", type=Path, help="folder of Parquet files")
    parser.add_argument("--rate", type=float, metavar="R", help="events per second")


def run(args: argparse.Namespace) -> int:
    """Publish every event and label once and print the counts."""
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
    say(f"published {sent.total} events and {sent.labels} labels")
    for reason, count in sent.labels_left_out.items():
        say(f"left out {count} labels: {reason}")
    found = {
        **sent.events,
        "labels": sent.labels,
        "labels_left_out": sum(sent.labels_left_out.values()),
        "repeated": sent.repeated,
    }
    plain = f"{sent.total} events, {sent.labels} labels"
    print(json.dumps(found) if args.json else plain)
    return 0
