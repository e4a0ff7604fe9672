"""Features of every kind and rows to try them on, drawn at random with a seed."""

import random
from typing import Any

import numpy as np
import pyarrow as pa

from automl.keys import key_of
from automl.task import TaskSpec
from automl.task_features import AGGREGATIONS

KINDS = {"card": "string", "amount": "number", "channel": "string", "is_new": "bool"}


def resolved(*features: Any) -> TaskSpec:
    source = {"name": "t", "entities": {"card": "card"}, "features": list(features)}
    return TaskSpec.from_json(source).resolve(KINDS)


def feature(agg: str, window: str = "10s", **keys: Any) -> dict[str, Any]:
    name = "_".join([agg, window, *keys.values()])
    return {"name": name, "entity": "card", "agg": agg, "window": window, **keys}


RICH = [
    feature(agg, window, **keys)
    for agg in AGGREGATIONS
    if agg != "age"
    for window in ("3s", "20s")
    for keys in (
        {"column": "amount"},
        {"column": "amount", "where": "channel=='web'"},
        {"column": "is_new", "where": "amount>50"},
    )
] + [
    feature("count", "20s"),
    feature("rate", "3s"),
    feature("distinct", "20s", column="channel"),
]


def random_rows(count: int, seed: int) -> dict[str, list[Any]]:
    draw = random.Random(seed)
    clock = 0
    rows: dict[str, list[Any]] = {k: [] for k in ("t", *KINDS)}
    for _ in range(count):
        clock += draw.choice([0, 0, 1, 40, 700, 1_000])
        jitter = draw.choice([0, 0, 0, 1, 500, 3_000, 19_999, 26_000])
        rows["t"].append(max(0, clock - jitter))
        rows["card"].append(draw.choice("abc"))
        rows["amount"].append(draw.choice([None, 0.1, 0.2, 1e9, draw.random() * 100]))
        rows["channel"].append(draw.choice(["web", "shop", None]))
        rows["is_new"].append(draw.choice([True, False, None]))
    return rows


def as_columns(rows: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """Columns as the windows take them: keys of texts, NaN for a missing number."""
    found = {}
    for name, values in rows.items():
        if name in ("card", "channel"):
            keys = [0 if v is None else key_of(v) for v in values]
            found[name] = np.array(keys, dtype=np.uint64)
        else:
            numbers = [np.nan if v is None else float(v) for v in values]
            found[name] = np.array(numbers)
    return found


def archive(count: int = 300, seed: int = 5) -> pa.Table:
    rows = random_rows(count, seed)
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)
    return pa.table(
        {
            "event_id": [f"e{n:04d}" for n in numbers],
            "case_id": [f"k{n:04d}" for n in numbers],
            "event_time": pa.array(rows["t"], pa.timestamp("ms", "UTC")),
            "card": pa.array(rows["card"], pa.string()).dictionary_encode(),
            "amount": pa.array(rows["amount"], pa.float64()),
            "channel": rows["channel"],
            "is_new": pa.array(rows["is_new"], pa.bool_()),
            "note": pa.array([b""] * count, pa.binary()),
        }
    )


#: Settings under which LightGBM grows trees that compiled code leaves to it.
NOT_PLAIN: list[dict[str, Any]] = [
    {"num_leaves": 80, "min_data_in_leaf": 2},
    {"categorical_feature": [0]},
    {"linear_tree": True},
    {"zero_as_missing": True},
    {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    {"objective": "multiclass", "num_class": 2},
]
