"""Decisions against labels: the figures a risk team looks at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from automl.evaluate import (
    auc,
    average_precision,
    card_precision_at_k,
    ece,
    fpr_at_recall,
)

DAY_MS = 86_400_000
#: Columns that `judge` takes of each of its tables.
DECISION_COLUMNS = ("case_id", "revision", "score", "event_time")
LABEL_COLUMNS = ("case_id", "label")


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """The named columns of a Parquet file.

    Raises:
        ValueError: no such file, not Parquet, or a column is missing.
    """
    try:
        found = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        reason = "no such file" if not path.exists() else f"not Parquet: {error}"
        msg = f"read {path}: {reason}"
        raise ValueError(msg) from error
    missing = [name for name in names if name not in found]
    if missing:
        msg = f"read {path}: column {missing[0]!r} is missing; it has {found}"
        raise ValueError(msg)
    return pq.read_table(path, columns=[*names])


def judge(decisions: pa.Table, labels: pa.Table, *, k: int) -> dict[str, float]:
    """Figures over the last revision of each case that has a label.

    `precision_at_k` counts cases: per day the `k` highest scores, mean over days.

    Raises:
        ValueError: no decision has a label.
        EvaluationError: the labels hold one class only.
    """
    known = dict(
        zip(
            labels.column("case_id").to_pylist(),
            labels.column("label").to_pylist(),
            strict=True,
        )
    )
    last: dict[str, tuple[int, float, int]] = {}
    times = decisions.column("event_time").cast(pa.int64()).to_pylist()
    for case, revision, score, time_ms in zip(
        decisions.column("case_id").to_pylist(),
        decisions.column("revision").to_pylist(),
        decisions.column("score").to_pylist(),
        times,
        strict=True,
    ):
        if known.get(case) in (0, 1) and revision >= last.get(case, (-1,))[0]:
            last[case] = (revision, score, time_ms)
    if not last:
        msg = "no decision has a label: do the files belong together?"
        raise ValueError(msg)
    cases = np.array([*last])
    score = np.array([one[1] for one in last.values()])
    day = np.array([one[2] // DAY_MS for one in last.values()])
    y = np.array([known[case] for case in last])
    return {
        "cases": len(y),
        "positives": int(y.sum()),
        "auc": auc(y, score),
        "average_precision": average_precision(y, score),
        "precision_at_k": card_precision_at_k(day, cases, score, y, k=k),
        "fpr_at_recall_80": fpr_at_recall(y, score, recall=0.8),
        "ece": ece(y, score),
    }
