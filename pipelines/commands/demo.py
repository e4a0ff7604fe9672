"""`sluice demo`: the whole pipeline on this machine, with made-up payments."""

from __future__ import annotations

import argparse
import json
import os
import sys

HELP = "run everything here with synthetic events: stack, jobs, alerts, search"
EXAMPLE = "sluice demo --events 4000 --seconds 60"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice demo`."""
    parser.add_argument(
        "--events", type=int, default=4500, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=75.0,
        metavar="S",
        help="how long sending them takes (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument(
        "--fit-only",
        action="store_true",
        help="fit and register the demo's first model, start nothing; does nothing "
        "when a model is in charge already",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; exit code 1 when an event was lost or doubled."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if args.fit_only:
        return _fit_only(args)
    from pipelines import stack
    from pipelines.demo_run import Demo

    if stack.find(args.home) is not None:
        print(
            f"sluice demo: a stack runs in {args.home} and the demo wants one of its "
            "own: end it with sluice down, or give another --home",
            file=sys.stderr,
        )
        return 1
    demo = Demo(args.home, events=args.events, seconds=args.seconds, seed=args.seed)
    figures = demo.run()
    if args.json:
        print(json.dumps(figures))
    else:
        _print(figures)
    return 1 if figures["lost"] or figures["duplicated"] else 0


def _fit_only(args: argparse.Namespace) -> int:
    from pipelines.commands.models import registry_of
    from pipelines.demo_run import fit_first_model

    registry = registry_of(args.home)
    champions = (registry.champion(name) for name in registry.names())
    found = next((champion for champion in champions if champion is not None), None)
    version = found or fit_first_model(args.home, args.seed)
    fitted = found is None
    if args.json:
        shown = {"name": version.name, "version": version.version, "fitted": fitted}
        print(json.dumps(shown))
    else:
        done = "fitted and registered" if fitted else "is there, nothing to fit"
        print(f"{version.name} v{version.version} {done}: {version.folder}")
    return 0


def _print(figures: dict[str, object]) -> None:
    events = figures["events_in"]
    assert isinstance(events, dict)
    parts = ", ".join(f"{count} {name}" for name, count in events.items())
    versions = figures["model_versions"]
    assert isinstance(versions, list)
    print(f"events       {sum(events.values())} ({parts})")
    print(
        f"balance      in {sum(events.values())} = decided {figures['decided']} + dead "
        f"{figures['dead_lettered']} + late {figures['late']}; lost "
        f"{figures['lost']}, duplicated {figures['duplicated']}"
    )
    print(f"broken       {figures['broken_sent']} records were sent broken on purpose")
    print(f"latency      p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms")
    print(
        f"alerts       {figures['alerts']}, the first "
        f"{figures['seconds_to_first_alert']} s after the start"
    )
    print(
        f"models       {' -> '.join(f'v{v}' for v in versions)}; AUC {figures['auc']}"
    )
    found = figures["search"]
    if isinstance(found, dict) and found:
        print(f"search       {found['text']!r}")
        for case_id, similarity in found["hits"]:
            print(f"             {case_id}  {similarity}")
    print(
        f"cost         {figures['peak_rss_mb']} MB at most, "
        f"{figures['job_restarts']} job restarts"
    )
