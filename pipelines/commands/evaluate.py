"""`sluice evaluate`: how good the decisions were, now that labels are known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "compare decisions with labels: AUC, average precision, false positives"
EXAMPLE = "sluice evaluate decisions.parquet --labels archive/labels.parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice evaluate`."""
    parser.add_argument("decisions", type=Path, help="Parquet of decisions")
    parser.add_argument("--labels", type=Path, required=True, help="Parquet of labels")
    parser.add_argument(
        "--k", type=int, default=100, help="alerts a day for precision (default: 100)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the figures over the last decision of each labelled case."""
    from pipelines.judge import DECISION_COLUMNS, LABEL_COLUMNS, judge, read_columns

    decisions = read_columns(args.decisions, DECISION_COLUMNS)
    figures = judge(decisions, read_columns(args.labels, LABEL_COLUMNS), k=args.k)
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:22} {value:.4f}" if value % 1 else f"{name:22} {value:.0f}")
    return 0
