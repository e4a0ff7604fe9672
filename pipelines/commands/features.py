"""`sluice features`: the features of an archive, as the stream computes them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "compute the features of an archive: one row per tabular event"
EXAMPLE = "sluice features archive/ --task task.json --out features.parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice features`."""
    parser.add_argument("archive", type=Path, help="folder of Parquet files")
    parser.add_argument("--task", type=Path, required=True, help="task file (JSON)")
    parser.add_argument("--out", type=Path, required=True, help="Parquet to write")


def run(args: argparse.Namespace) -> int:
    """Backfill the archive; events the stream would dead-letter are left out."""
    from automl.task import TaskSpec
    from connectors.archive import column_kinds, read_archive
    from pipelines.feature_table import write_features
    from pipelines.offline import backfill_rows, read_rows

    archive = read_archive(args.archive)
    table = archive.tables["tabular"]
    spec = TaskSpec.from_json(args.task).resolve(column_kinds(table))
    rows, dead = read_rows(
        table, "tabular", spec.needed_columns, number_limits=spec.number_limits()
    )
    if rows is None:
        print(f"no event of {args.archive} can be used: {dead[0].reason}")
        return 1
    features = backfill_rows(spec, rows, archive.labels)
    write_features(features, args.out)
    found = {"rows": features.num_rows, "dead": len(dead), "out": str(args.out)}
    if args.json:
        print(json.dumps(found))
    else:
        print(f"{found['rows']} rows in {args.out}, {len(dead)} events left out")
    return 0
