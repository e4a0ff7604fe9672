"""`sluice skew`: what the stream served against the backfill, with causes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automl.skew import Skew

HELP = "compare served features with the backfill and name each difference's cause"
EXAMPLE = "sluice skew archive/ --task task.json --served served.parquet"
#: Between reading the events and the rest: those read are answered by then.
SETTLE_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice skew`."""
    parser.add_argument(
        "archive",
        type=Path,
        nargs="?",
        help="folder of Parquet files; with --topics, events.tabular unless given",
    )
    parser.add_argument("--task", type=Path, required=True, help="task file (JSON)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--served",
        type=Path,
        metavar="FILE",
        help="what the stream served, as `sluice stream` writes it: rows that say "
        "where they were read (--served) or rows by time (--features)",
    )
    source.add_argument(
        "--topics",
        nargs="?",
        const="",
        metavar="PREFIX",
        help="read what was served from the running stack's topics",
    )
    parser.add_argument(
        "--dead-letters", type=Path, metavar="FILE", help="Parquet of dead letters"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=0.001,
        metavar="SHARE",
        help="share of rows that may differ (default: %(default)s)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="X",
        help="differences up to this are none (default: every bit counts)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="Parquet for all differences"
    )


def run(args: argparse.Namespace) -> int:
    """Compare; exit code 1 on a bug, or when too many rows differ."""
    import pyarrow.parquet as pq

    found = _of_topics(args) if args.topics is not None else _of_file(args)
    if args.out is not None:
        pq.write_table(found.differences, args.out)
    passed = found.passes(args.limit)
    if args.json:
        print(json.dumps({**found.to_dict(), "passed": passed}))
        return 0 if passed else 1
    print(found)
    for name, count in found.by_feature.items():
        print(f"{count:8}  {name}")
    if found.unproved:
        print(
            f"{found.unproved} of missing_source are not proved: the archive lacks "
            "events that were served"
        )
    print("passed" if passed else f"above the limit: {args.limit:.4%} and no bug")
    return 0 if passed else 1


def _of_file(args: argparse.Namespace) -> Skew:
    import pyarrow.parquet as pq

    from automl.skew import explain_skew
    from automl.task import TaskSpec
    from connectors.archive import column_kinds, read_archive
    from pipelines.offline import read_rows
    from pipelines.skew_check import (
        events_table,
        read_served,
        set_aside,
        with_known_from,
    )

    if args.archive is None:
        msg = "name the archive: the events that the backfill rests on"
        raise ValueError(msg)
    archive = read_archive(args.archive)
    if "tabular" not in archive.tables:
        msg = f"{args.archive} has no tabular.parquet: there is nothing to compare"
        raise ValueError(msg)
    table = archive.tables["tabular"]
    spec = TaskSpec.from_json(args.task).resolve(column_kinds(table))
    rows, dead = read_rows(table, "tabular", spec.needed_columns, spec.number_limits())
    if rows is None:
        msg = f"no event of {args.archive} can be used: {dead[0].reason}"
        raise ValueError(msg)
    served, labels = read_served(args.served)
    if labels is None:
        labels = archive.labels
    letters = (
        []
        if args.dead_letters is None
        else pq.read_table(args.dead_letters).to_pylist()
    )
    return explain_skew(
        spec,
        events_table(rows, spec.needed_columns),
        served,
        labels=None if labels is None else with_known_from(labels, served),
        aside=set_aside(letters),
        tolerance=args.tolerance,
    )


def _of_topics(args: argparse.Namespace) -> Skew:
    import time

    from automl.task import TaskSpec
    from connectors.archive import column_kinds, read_archive
    from connectors.kafka import Reader
    from pipelines import stack
    from pipelines.stream_span import EVENTS, TOPICS, StreamSpan

    local = stack.find(args.home)
    if local is None:
        msg = f"no stack runs in {args.home}; start one with: sluice up"
        raise stack.StackError(msg)
    spec = TaskSpec.from_json(args.task)
    archive = None
    if args.archive is not None:
        archive = read_archive(args.archive).tables["tabular"]
        spec = spec.resolve(column_kinds(archive))
    elif not spec.columns:
        msg = f"{args.task} does not say the kinds of its columns; name an archive too"
        raise ValueError(msg)
    span = StreamSpan()
    for topics in ([EVENTS], [name for name in TOPICS if name != EVENTS]):
        with Reader(local.bootstrap, [args.topics + name for name in topics]) as reader:
            for value in reader.until_end():
                span.take(value.place.topic.removeprefix(args.topics), value)
        if topics == [EVENTS]:
            time.sleep(SETTLE_S)
    found = span.skew(spec, archive=archive, tolerance=args.tolerance)
    if found is None:
        msg = f"topics {args.topics}{EVENTS} and {args.topics}features hold no events"
        raise ValueError(msg)
    return found
