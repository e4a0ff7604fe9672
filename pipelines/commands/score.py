"""`sluice score`: decisions of an archive without a cluster."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "score an archive offline: the decisions the stream ends with"
EXAMPLE = "sluice score archive/ --model fraud --out decisions.parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice score`."""
    parser.add_argument("archive", type=Path, help="folder of Parquet files")
    parser.add_argument(
        "--model", required=True, metavar="M", help="NAME, NAME:VERSION or a folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="Parquet to write")
    parser.add_argument("--from", dest="since", metavar="D", help="first day scored")
    parser.add_argument("--until", metavar="D", help="day to stop before")


def run(args: argparse.Namespace) -> int:
    """Score every case that has a tabular event."""
    import pyarrow.parquet as pq

    from connectors.archive import read_archive
    from pipelines.commands.models import resolve_model
    from pipelines.commands.progress import say
    from pipelines.score_offline import score_archive

    version = resolve_model(args.home, args.model)
    archive = read_archive(args.archive)
    decisions, dead = score_archive(archive, version.folder, args.since, args.until)
    pq.write_table(decisions, args.out)
    say(f"{len(dead)} events of the archive cannot be used")
    found = {"decisions": decisions.num_rows, "dead": len(dead), "out": str(args.out)}
    print(json.dumps(found) if args.json else f"{decisions.num_rows} in {args.out}")
    return 0
