"""The fraud handbook's published features against ours, on its own transactions.

`archive` makes an archive and a task file of the data set's two Parquet files;
`compare` holds a features file of `sluice features` or `sluice stream --features`
against the published values. The data are not part of the project (simulated payments
of Le Borgne et al. 2022, "Reproducible Machine Learning for Credit Card Fraud
Detection"); the feature definitions are those of its chapter 3.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

DAY_MS = 86_400_000
WINDOWS_DAYS = (1, 7, 30)
#: Largest difference of a mean or a share that still counts as equal.
TOLERANCE = 1e-6


def task() -> dict[str, Any]:
    """The task file with the handbook's 14 features and the amount."""
    features: list[Any] = ["amount", "weekday>=5", "hour<=6"]
    for days in WINDOWS_DAYS:
        window = f"{days}d"
        customer = {"entity": "customer", "window": window}
        terminal = {"entity": "terminal", "window": window, "delay": "7d"}
        risk = {"agg": "rate", "column": "label"}
        features += [
            {"name": f"customer_nb_{window}", "agg": "count", **customer},
            {
                "name": f"customer_avg_{window}",
                "agg": "mean",
                "column": "amount",
                **customer,
            },
            {"name": f"terminal_nb_{window}", "agg": "count", **terminal},
            {"name": f"terminal_risk_{window}", **risk, **terminal},
        ]
    return {
        "name": "handbook",
        "entities": {"customer": "customer", "terminal": "terminal"},
        "features": features,
        "modalities": {},
        "label": {"delay": "7d"},
        "alerts_per_day": 100,
    }


#: Our name of each published feature.
PUBLISHED = {
    "TX_DURING_WEEKEND": "weekday>=5",
    "TX_DURING_NIGHT": "hour<=6",
    **{
        f"{entity.upper()}_ID_{name}_{days}DAY_WINDOW": f"{entity}_{ours}_{days}d"
        for entity, pairs in (
            ("customer", (("NB_TX", "nb"), ("AVG_AMOUNT", "avg"))),
            ("terminal", (("NB_TX", "nb"), ("RISK", "risk"))),
        )
        for name, ours in pairs
        for days in WINDOWS_DAYS
    },
}


def write_archive(data: Path, out: Path, *, until: str | None = None) -> int:
    """Writes archive and task file; gives how many payments there are.

    Args:
        data: folder with transactions.parquet.
        out: folder to write.
        until: leave out payments from this day on (2018-05-01).
    """
    table = pq.read_table(data / "transactions.parquet")
    if until is not None:
        day = pa.scalar(np.datetime64(until, "ms"), pa.timestamp("ms"))
        table = table.filter(pc.less(table.column("TX_DATETIME"), day))
    ids = pc.binary_join_element_wise(
        "t", pc.utf8_lpad(table.column("TRANSACTION_ID").cast(pa.string()), 9, "0"), ""
    )
    times = table.column("TX_DATETIME").cast(pa.timestamp("ms", "UTC"))
    payments = {
        "event_id": ids,
        "case_id": ids,
        "event_time": times,
        "customer": table.column("CUSTOMER_ID").cast(pa.int64()),
        "terminal": table.column("TERMINAL_ID").cast(pa.int64()),
        "amount": pc.divide(table.column("TX_AMOUNT_CENTS").cast(pa.float64()), 100.0),
    }
    later = pa.array(times.cast(pa.int64()).to_numpy() + 7 * DAY_MS)
    labels = {
        "case_id": ids,
        "label_time": later.cast(pa.timestamp("ms", "UTC")),
        "label": table.column("TX_FRAUD").cast(pa.int8()),
    }
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(payments), out / "tabular.parquet")
    pq.write_table(pa.table(labels), out / "labels.parquet")
    (out / "task.json").write_text(json.dumps(task(), indent=2) + "\n")
    return int(table.num_rows)


def compare(data: Path, features: Path) -> dict[str, Any]:
    """How many rows of each published feature are equal, and where they are not."""
    ours = pq.read_table(features)
    theirs = pq.read_table(data / "features.parquet")
    number = pc.utf8_slice_codeunits(ours.column("event_id"), 1).cast(pa.int64())
    place = np.full(int(pc.max(number).as_py()) + 1, -1, dtype=np.int64)
    place[number.to_numpy()] = np.arange(len(number))
    wanted = theirs.column("TRANSACTION_ID").to_numpy()
    rows = place[wanted[wanted < len(place)]]
    there = np.flatnonzero(rows >= 0)
    rows = rows[there]
    twins = _same_second(data)
    found: dict[str, Any] = {"rows_compared": len(rows), "features": {}}
    different: set[int] = set()
    for name, our_name in PUBLISHED.items():
        published = theirs.column(name).to_numpy()[there].astype(np.float64)
        values = ours.column(our_name).to_numpy()[rows]
        exact = name.startswith("TX_") or "NB_TX" in name
        off = np.abs(values - published)
        wrong = np.flatnonzero(~(off <= (0.0 if exact else TOLERANCE)))
        ids = wanted[there][wrong]
        excused = np.isin(ids, twins)
        different.update(int(x) for x in ids[excused])
        found["features"][name] = {
            "equal": len(rows) - len(wrong),
            "either_order": int(excused.sum()),
            "wrong": int((~excused).sum()),
        }
    found["either_order_rows"] = sorted(different)
    found["wrong"] = sum(one["wrong"] for one in found["features"].values())
    return found


def _same_second(data: Path) -> NDArray[np.int64]:
    """Payments of a customer who has two of one second: their order is not told."""
    names = ["TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID"]
    table = pq.read_table(data / "transactions.parquet", columns=names)
    keys = ["TX_DATETIME", "CUSTOMER_ID"]
    twice = table.group_by(keys).aggregate([("TRANSACTION_ID", "count")])
    twice = twice.filter(pc.greater(twice.column("TRANSACTION_ID_count"), 1))
    ids: NDArray[np.int64] = (
        table.join(twice, keys, join_type="inner").column("TRANSACTION_ID").to_numpy()
    )
    return ids.astype(np.int64)


def main() -> int:
    """Make the archive, or compare; exit code 1 when a value is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m benchmarks.handbook archive DATA OUT",
    )
    parts = parser.add_subparsers(dest="part", required=True)
    made = parts.add_parser("archive")
    made.add_argument("data", type=Path, help="folder of transactions.parquet")
    made.add_argument("out", type=Path)
    made.add_argument("--until", help="first day left out")
    held = parts.add_parser("compare")
    held.add_argument("data", type=Path, help="folder of features.parquet")
    held.add_argument("features", type=Path)
    args = parser.parse_args()
    if args.part == "archive":
        rows = write_archive(args.data, args.out, until=args.until)
        print(f"{rows} payments and labels in {args.out}, task in task.json")
        return 0
    found = compare(args.data, args.features)
    print(json.dumps(found, indent=2))
    return 1 if found["wrong"] or not found["rows_compared"] else 0


if __name__ == "__main__":
    sys.exit(main())
