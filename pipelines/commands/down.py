"""`sluice down`: end the local broker and cluster and everything the keeper holds."""

from __future__ import annotations

import argparse
import json
import sys

from pipelines import stack

HELP = "end the local broker, the cluster and its jobs; topics stay on disk"
EXAMPLE = "sluice down"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`sluice down` has no options of its own."""


def run(args: argparse.Namespace) -> int:
    """End the stack of `args.home`; nothing running is no error."""
    try:
        ran = stack.stop(args.home)
    except stack.StackError as error:
        print(f"sluice down: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({"home": str(args.home), "was_running": ran}))
    else:
        print("down" if ran else f"nothing runs in {args.home}")
    return 0
