"""`sluice dead-letters`: what could not be used, where it was, and why."""

from __future__ import annotations

import argparse
import base64
import json
from typing import Any

HELP = "list the records that were set aside, with their place and the reason"
EXAMPLE = "sluice dead-letters --last 20"
SHOWN_BYTES = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice dead-letters`."""
    parser.add_argument(
        "--last", type=int, default=50, metavar="N", help="newest N (default: 50)"
    )
    parser.add_argument("--kind", help="only this kind: unreadable, limits, late, ...")
    parser.add_argument("--prefix", default="", help="topic prefix of a run")


def run(args: argparse.Namespace) -> int:
    """Read the dead-letter topic and print its newest records."""
    from connectors.codec import decode_frame
    from connectors.kafka import Reader
    from pipelines import stack

    local = stack.find(args.home)
    if local is None:
        msg = f"no stack runs in {args.home}; start one with: sluice up"
        raise stack.StackError(msg)
    letters: list[dict[str, Any]] = []
    with Reader(local.bootstrap, [f"{args.prefix}dead-letters"]) as reader:
        for value in reader.until_end():
            letters += decode_frame(value.value or b"").to_pylist()
    if args.kind:
        letters = [letter for letter in letters if letter["kind"] == args.kind]
    shown = letters[-args.last :]
    if args.json:
        for letter in shown:
            letter["value"] = base64.b64encode(letter["value"]).decode()
        print(json.dumps({"count": len(letters), "dead_letters": shown}))
        return 0
    for letter in shown:
        place = f"{letter['topic']}[{letter['partition']}]@{letter['offset']}"
        row = f"/{letter['row']}" if letter["row"] >= 0 else ""
        start = letter["value"][:SHOWN_BYTES]
        print(f"{place}{row}  {letter['kind']}: {letter['reason']}")
        print(f"    {len(letter['value'])} bytes: {start!r}")
    print(f"{len(shown)} of {len(letters)} dead letters")
    return 0
