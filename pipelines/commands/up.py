"""`sluice up`: start the local broker and cluster, or say that they run."""

from __future__ import annotations

import argparse
import json
import sys

from connectors.kafka import BrokerError, create_topics
from pipelines import jars, stack

HELP = "start the local broker and Flink cluster and wait until they are ready"
EXAMPLE = "sluice up --nodes 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice up`."""
    parser.add_argument(
        "--nodes",
        type=int,
        default=2,
        metavar="N",
        help="TaskManagers of one slot each (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Start or reuse the stack of `args.home`; returns the exit code."""
    if args.nodes < 1:
        print(f"sluice up: --nodes {args.nodes}: at least 1", file=sys.stderr)
        return 2
    try:
        live = stack.start(args.home, nodes=args.nodes, say=_say)
        create_topics(live.bootstrap)
    except (stack.StackError, jars.JarsError, BrokerError) as error:
        print(f"sluice up: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({**stack.status(live.home), "reused": live.reused}))
    else:
        word = "already up" if live.reused else "up"
        print(f"{word}: broker {live.bootstrap}, Flink {live.flink_url}")
        print(f"{live.nodes} node(s); logs in {live.home / 'logs'}; end: sluice down")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
