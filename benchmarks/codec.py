"""What a Kafka value costs per record: JSON objects, Arrow frames, fixed structs."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.codec import decode_frame, encode_frame
from connectors.schemas import TIME

AT_MS = 1_760_000_000_000
FRAME_ROWS = (1, 16, 256, 1024)
TEXTS = ("event_id", "case_id", "customer", "terminal", "device")
NUMBERS = ("amount", "merchant_risk", "device_age_days")
#: The fixed layout: texts of at most 32 bytes, everything else at its width.
STRUCT = np.dtype(
    [
        *((name, "S32") for name in TEXTS),
        ("event_time", "<i8"),
        ("created_ms", "<i8"),
        *((name, "<f8") for name in NUMBERS),
        ("foreign", "?"),
    ]
)

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Microseconds and bytes per record of one way to carry it.

    Attributes:
        layout: how a value is laid out.
        rows: records in one value.
        encode_us: rows of Python values to bytes.
        decode_us: bytes to something whose columns can be read, checked.
        columns_us: texts as lists and numbers as float64 arrays, as a job takes them.
        value_bytes: size of the value.
    """

    layout: str
    rows: int
    encode_us: float
    decode_us: float
    columns_us: float
    value_bytes: float

    @property
    def total_us(self) -> float:
        """Encode, decode and read."""
        return self.encode_us + self.decode_us + self.columns_us


def payments(count: int) -> Rows:
    """Records of the demo's size and kinds."""
    draw = np.random.default_rng(0)
    return [
        {
            "event_id": f"live-0-0-{i:06d}.tab",
            "case_id": f"live-0-0-{i:06d}",
            "event_time": AT_MS + i,
            "created_ms": AT_MS + i + 3,
            "amount": float(draw.random() * 100),
            "customer": f"c{draw.integers(99_999):05d}",
            "terminal": f"t{draw.integers(9_999):04d}",
            "device": f"d{draw.integers(99_999):05d}",
            "merchant_risk": float(draw.random()),
            "device_age_days": float(draw.integers(1000)),
            "foreign": bool(draw.random() < 0.1),
        }
        for i in range(count)
    ]


def json_encode(rows: Rows) -> bytes:
    """A JSON array; of one row, the plain JSON event."""
    return json.dumps(rows[0] if len(rows) == 1 else rows).encode()


def json_decode(value: bytes) -> Rows:
    """The rows as dicts."""
    found = json.loads(value)
    return found if isinstance(found, list) else [found]


def json_columns(rows: Rows) -> dict[str, Any]:
    """Columns of rows as dicts."""
    texts = {name: [row[name] for row in rows] for name in TEXTS}
    return texts | {n: np.array([row[n] for row in rows]) for n in NUMBERS}


def arrow_encode(rows: Rows) -> bytes:
    """The frame this project writes."""
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    columns["event_time"] = columns["event_time"].cast(TIME)
    return encode_frame(pa.RecordBatch.from_pydict(columns))


def arrow_columns(batch: pa.RecordBatch) -> dict[str, Any]:
    """Columns of a frame."""
    texts = {name: batch.column(name).to_pylist() for name in TEXTS}
    return texts | {n: batch.column(n).to_numpy() for n in NUMBERS}


def struct_encode(rows: Rows) -> bytes:
    """Records one after the other, each of the same width."""
    assert STRUCT.names is not None
    values = [tuple(row[name] for name in STRUCT.names) for row in rows]
    return np.array(values, dtype=STRUCT).tobytes()


def struct_columns(records: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Columns of fixed records."""
    texts = {name: records[name].astype("U").tolist() for name in TEXTS}
    return texts | {n: records[n].astype(np.float64) for n in NUMBERS}


Step = Callable[..., Any]
#: Layout to how it is written, opened, and read as columns.
LAYOUTS: dict[str, tuple[Step, Step, Step]] = {
    "json": (json_encode, json_decode, json_columns),
    "arrow frame": (arrow_encode, decode_frame, arrow_columns),
    "fixed struct": (
        struct_encode,
        lambda value: np.frombuffer(value, STRUCT),
        struct_columns,
    ),
}


def best_us(run: Callable[[], Any], budget_s: float) -> float:
    """Microseconds of the fastest of many calls within the budget."""
    best, until = float("inf"), time.perf_counter() + budget_s
    while time.perf_counter() < until:
        began = time.perf_counter_ns()
        run()
        best = min(best, (time.perf_counter_ns() - began) / 1000)
    return best


def measure(layout: str, rows: int, budget_s: float) -> Cost:
    """Cost of one layout with so many records in a value."""
    encode, decode, columns = LAYOUTS[layout]
    records = payments(rows)
    value = encode(records)
    found = decode(value)
    if columns(found)["case_id"] != [record["case_id"] for record in records]:
        msg = f"{layout}: records did not come back"
        raise AssertionError(msg)
    runs = (lambda: encode(records), lambda: decode(value), lambda: columns(found))
    encode_us, decode_us, columns_us = (best_us(r, budget_s) / rows for r in runs)
    return Cost(
        layout=layout,
        rows=rows,
        encode_us=encode_us,
        decode_us=decode_us,
        columns_us=columns_us,
        value_bytes=len(value) / rows,
    )


def main() -> int:
    """Measure, then print a table or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=0.15, metavar="S")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cases = [("json", 1)]
    cases += [(layout, n) for layout in list(LAYOUTS)[1:] for n in FRAME_ROWS]
    costs = [measure(layout, rows, args.budget) for layout, rows in cases]
    if args.json:
        shown = [{**asdict(c), "total_us": c.total_us} for c in costs]
        machine = {"machine": platform.machine(), "python": platform.python_version()}
        print(json.dumps({**machine, "costs": shown}))
        return 0
    print(f"{'layout':<13}{'rows':>6}{'encode':>9}{'decode':>9}", end="")
    print(f"{'columns':>9}{'total us':>10}{'bytes':>8}   per record, best of many")
    for cost in costs:
        print(
            f"{cost.layout:<13}{cost.rows:>6}{cost.encode_us:>9.2f}"
            f"{cost.decode_us:>9.2f}{cost.columns_us:>9.2f}{cost.total_us:>10.2f}"
            f"{cost.value_bytes:>8.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
