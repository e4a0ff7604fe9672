"""`sluice scale`: running jobs on another number of nodes, from a savepoint."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

HELP = "move the running encode and score jobs to N nodes, nothing lost or doubled"
EXAMPLE = "sluice scale 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice scale`."""
    parser.add_argument("nodes", type=int, metavar="N", help="TaskManagers of each job")


def run(args: argparse.Namespace) -> int:
    """Stop the jobs with savepoints and start them from there on N nodes."""
    from pipelines import stack
    from pipelines.commands.progress import say
    from pipelines.rescale import rescale

    if args.nodes < 1:
        print(f"sluice scale: {args.nodes} nodes: at least 1", file=sys.stderr)
        return 2
    local = stack.find(args.home)
    if local is None:
        msg = f"no stack runs in {args.home}; start one with: sluice up"
        raise stack.StackError(msg)
    moved = rescale(local, args.nodes, say=say)
    if args.json:
        print(json.dumps({"jobs": [dataclasses.asdict(one) for one in moved]}))
        return 0
    for one in moved:
        before = "stopped" if one.nodes_before is None else f"{one.nodes_before}"
        print(f"{one.name}: {before} -> {one.nodes} node(s), job {one.job_id}")
    return 0
