"""What the windows keep: bytes per entity and per row, and that they stop growing."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import psutil

from automl.task import TaskSpec
from automl.windows import EntityWindows
from benchmarks.bare import BareFeatures, fill
from benchmarks.payments import (
    DAY_MS,
    START_MS,
    STEP_MS,
    PaymentFrames,
    draw_payments,
    payments_task,
)

#: Entities, and rows of each inside the longest window: 1.9 a day for 30 days, or few.
SIZES = ((5_000, 57), (500_000, 6))
#: Longest window and delay of the task, and the day that rows may come late.
HORIZON_DAYS = 30 + 7 + 1
_CHUNK_ROWS = 8_192


def resident_bytes() -> int:
    """Memory of this process."""
    return int(psutil.Process(os.getpid()).memory_info().rss)


def payments_spec() -> TaskSpec:
    """The payments' task, resolved."""
    kinds = {"customer": "string", "terminal": "string", "amount": "number"}
    return TaskSpec.from_json(payments_task()).resolve(kinds)


def state_of(entity: str, entities: int, rows_each: int) -> dict[str, float]:
    """What so many entities with so many rows each take; run in a fresh process."""
    spec = payments_spec()
    _grow(EntityWindows(spec, entity), 64, 2)  # compiles
    before = resident_bytes()
    engine = EntityWindows(spec, entity)
    _grow(engine, entities, rows_each)
    resident = resident_bytes() - before
    return {
        "entities": engine.entities,
        "rows": engine.rows_kept,
        "bytes_per_entity": round(engine.memory_bytes / engine.entities, 1),
        "bytes_per_row": round(engine.memory_bytes / engine.rows_kept, 1),
        "resident_bytes_per_row": round(resident / engine.rows_kept, 1),
        "megabytes": round(engine.memory_bytes / 1e6, 1),
    }


def _grow(engine: EntityWindows, entities: int, rows_each: int) -> None:
    """Every entity in turn, all within the longest window."""
    draw = np.random.default_rng(0)
    keys = draw.integers(1, 2**63, size=entities, dtype=np.uint64)
    count = entities * rows_each
    times = START_MS + np.linspace(0, 30 * DAY_MS - 1, count).astype(np.int64)
    for first in range(0, count, _CHUNK_ROWS):
        rows = np.arange(first, min(count, first + _CHUNK_ROWS))
        engine.observe(
            keys[rows % entities],
            times[rows],
            {"amount": draw.random(len(rows))},
            clock_ms=times[rows],
            case_keys=rows.astype(np.uint64) + np.uint64(1),
        )


def growth(events: int, steps: int = 20) -> dict[str, Any]:
    """Rows and bytes of all windows while payments go by; run in a fresh process."""
    features, frames = BareFeatures(payments_spec()), PaymentFrames(draw_payments())
    samples: list[dict[str, int]] = []
    first = 0
    for step in range(1, steps + 1):
        first = fill(features, frames, first, events * step // steps)
        engines = features.engines.values()
        samples.append(
            {
                "events": first,
                "rows": sum(engine.rows_kept for engine in engines),
                "bytes": sum(engine.memory_bytes for engine in engines),
                "resident_bytes": resident_bytes(),
            }
        )
    return {"samples": samples, **flatness(samples)}


def flatness(samples: list[dict[str, int]]) -> dict[str, float]:
    """Growth of each size once the longest window is full, as a share of it.

    From the first sample at twice the horizon (by then whatever doubles has doubled)
    to the last one.
    """
    full = 2 * HORIZON_DAYS * DAY_MS // STEP_MS
    after = [sample for sample in samples if sample["events"] >= full]
    if len(after) < 2:
        return {}
    return {
        f"{name}_growth": round(after[-1][name] / after[0][name] - 1, 4)
        for name in ("rows", "bytes", "resident_bytes")
    }


def main() -> int:
    """Print the figures of this machine as one line of JSON."""
    import json

    from benchmarks.loops import alone

    found = {f"{n}": alone(state_of, "customer", n, rows) for n, rows in SIZES}
    print(json.dumps({"entities": found, "growth": alone(growth, 5_000_000)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
