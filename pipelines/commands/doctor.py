"""`sluice doctor`: what this machine lacks for the local stack, and how to get it."""

from __future__ import annotations

import argparse
import dataclasses
import json

from pipelines.doctor import examine

HELP = "check Python, Java, Maven, packages, jars, memory, disk and ports"
EXAMPLE = "sluice doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`sluice doctor` has no options of its own."""


def run(args: argparse.Namespace) -> int:
    """Print one line per finding; 1 when something is missing."""
    findings = examine(args.home)
    good = all(finding.ok for finding in findings)
    if args.json:
        listed = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"ok": good, "findings": listed}))
        return 0 if good else 1
    for finding in findings:
        mark = "ok     " if finding.ok else "MISSING"
        print(f"{mark}  {finding.what}: {finding.seen}")
        if not finding.ok:
            print(f"         -> {finding.remedy}")
    return 0 if good else 1
