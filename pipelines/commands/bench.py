"""`sluice bench`: events per second, latency and cost on this machine."""

from __future__ import annotations

import argparse
import importlib
import json

from pipelines.commands.progress import say

HELP = "measure throughput, latency and cost beside loops written by hand"
EXAMPLE = "sluice bench --json --quick"
PARTS = ("throughput", "json", "latency", "loops", "state")
#: Settings of the score job that a run may change.
_SETTINGS = ("nodes", "shards", "checkpoint_ms")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice bench`."""
    parser.add_argument(
        "--quick", action="store_true", help="about 4 minutes, on a cold machine"
    )
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="one part; may be repeated"
    )
    parser.add_argument(
        "--no-labels", action="store_true", help="leave out the shares of frauds"
    )
    parser.add_argument(
        "--encode",
        action="store_true",
        help="the encode job instead: text, image and audio beside a bare loop",
    )
    parser.add_argument(
        "--batch-rows", type=int, default=16, help="of the encode job (default: 16)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=0.0,
        help="with --encode: run on for so long and tell how memory grows",
    )
    for name in _SETTINGS:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, help=f"of the score job: {name}")


def run(args: argparse.Namespace) -> int:
    """Measure and print; exit code 1 when decisions are missing."""
    if args.encode:
        return _run_encode(args)
    # not a room of the program: it may be absent, and it loads what others must not
    suite = importlib.import_module("benchmarks.suite")
    report = importlib.import_module("benchmarks.report")
    given = {name: getattr(args, name) for name in _SETTINGS}
    config = suite.SuiteConfig(
        home=args.home / "bench",
        parts=tuple(args.only or PARTS),
        quick=args.quick,
        job={name: value for name, value in given.items() if value is not None},
        labels=not args.no_labels,
    )
    found = suite.measure(config, say)
    print(json.dumps(found) if args.json else report.table(found))
    return 1 if found["missing"] else 0


def _run_encode(args: argparse.Namespace) -> int:
    encode = importlib.import_module("benchmarks.encode")
    report = importlib.import_module("benchmarks.encode_report")
    given = {"seconds": 6.0} if args.quick else {}
    config = encode.EncodeBenchConfig(
        home=args.home / "bench",
        batch_rows=args.batch_rows,
        minutes=args.minutes,
        **given,
    )
    found = encode.measure(config, say)
    print(json.dumps(found) if args.json else report.table(found))
    return 1 if found["missing"] else 0
