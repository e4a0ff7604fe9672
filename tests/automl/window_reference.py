"""What windows should say, worked out row by row in plain Python."""

import math
from fractions import Fraction
from typing import Any

from automl.task import WindowFeature


class Reference:
    """Keeps every row of every entity and every label, and looks at all of them."""

    def __init__(self) -> None:
        self.rows: dict[Any, list[dict[str, Any]]] = {}
        self.labels: dict[str, list[tuple[int, float]]] = {}

    def add_label(self, case: str, label_time_ms: int, label: float) -> None:
        self.labels.setdefault(case, []).append((label_time_ms, label))

    def add(self, row: dict[str, Any]) -> None:
        """Puts a row behind all rows of its entity that are not later."""
        rows = self.rows.setdefault(row["card"], [])
        place = sum(1 for one in rows if one["t"] <= row["t"])
        rows.insert(place, row)

    def value(self, feature: WindowFeature, row: dict[str, Any]) -> float:
        until = row["t"] - feature.delay_ms
        seen = [
            one
            for one in self.rows[row["card"]]
            if until - feature.window_ms < one["t"] <= until and passes(feature, one)
        ]
        if feature.agg == "age":
            others = [one for one in seen if one is not row]
            return (row["t"] - others[-1]["t"]) / 1000 if others else math.nan
        if feature.column is None:
            per_row = 1.0 if feature.agg == "count" else 1000 / feature.window_ms
            return len(seen) * per_row
        if feature.column == "label":
            found = [self._label(one["case"], row["t"]) for one in seen]
        else:
            found = [one[feature.column] for one in seen]
        values = [x for x in found if x is not None]
        if feature.agg in ("ratio", "zscore"):
            own = row[feature.column] if passes(feature, row) else None
            return set_against(feature.agg, own, values)
        return aggregate(feature.agg, values)

    def _label(self, case: str, asked_ms: int) -> float | None:
        known = [
            (time_ms, number, label)
            for number, (time_ms, label) in enumerate(self.labels.get(case, []))
            if time_ms <= asked_ms
        ]
        return max(known)[2] if known else None


def passes(feature: WindowFeature, row: dict[str, Any]) -> bool:
    where = feature.where
    if where is None:
        return True
    value = row[where.column]
    if value is None:
        return False
    return bool(value > where.value if where.op == ">" else value == where.value)


def set_against(agg: str, own: float | None, values: list[float]) -> float:
    if own is None or not values:
        return math.nan
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    if agg == "ratio":
        return own / float(mean) if abs(mean) >= 1e-15 else math.nan
    spread = math.sqrt(sum((one - mean) ** 2 for one in exact) / len(exact))
    return (own - float(mean)) / spread if spread >= 1e-15 else 0.0


def aggregate(agg: str, values: list[Any]) -> float:
    if agg == "count":
        return len(values)
    if agg == "distinct":
        return len(set(values))
    if agg == "sum":
        return math.fsum(values)
    if agg == "rate":
        return sum(1 for x in values if x) / len(values) if values else 0.0
    if not values:
        return math.nan
    mean = math.fsum(values) / len(values) if agg in ("mean", "std") else 0.0
    if agg == "mean":
        return mean
    if agg == "std":
        squares = [(x - mean) ** 2 for x in values]
        return math.sqrt(math.fsum(squares) / len(values))
    if agg == "last":
        return values[-1]
    return min(values) if agg == "min" else max(values)
