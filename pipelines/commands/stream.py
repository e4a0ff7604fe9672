"""`sluice stream`: an archive through Kafka and Flink, with its account."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

HELP = "replay an archive through Kafka and Flink and write every decision"
EXAMPLE = (
    "sluice stream archive/ --task task.json --model fraud --out decisions.parquet"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice stream`."""
    parser.add_argument("archive", type=Path, help="folder of Parquet files")
    parser.add_argument(
        "--task", type=Path, help="task file; the model must have been made for it"
    )
    parser.add_argument(
        "--model", required=True, metavar="M", help="NAME, NAME:VERSION or a folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="Parquet to write")
    parser.add_argument(
        "--nodes", type=int, default=1, help="TaskManagers per job (default: 1)"
    )
    parser.add_argument(
        "--features", type=Path, metavar="FILE", help="Parquet for the features served"
    )
    parser.add_argument(
        "--served",
        type=Path,
        metavar="FILE",
        help="Parquet for the same in order of arrival, as sluice skew takes it",
    )
    parser.add_argument(
        "--ready",
        action="store_true",
        help="put all of the archive on the topics before the jobs start",
    )
    parser.add_argument("--rate", type=float, metavar="R", help="events per second")
    parser.add_argument(
        "--dead-letters", type=Path, metavar="FILE", help="Parquet for dead letters"
    )


def run(args: argparse.Namespace) -> int:
    """Stream the archive; exit code 1 when an event was lost."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from automl.task import TaskSpec
    from connectors.archive import count_events
    from connectors.schemas import DEAD_LETTERS
    from pipelines import stack
    from pipelines.commands.models import resolve_model
    from pipelines.commands.progress import say
    from pipelines.feature_table import write_features
    from pipelines.skew_check import write_served
    from pipelines.stream import stream

    count_events(args.archive)  # a folder that is no archive fails here, not later
    version = resolve_model(args.home, args.model)
    if args.task is not None:
        wanted, made_for = TaskSpec.from_json(args.task), version.manifest.task
        if wanted.name != made_for["name"]:
            print(
                f"sluice stream: {args.task} is task {wanted.name!r}, model "
                f"{version.name} was made for {made_for['name']!r}",
                file=sys.stderr,
            )
            return 2
    running = stack.find(args.home)
    local = running or stack.start(
        args.home, nodes=2 * args.nodes, owner_pid=os.getpid(), say=say
    )
    try:
        done = stream(
            local,
            args.archive,
            version.folder,
            nodes=args.nodes,
            rate=args.rate,
            ready=args.ready,
            features=args.features is not None or args.served is not None,
            say=say,
        )
    finally:
        if running is None:
            stack.stop(args.home)
    pq.write_table(done.decisions, args.out)
    if done.served is not None:
        if args.features is not None:
            write_features(done.served.table, args.features)
        if args.served is not None:
            write_served(args.served, done.served.frames, done.labels)
    if args.dead_letters is not None:
        letters = pa.Table.from_pylist(done.dead_letters, schema=DEAD_LETTERS)
        pq.write_table(letters, args.dead_letters)
    balance = done.balance
    if args.json:
        more = {
            "events_in_by_modality": dict(done.sent.events),
            "job_restarts": done.restarts,
            "labels_in": done.sent.labels,
            "seconds": round(done.seconds, 3),
        }
        if done.served is not None:
            more["features_served"] = done.served.table.num_rows
            more["features_repeated"] = done.served.repeated
            more["features_differing"] = done.served.differing
        print(json.dumps({**balance.to_dict(), **more}))
    else:
        print(balance)
        for reason, count in _reasons(done.dead_letters):
            print(f"{count:6}  {reason}")
        print(f"{done.decisions.num_rows} decisions in {args.out}")
        if done.served is not None:
            print(
                f"{done.served.table.num_rows} rows of features served; "
                f"{done.served.differing} served again with other values"
            )
    return 1 if balance.lost else 0


def _reasons(letters: list[dict[str, object]]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for letter in letters:
        reason = f"{letter['modality']}: {letter['reason']}"[:100]
        counts[reason] = counts.get(reason, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])
