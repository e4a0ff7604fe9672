"""CPU time of fusing one case, as the score job does it: alone, not in a batch."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fusion.config import FusionConfig
from fusion.scorer import FusionScorer
from fusion.train import untaught_fusion

_EXAMPLE = """example:
  OMP_NUM_THREADS=1 python -m benchmarks.fused_case --json
"""


def milliseconds(work: Callable[[], Any], calls: int) -> dict[str, float]:
    """Median and 99th percentile of the CPU time of one call."""
    for _ in range(50):
        work()
    taken = []
    for _ in range(calls):
        began = time.thread_time()
        work()
        taken.append(1000 * (time.thread_time() - began))
    return {
        "median_ms": round(float(np.median(taken)), 3),
        "p99_ms": round(float(np.quantile(taken, 0.99)), 3),
    }


def measure(calls: int) -> dict[str, dict[str, float]]:
    """The score of one case with all four modalities, and what an alert adds to it."""
    scorer = FusionScorer(untaught_fusion(FusionConfig(), seed=0))
    draw = np.random.default_rng(0)
    x = draw.normal(size=(1, 4, scorer.config.width)).astype(np.float32)
    mask, tree = np.ones((1, 4), bool), np.zeros(1)
    return {
        "score": milliseconds(lambda: scorer.score(x, mask, tree), calls),
        "leave_one_out": milliseconds(
            lambda: scorer.leave_one_out(x, mask, tree), calls
        ),
        "agreement": milliseconds(lambda: scorer.agreement(x, mask), calls),
    }


def main(argv: list[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        prog="fused_case",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    found = measure(options.calls)
    if options.json:
        print(json.dumps(found))
        return 0
    for name, figures in found.items():
        print(f"{name:14s} " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
