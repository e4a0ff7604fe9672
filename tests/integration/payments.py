"""A seeded archive of card payments, and the task with the fourteen features on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from connectors.archive import Archive
from connectors.schemas import LABELS, TIME

DAY_MS = 86_400_000
START_MS = 1_522_540_800_000  # 2018-04-01
LABEL_DELAY_DAYS = 7


def payments(seed: int, events: int = 6000, days: int = 60) -> Archive:
    """Payments of 60 customers at 40 terminals, some at the same instant.

    A terminal that is tampered with for a week makes most of the frauds; every label
    is known seven days later.
    """
    rng = np.random.default_rng(seed)
    at_ms = np.sort(rng.integers(0, days * 86_400, events)) * 1000 + START_MS
    at_ms[1::97] = at_ms[0:-1:97]
    customer, terminal = rng.integers(0, 60, events), rng.integers(0, 40, events)
    amount = np.round(rng.gamma(2.0, 25.0, events), 2)
    week = (at_ms - START_MS) // (7 * DAY_MS)
    fraud = (terminal % 9 == week) & (rng.random(events) < 0.8)
    fraud |= (amount > 180.0) | (rng.random(events) < 0.01)
    ids = [f"tx-{number:06d}" for number in range(events)]
    tabular = {
        "event_id": ids,
        "case_id": ids,
        "event_time": pa.array(at_ms, pa.int64()).cast(TIME),
        "customer_id": [f"c-{number}" for number in customer],
        "terminal_id": [f"t-{number}" for number in terminal],
        "amount": amount,
    }
    known_ms = at_ms + LABEL_DELAY_DAYS * DAY_MS
    labels = [
        pa.array(ids),
        pa.array(known_ms, pa.int64()).cast(TIME),
        pa.array(fraud.astype(np.int8)),
    ]
    return Archive(
        tables={"tabular": pa.table(tabular)}, labels=pa.table(labels, schema=LABELS)
    )


def payments_task(*, labels: bool = True) -> dict[str, Any]:
    """The task file: the fourteen features and the amount.

    Args:
        labels: with the share of frauds at a terminal; without, its mean amount, and
            nothing held back by seven days.
    """
    features: list[Any] = ["weekday>=5", "hour<=6", "amount"]
    for window in ("1d", "7d", "30d"):
        of_customer = {"entity": "customer", "window": window}
        of_terminal = {"entity": "terminal", "window": window}
        if labels:
            of_terminal["delay"] = "7d"
        risk = {"agg": "mean", "column": "label" if labels else "amount"}
        features += [
            {"name": f"customer_count_{window}", "agg": "count", **of_customer},
            {
                "name": f"customer_mean_{window}",
                "agg": "mean",
                "column": "amount",
                **of_customer,
            },
            {"name": f"terminal_count_{window}", "agg": "count", **of_terminal},
            {"name": f"terminal_risk_{window}", **risk, **of_terminal},
        ]
    return {
        "name": "payments",
        "entities": {"customer": "customer_id", "terminal": "terminal_id"},
        "features": features,
        "modalities": {},
        "label": {"delay": "7d"},
    }
