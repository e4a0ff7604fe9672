"""`sluice status`: what of the local stack runs, where, and how large it is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pipelines import stack

HELP = "show what runs: endpoints, nodes, jobs, processes with memory and restarts"
EXAMPLE = "sluice status --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`sluice status` has no options of its own."""


def run(args: argparse.Namespace) -> int:
    """Print the state of the stack of `args.home`; 1 when nothing runs there."""
    seen = stack.status(args.home)
    if args.json:
        print(json.dumps(seen))
    elif seen["running"]:
        print(_table(seen))
    else:
        why = f" ({seen['reason']})" if seen.get("reason") else ""
        print(f"nothing runs in {seen['home']}{why}; start it with: sluice up")
    return 0 if seen["running"] else 1


def _table(seen: dict[str, Any]) -> str:
    answers = "answers" if seen["broker_answers"] else "does not answer"
    lines = [
        f"broker  {seen['bootstrap']} ({answers}), Kafka {seen['versions']['kafka']}",
        f"flink   {seen['flink_url']}, Flink {seen['versions']['flink']}",
        f"nodes   {seen['nodes_ready']} of {seen['nodes']} registered, "
        f"{seen['slots_free']} slot(s) free, {seen['jobs_running']} job(s) running",
        f"home    {seen['home']}, up since {seen['started_at']}",
        "",
        f"{'process':<14}{'pid':>8}{'MB':>7}{'decoding':>10}{'restarts':>10}",
    ]
    lines += [
        f"{p['name']:<14}{p['pid']:>8}{p['rss_mb']:>7}{p['decode_mb'] or '':>10}"
        f"{p.get('restarts', 0):>10}"
        for p in seen["processes"]
    ]
    return "\n".join(lines)
