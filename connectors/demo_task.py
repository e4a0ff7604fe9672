"""The demo's task file: what to predict about its cases, from which features."""

from __future__ import annotations

from typing import Any


def demo_task(name: str = "demo") -> dict[str, Any]:
    """The demo's task file, as `sluice train --task` reads it."""

    def window(
        entity: str, agg: str, window: str, column: str | None = None
    ) -> dict[str, str]:
        parts = [entity, *([column] if column else []), agg, window]
        named = {"name": "_".join(parts), "entity": entity, "agg": agg}
        return {
            **named,
            **({"column": column} if column else {}),
            "window": window,
        }

    return {
        "name": name,
        "entities": {
            "customer": "customer",
            "terminal": "terminal",
            "device": "device",
        },
        "features": [
            "amount",
            "merchant_risk",
            "device_age_days",
            "foreign",
            "hour<=6",
            "weekday>=5",
            window("customer", "count", "10m"),
            window("customer", "count", "1d"),
            window("customer", "sum", "1h", "amount"),
            window("customer", "mean", "7d", "amount"),
            window("customer", "max", "30d", "amount"),
            window("customer", "distinct", "1h", "terminal"),
            window("terminal", "count", "1h"),
            window("terminal", "mean", "1d", "amount"),
            window("terminal", "count", "7d"),
            window("terminal", "rate", "1h", "foreign"),
            window("device", "count", "1d"),
            window("device", "max", "7d", "amount"),
        ],
        "modalities": {"text": {}, "image": {}, "audio": {}},
        "label": {"delay": "2h"},
        "metric": "average_precision",
        "search": {"budget_s": 30, "max_trials": 10},
        "alerts_per_day": 80,
        "latency_budget_ms": 50,
    }
