"""What the windows of one entity read and give, as plain arrays for compiled code.

A *lane* is one column as some features see it: values of the rows that pass a `where`,
or the labels of those rows' cases. Features of one delay form a *group*: their windows
end at the same row, so one walk backwards from there answers all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import eq, ge, gt, le, lt, ne
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from automl.exact_sum import MOST
from automl.keys import MISSING, key_of
from automl.task import TaskSpec, Where, WindowFeature
from automl.task_features import LABEL_COLUMN

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": lt,
    "<=": le,
    "==": eq,
    "!=": ne,
    ">=": ge,
    ">": gt,
}

#: What is asked of a lane, and what it holds. Without `MORE`, that is its count with
#: the sum of numbers, or with how many labels are not zero.
SUM, SQUARE, DISTINCT, LABEL, TEXT, MORE = 1, 2, 4, 8, 16, 32

#: How a feature is read off. Those above ROWS_AGE look at a lane, those up to it at
#: the rows alone.
ROWS, ROWS_AGE = 0, 1
COUNT, TOTAL, MEAN, STD, MIN, MAX, UNIQUE, LAST, SHARE, AGE = range(2, 12)
RATIO, ZSCORE = range(12, 14)
_READS = {
    "count": COUNT,
    "sum": TOTAL,
    "mean": MEAN,
    "std": STD,
    "min": MIN,
    "max": MAX,
    "distinct": UNIQUE,
    "last": LAST,
    "rate": SHARE,
    "age": AGE,
    "ratio": RATIO,
    "zscore": ZSCORE,
}
_KEEPS = {
    "sum": SUM,
    "mean": SUM,
    "ratio": SUM,
    "std": SUM | SQUARE,
    "zscore": SUM | SQUARE,
    "distinct": DISTINCT,
}
_ENOUGH = {False: ("count", "sum", "mean", "ratio"), True: ("count", "rate")}
_Lane = tuple[str | None, Where | None]


class Program(NamedTuple):
    """The plan as compiled code reads it.

    Attributes:
        groups: int64 (G, 5): delay, first and last window, first and last lane.
        group_lanes: int64, the lanes of all groups, one group after the other.
        windows: int64 (W, 3): length, first and last feature; shortest first.
        features: int64 (V, 3): place in the output, how to read it, lane or -1.
        scale: float64 (V,), what a count is multiplied by.
        lanes: int64 (L, 2): what to keep, and for a label the lane that filters it.
    """

    groups: npt.NDArray[np.int64]
    group_lanes: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int64]
    features: npt.NDArray[np.int64]
    scale: npt.NDArray[np.float64]
    lanes: npt.NDArray[np.int64]


class WindowPlan:
    """How to answer the window features of one entity.

    Attributes:
        feature_names: V names, in the task's order.
        columns: name to kind of the columns that must be given.
        horizon_ms: how far back the longest window reaches, its delay included.
        uses_labels: whether a feature reads labels.
        own_lanes: lanes that hold values of the rows; those of labels come after.
        program: the same for compiled code.
    """

    def __init__(self, spec: TaskSpec, entity: str) -> None:
        kinds = spec.needed_columns
        features = spec.window_features(entity)
        self.feature_names = [feature.name for feature in features]
        self.horizon_ms = max((f.window_ms + f.delay_ms for f in features), default=0)
        self.columns = {name: kinds[name] for name in _columns_of(features)}
        self.uses_labels = any(f.column == LABEL_COLUMN for f in features)
        lanes = _lanes_of(features)
        self._lanes = [lane for lane in lanes if lane[0] != LABEL_COLUMN]
        self.own_lanes = len(self._lanes)
        texts = [n for n, kind in self.columns.items() if _is_text(kind)]
        self.program = _program(features, lanes, texts)

    def lanes(
        self, columns: Mapping[str, npt.NDArray[Any]], rows: int
    ) -> npt.NDArray[np.int64]:
        """Gives the own lanes of rows as bits: int64 (B, L), NaN or key 0 if missing.

        Numbers that are no finite number up to 1e12 count as missing.
        """
        out = np.empty((rows, self.own_lanes), dtype=np.int64)
        for at, (name, where) in enumerate(self._lanes):
            if name is None:
                values = np.ones(rows)
            elif _is_text(self.columns[name]):
                values = np.asarray(columns[name], dtype=np.uint64)
            else:
                values = _finite(columns[name])
            if where is not None:
                missing: Any = MISSING if values.dtype == np.uint64 else np.nan
                values = np.where(self._passes(where, columns), values, missing)
            out[:, at] = np.ascontiguousarray(values).view(np.int64)
        return out

    def _passes(
        self, where: Where, columns: Mapping[str, npt.NDArray[Any]]
    ) -> npt.NDArray[np.bool_]:
        values = np.asarray(columns[where.column])
        if _is_text(self.columns[where.column]):
            there = values != MISSING
            found = COMPARE[where.op](values, key_of(where.value))
        else:
            numbers = _finite(values)
            there = ~np.isnan(numbers)
            found = COMPARE[where.op](numbers, float(where.value))
        return np.asarray(found & there, dtype=np.bool_)


def _program(
    features: Sequence[WindowFeature], lanes: list[_Lane], texts: list[str]
) -> Program:
    index = {lane: i for i, lane in enumerate(lanes)}
    keeps = np.zeros((len(lanes), 2), dtype=np.int64)
    groups: list[tuple[int, ...]] = []
    group_lanes: list[int] = []
    windows: list[tuple[int, ...]] = []
    reads: list[tuple[int, ...]] = []
    scale: list[float] = []
    slots = {id(feature): slot for slot, feature in enumerate(features)}
    for delay_ms in sorted({f.delay_ms for f in features}):
        ours = [f for f in features if f.delay_ms == delay_ms]
        first_window, first_lane = len(windows), len(group_lanes)
        used = dict.fromkeys(index[_lane_of(f)] for f in ours if _lane_of(f) in index)
        group_lanes += used
        for window_ms in sorted({f.window_ms for f in ours}):
            first = len(reads)
            for feature in (f for f in ours if f.window_ms == window_ms):
                lane = index.get(_lane_of(feature), -1)
                if lane >= 0:
                    keeps[lane, 0] |= _KEEPS.get(feature.agg, 0)
                    enough = _ENOUGH[feature.column == LABEL_COLUMN]
                    keeps[lane, 0] |= 0 if feature.agg in enough else MORE
                reads.append((slots[id(feature)], _read_of(feature), lane))
                per_second = feature.agg == "rate" and feature.column is None
                scale.append(1000.0 / window_ms if per_second else 1.0)
            windows.append((window_ms, first, len(reads)))
        group = (delay_ms, first_window, len(windows), first_lane, len(group_lanes))
        groups.append(group)
    for i, (column, where) in enumerate(lanes):
        keeps[i, 1] = -1
        if column in texts:
            keeps[i, 0] |= TEXT
        if column == LABEL_COLUMN:
            keeps[i, 0] |= LABEL
            if where is not None:
                keeps[i, 1] = index[None, where]
    return Program(
        groups=np.array(groups, dtype=np.int64).reshape(-1, 5),
        group_lanes=np.array(group_lanes, dtype=np.int64),
        windows=np.array(windows, dtype=np.int64).reshape(-1, 3),
        features=np.array(reads, dtype=np.int64).reshape(-1, 3),
        scale=np.array(scale, dtype=np.float64),
        lanes=keeps,
    )


def _lane_of(feature: WindowFeature) -> _Lane:
    return feature.column, feature.where


def _lanes_of(features: Sequence[WindowFeature]) -> list[_Lane]:
    """Own lanes first, then those of labels; a label's filter is a lane of its own."""
    found = dict.fromkeys(map(_lane_of, features))
    for feature in features:
        if feature.column == LABEL_COLUMN and feature.where is not None:
            found[None, feature.where] = None
    found.pop((None, None), None)
    return sorted(found, key=lambda lane: lane[0] == LABEL_COLUMN)


def _read_of(feature: WindowFeature) -> int:
    if _lane_of(feature) == (None, None):
        return ROWS_AGE if feature.agg == "age" else ROWS
    if feature.agg == "rate" and feature.column is None:
        return COUNT
    return _READS[feature.agg]


def _columns_of(features: Sequence[WindowFeature]) -> list[str]:
    names: dict[str, None] = {}
    for feature in features:
        if feature.column is not None and feature.column != LABEL_COLUMN:
            names[feature.column] = None
        if feature.where is not None:
            names[feature.where.column] = None
    return list(names)


def _is_text(kind: str) -> bool:
    return kind in ("string", "id")


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    numbers = np.asarray(values).astype(np.float64) + 0.0  # -0.0 becomes 0.0
    if np.all(np.abs(numbers) <= MOST):  # False for NaN, too
        return numbers
    return np.where(np.abs(numbers) <= MOST, numbers, np.nan)
