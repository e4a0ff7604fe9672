"""What an aggregation makes of the values in one window, each to the last bit."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import numpy as np
import numpy.typing as npt

from automl.task import WindowFeature

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lt,
    "<=": le,
    "==": eq,
    "!=": ne,
    ">=": ge,
    ">": gt,
}
Aggregate = Callable[[list[Any]], float]
_NAN = math.nan


def value_list(
    name: str, columns: Mapping[str, npt.NDArray[Any]], kind: str
) -> list[Any]:
    """Gives a column as floats or texts, None where a value is missing."""
    if name not in columns:
        msg = f"read column '{name}': it is missing; the events must carry it"
        raise KeyError(msg)
    array = np.asarray(columns[name])
    if kind in ("string", "id"):
        return [None if v is None or v != v else str(v) for v in array.tolist()]
    numbers = array.astype(np.float64) + 0.0  # None becomes NaN, -0.0 becomes 0.0
    values: list[Any] = numbers.tolist()
    finite = np.isfinite(numbers)
    for row in np.flatnonzero(~finite).tolist():
        values[row] = None
    return values


def per_row_of(feature: WindowFeature) -> float:
    """Gives what one row adds to a `count`, or to a `rate` in rows per second."""
    return 1.0 if feature.agg == "count" else 1000.0 / feature.window_ms


def aggregate_of(feature: WindowFeature) -> Aggregate:
    """Gives the function from the values that a feature sees to its value."""
    if feature.agg == "rate" and feature.column is None:
        per_row = per_row_of(feature)
        return lambda values: len(values) * per_row
    return AGGREGATES[feature.agg]


def _sum(values: list[Any]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        total = sum(map(Fraction, values))
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def _mean(values: list[Any]) -> float:
    return _sum(values) / len(values) if values else _NAN


def _std(values: list[Any]) -> float:
    if not values:
        return _NAN
    mean = _sum(values) / len(values)
    return math.sqrt(_sum([(v - mean) * (v - mean) for v in values]) / len(values))


def _share(values: list[Any]) -> float:
    return sum(1 for value in values if value) / len(values) if values else 0.0


AGGREGATES: dict[str, Aggregate] = {
    "count": lambda values: float(len(values)),
    "sum": _sum,
    "mean": _mean,
    "std": _std,
    "min": lambda values: min(values, default=_NAN),
    "max": lambda values: max(values, default=_NAN),
    "distinct": lambda values: float(len(set(values))),
    "last": lambda values: values[-1] if values else _NAN,
    "rate": _share,
}
