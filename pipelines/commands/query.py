"""`sluice query`: the cases most like a sentence, a picture, a voice or a case."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pipelines.query import ALL, MAX_K, Query, RetrieveError
from pipelines.retrieve import search

HELP = "find the cases most like a sentence, a picture, a voice or another case"
EXAMPLE = 'sluice query --text "card not present, gift cards" -k 5'

_SPACES = ("text", "image", "audio", "tabular", "fused", ALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sluice query`."""
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--text", metavar="S", help="a sentence")
    wanted.add_argument("--image", metavar="F", type=Path, help="a PNG or JPEG file")
    wanted.add_argument("--audio", metavar="F", type=Path, help="a WAV or FLAC file")
    wanted.add_argument("--case", metavar="ID", help="a case already indexed")
    parser.add_argument(
        "-k",
        type=int,
        default=10,
        choices=range(1, MAX_K + 1),
        metavar="K",
        help="how many hits at most (default: %(default)s)",
    )
    parser.add_argument(
        "--modality",
        choices=_SPACES,
        help="which vectors to search (default: those of the query's own kind)",
    )


def run(args: argparse.Namespace) -> int:
    """Ask the running index service and print its hits; returns the exit code."""
    try:
        answer = search(args.home, _query_of(args))
    except (RetrieveError, OSError) as error:
        print(f"sluice query: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(answer))
    else:
        print(_table(answer))
    return 0


def _query_of(args: argparse.Namespace) -> Query:
    for by in ("text", "case"):
        if (content := getattr(args, by)) is not None:
            return Query(by=by, content=content, modality=args.modality, k=args.k)
    by = "image" if args.image is not None else "audio"
    payload = getattr(args, by).read_bytes()
    return Query(by=by, content=payload, modality=args.modality, k=args.k)


def _table(answer: dict[str, Any]) -> str:
    hits = answer["hits"]
    if not hits:
        return f"nothing indexed yet for {', '.join(answer['modalities'])}"
    width = max(len("case"), *(len(hit["case_id"]) for hit in hits))
    lines = [f"{'rank':>4}  {'case':<{width}}  {'modality':<8}  similarity"]
    lines += [
        f"{rank:>4}  {hit['case_id']:<{width}}  {hit['modality']:<8}  "
        f"{hit['similarity']:10.4f}"
        for rank, hit in enumerate(hits, start=1)
    ]
    lines.append(f"{len(hits)} hits in {answer['latency_ms']:.1f} ms")
    return "\n".join(lines)
