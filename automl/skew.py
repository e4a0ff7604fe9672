"""What a stream served against the backfill: every difference with its cause.

Causes are proved by simulation with the engine itself: the backfill is brought to what
the stream did in steps, and a difference is laid to the last step that was needed to
arrive at the served value. Legend: `N` events, `K` served rows, `F` features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from automl.arrival import times_of
from automl.served_rows import MISSING, Ints, ServedRows
from automl.skew_steps import Steps, matrix_of
from automl.task import TaskSpec, WindowFeature

Matrix = npt.NDArray[np.float64]

#: In the order of the steps from the backfill to what the stream did; `bug` is what
#: no step explains.
CAUSES = ("missing_source", "late_event", "label_late", "bug")
BUG = CAUSES.index("bug")

DIFFERENCES = pa.schema(
    [
        pa.field("event_id", pa.string()),
        pa.field("case_id", pa.string()),
        pa.field("event_time", pa.timestamp("ms", "UTC")),
        pa.field("what", pa.string()),
        pa.field("feature", pa.string()),
        pa.field("served", pa.float64()),
        pa.field("backfill", pa.float64()),
        pa.field("cause", pa.string()),
        pa.field("proved", pa.bool_()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Skew:
    """How what was served differs from the backfill.

    Attributes:
        rows: events compared, those that were not served included.
        differing_rows: of those, the ones with a difference.
        differences: schema `DIFFERENCES`, by event time. `what` is `value`,
            `not_served`, `not_in_archive` or `repeat` (served twice, differing).
        causes: how many differences have each cause.
        by_feature: how many values of each feature differ.
        unproved: differences that an event missing from the archive may have made;
            its columns are not known, so that cannot be computed.
    """

    rows: int
    differing_rows: int
    differences: pa.Table
    causes: dict[str, int] = field(default_factory=dict)
    by_feature: dict[str, int] = field(default_factory=dict)
    unproved: int = 0

    @property
    def share(self) -> float:
        """Share of the rows that differ."""
        return self.differing_rows / self.rows if self.rows else 0.0

    @property
    def bugs(self) -> int:
        """Differences that nothing explains."""
        return self.causes["bug"]

    @property
    def explained(self) -> float:
        """Share of the differences that have another cause than a bug."""
        total = self.differences.num_rows
        return 1.0 - self.bugs / total if total else 1.0

    def passes(self, limit: float) -> bool:
        """Whether there is no bug and the share of differing rows is within `limit`."""
        return self.bugs == 0 and self.share <= limit

    def to_dict(self) -> dict[str, Any]:
        """The counts by name."""
        return {
            "rows": self.rows,
            "differing_rows": self.differing_rows,
            "share": self.share,
            "differences": self.differences.num_rows,
            "explained": self.explained,
            "unproved": self.unproved,
            "causes": dict(self.causes),
            "by_feature": dict(self.by_feature),
        }

    def __str__(self) -> str:
        causes = ", ".join(f"{name} {count}" for name, count in self.causes.items())
        return (
            f"{self.differing_rows} of {self.rows} rows differ ({self.share:.4%}); "
            f"{self.differences.num_rows} differences: {causes}; "
            f"{self.explained:.2%} explained"
        )


def explain_skew(
    spec: TaskSpec,
    archive: pa.Table,
    served: pa.Table,
    *,
    labels: pa.Table | None = None,
    sources: pa.Table | None = None,
    aside: Mapping[str, str] | None = None,
    tolerance: float = 0.0,
    since_ms: int | None = None,
) -> Skew:
    """Compares served features with the backfill and names every difference's cause.

    Args:
        spec: a resolved task.
        archive: event_id, case_id, event_time and the columns of the events; the
            truth that the backfill rests on.
        served: in order of arrival, event_id, case_id, event_time and one column for
            each feature. Of an event that was served twice the first row counts.
        labels: case_id, label_time, label, and optionally `known_from`: the position
            in `served` from which the stream knew a label; null is from the beginning.
        sources: the events that the stream read, in order of arrival, when they are
            known apart from the archive.
        aside: event_id to kind (`late` or another) of the events set aside.
        tolerance: largest difference that counts as none; with 0 every bit counts.
        since_ms: events before this are not compared, they only fill the windows.

    Raises:
        ValueError: `served` lacks a feature of the task.
    """
    absent = [name for name in spec.feature_names if name not in served.column_names]
    if absent:
        msg = (
            f"compare served features: column '{absent[0]}' is missing; the served "
            f"rows must hold every feature of task '{spec.name}'"
        )
        raise ValueError(msg)
    rows = ServedRows.find(spec, archive, served, sources=sources, aside=aside)
    steps = Steps(spec, rows, labels)
    values = matrix_of(spec, served)
    times_ms = times_of(served)
    compared = np.ones(len(times_ms), dtype=np.bool_)
    if since_ms is not None:
        compared = times_ms >= since_ms
    parts = [
        _not_served(rows, since_ms),
        *_served_apart(spec, rows, served, values, compared, tolerance),
        _differing(spec, rows, served, values, compared, steps, tolerance),
    ]
    differences = pa.concat_tables(parts).sort_by(
        [("event_time", "ascending"), ("event_id", "ascending")]
    )
    missed = parts[0].num_rows
    return _summed(spec, differences, int(compared[rows.first].sum()) + missed)


def _differing(
    spec: TaskSpec,
    rows: ServedRows,
    served: pa.Table,
    values: Matrix,
    compared: npt.NDArray[np.bool_],
    steps: Steps,
    tolerance: float,
) -> pa.Table:
    known = (rows.event >= 0) & (rows.event < rows.archived) & compared[rows.first]
    at, event = rows.first[known], rows.event[known]
    backfilled = steps.backfilled()
    row, slot = np.nonzero(~_same(values[at], backfilled[event], tolerance))
    if not len(row):
        return DIFFERENCES.empty_table()
    found, which = values[at[row], slot], event[row]
    cause = np.zeros(len(row), dtype=np.int64)
    last = np.zeros(len(row), dtype=np.bool_)
    for number, step in enumerate(steps.all(backfilled)):
        last = _same(found, step[which, slot], tolerance)
        cause[~last] = number  # the step after this one was needed
    cause[~last] = BUG
    proved = np.ones(len(row), dtype=np.bool_)
    maybe = (cause == BUG) & _may_miss(spec, rows, served, at[row], slot)
    cause[maybe], proved[maybe] = CAUSES.index("missing_source"), False
    return _table(
        served.take(at[row]),
        "value",
        feature=np.array(spec.feature_names, dtype=object)[slot],
        served=found,
        backfill=backfilled[which, slot],
        cause=cause,
        proved=proved,
    )


def _may_miss(
    spec: TaskSpec, rows: ServedRows, served: pa.Table, at: Ints, slot: Ints
) -> npt.NDArray[np.bool_]:
    """Whether an event that only the stream knows may have been in a value's window."""
    reach = np.array([_reach_ms(f) for f in spec.features], dtype=np.int64)[slot]
    times_ms = times_of(served)
    unknown = np.sort(times_ms[rows.first[rows.event < 0]])
    newest = np.searchsorted(unknown, times_ms[at], side="right")
    oldest = np.searchsorted(unknown, times_ms[at] - reach, side="right")
    return np.asarray((newest > oldest) & (reach > 0))


def _reach_ms(feature: Any) -> int:
    if isinstance(feature, WindowFeature):
        return feature.window_ms + feature.delay_ms
    return 0


def _not_served(rows: ServedRows, since_ms: int | None) -> pa.Table:
    """Events that are nowhere: neither served nor set aside."""
    lost = rows.fate == MISSING
    if since_ms is not None:
        lost &= times_of(rows.events) >= since_ms
    return _table(rows.events.take(np.flatnonzero(lost)), "not_served")


def _served_apart(
    spec: TaskSpec,
    rows: ServedRows,
    served: pa.Table,
    values: Matrix,
    compared: npt.NDArray[np.bool_],
    tolerance: float,
) -> list[pa.Table]:
    """Served rows of no event of the archive, and repeats that say something else."""
    unknown = (rows.event < 0) | (rows.event >= rows.archived)
    stray = rows.first[unknown & compared[rows.first]]
    same = _same(values[rows.again], values[rows.again_of], tolerance)
    row, slot = np.nonzero(~same & compared[rows.again][:, None])
    again = rows.again[row]
    return [
        _table(served.take(stray), "not_in_archive"),
        _table(
            served.take(again),
            "repeat",
            feature=np.array(spec.feature_names, dtype=object)[slot],
            served=values[again, slot],
            cause=np.full(len(row), BUG),
        ),
    ]


def _table(rows: pa.Table, what: str, **columns: Any) -> pa.Table:
    """Differences of the given rows; without a cause, a source is missing."""
    count = rows.num_rows
    cause = columns.pop("cause", np.zeros(count, dtype=np.int64))
    filled: dict[str, Any] = {
        "event_id": rows.column("event_id"),
        "case_id": rows.column("case_id"),
        "event_time": pa.array(times_of(rows)),
        "what": [what] * count,
        "cause": np.array(CAUSES, dtype=object)[cause],
        "proved": [True] * count,
        **columns,
    }
    arrays = [
        pc.cast(_array(filled.get(f.name, [None] * count), f.type), f.type)
        for f in DIFFERENCES
    ]
    return pa.table(arrays, schema=DIFFERENCES)


def _array(values: Any, kind: pa.DataType) -> Any:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    return pa.array(values, kind, from_pandas=False)


def _summed(spec: TaskSpec, differences: pa.Table, rows: int) -> Skew:
    def counts(column: str) -> dict[str, int]:
        found = pc.value_counts(differences.column(column)).to_pylist()
        return {one["values"]: one["counts"] for one in found}

    causes, features = counts("cause"), counts("feature")
    keys = ["event_id", "case_id", "event_time"]
    differing = differences.group_by(keys).aggregate([]).num_rows
    return Skew(
        rows=rows,
        differing_rows=differing,
        differences=differences,
        causes={name: causes.get(name, 0) for name in CAUSES},
        by_feature={n: features[n] for n in spec.feature_names if n in features},
        unproved=differences.num_rows
        - int(pc.sum(differences.column("proved")).as_py() or 0),
    )


def _same(a: Matrix, b: Matrix, tolerance: float) -> npt.NDArray[np.bool_]:
    """Whether values agree: to the bit, or within a tolerance; NaN equals NaN."""
    alike = np.ascontiguousarray(a).view(np.int64) == np.ascontiguousarray(b).view(
        np.int64
    )
    if tolerance:
        with np.errstate(invalid="ignore"):
            alike |= np.abs(a - b) <= tolerance
    return np.asarray(alike | (np.isnan(a) & np.isnan(b)))
