"""Turns the composed quad-fraud data into an archive with all four modalities."""

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

from connectors.archive import Archive, write_archive
from connectors.records import MEDIA, Modality
from connectors.schemas import LABELS, TIME

LABEL_DELAY_MS = 7 * 86_400_000
SPLITS = ("train", "test")
_NEEDED = (
    "quad-fraud/{split}_links.parquet",
    "fraud-handbook/transactions.parquet",
    "sms-spam/messages.parquet",
    "av-digits/images.parquet",
    "av-digits/audio.parquet",
)
#: Modality -> (file of items, id column, content column in that file).
_ITEMS = {
    "text": ("sms-spam/messages.parquet", "text_id", "text"),
    "image": ("av-digits/images.parquet", "image_id", "png"),
    "audio": ("av-digits/audio.parquet", "audio_id", "wav"),
}
_EXAMPLE = """example:
  python benchmarks/quad_fraud_archive.py --data shared/data --split test \\
      --cases 5000 --out /tmp/quad-fraud
"""


class SourceError(Exception):
    """The source data is not as expected; says which file and what is wrong."""


def build_archive(
    data: Path,
    *,
    split: str,
    cases: int | None = None,
    sample_seed: int | None = None,
    history: bool = False,
) -> Archive:
    """The archive of one split.

    Args:
        data: folder that holds quad-fraud, fraud-handbook, sms-spam and av-digits.
        split: "train" or "test".
        cases: keep so many: the first in time, or a sample when a seed is given.
        sample_seed: draws the sample; its cases keep their order in time.
        history: add every payment from the first one to the split's last, with its
            label; media are of the split's cases alone.

    Raises:
        SourceError: a file is missing, or a link points to no item.
    """
    for name in _NEEDED:
        file = data / name.format(split=split)
        if not file.is_file():
            msg = f"read {file}: no such file; --data is the folder of data sets"
            raise SourceError(msg)
    links = pq.read_table(data / f"quad-fraud/{split}_links.parquet")
    source = pq.read_table(data / "fraud-handbook/transactions.parquet")
    ids = links.column("TRANSACTION_ID")
    payments = _align(source, "TRANSACTION_ID", ids.take(pc.sort_indices(ids)))
    rows = _chosen(payments.num_rows, cases, sample_seed)
    payments = payments.take(pa.array(rows))
    links = _align(links, "TRANSACTION_ID", payments.column("TRANSACTION_ID"))
    all_payments = payments
    if history:  # a payment's number is its order in time
        last = pc.max(payments.column("TRANSACTION_ID"))
        all_payments = source.filter(pc.less_equal(source["TRANSACTION_ID"], last))
    tables: dict[Modality, pa.Table] = {"tabular": _tabular(all_payments)}
    for modality in MEDIA:
        tables[modality] = _media(data, modality, payments, links)
    return Archive(tables=tables, labels=_labels(all_payments))


def quad_task() -> dict[str, Any]:
    """The task file that belongs to the archive.

    Amounts and counts of the customer, frauds of both once their labels are known;
    a terminal's frauds come in runs of weeks, so its last known label says most.
    """
    customer: dict[str, Any] = {"entity": "customer"}
    terminal: dict[str, Any] = {"entity": "terminal"}
    amount: dict[str, Any] = {"column": "TX_AMOUNT"}
    label: dict[str, Any] = {"column": "label", "delay": "7d"}
    features: list[Any] = ["TX_AMOUNT", "weekday>=5", "hour<=6", "hour", "weekday"]

    def add(of: dict[str, Any], agg: str, windows: str, more: dict[str, Any]) -> None:
        for window in windows.split():
            stem = [of["entity"], more.get("column", "").lower(), agg, window]
            name = "_".join(part for part in stem if part)
            features.append({"name": name, **of, "agg": agg, "window": window, **more})

    add(customer, "count", "1h 1d 7d 30d", {})
    for agg in ("mean", "std", "min", "max", "ratio", "zscore"):
        add(customer, agg, "1d 7d 30d", amount)
    add(customer, "sum", "1d 7d 30d", label)
    add(customer, "age", "30d", {})
    add(terminal, "count", "1d 7d 30d", {})
    add(terminal, "rate", "1d 7d 14d 30d", label)
    add(terminal, "sum", "1d 7d 14d 30d", label)
    add(terminal, "last", "30d", label)
    add(terminal, "age", "30d", {})
    features.append(
        {"name": "terminal_large_age_30d", **terminal, "agg": "age", "window": "30d"}
        | {"where": "TX_AMOUNT>200"}
    )
    return {
        "name": "quad-fraud",
        "entities": {"customer": "CUSTOMER_ID", "terminal": "TERMINAL_ID"},
        "features": features,
        "modalities": {"text": {}, "image": {}, "audio": {}},
        "label": {"delay": "7d"},
        "metric": "average_precision",
        "search": {"budget_s": 60, "max_trials": 20},
        "alerts_per_day": 100,
        "latency_budget_ms": 50,
    }


def main(argv: list[str] | None = None) -> int:
    """Write the archive and its task.json; 0 when done, 1 when the source is wrong."""
    options = _parser().parse_args(argv)
    try:
        archive = build_archive(
            options.data,
            split=options.split,
            cases=options.cases,
            sample_seed=options.sample,
            history=options.history,
        )
    except SourceError as error:
        print(f"quad_fraud_archive: {error}", file=sys.stderr)
        return 1
    write_archive(options.out, archive)
    task = json.dumps(quad_task(), indent=2)
    (options.out / "task.json").write_text(task + "\n")
    counts = {modality: table.num_rows for modality, table in archive.tables.items()}
    print(json.dumps({"out": str(options.out), "events": counts}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quad_fraud_archive",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--cases", type=_positive, help="keep the first N in time")
    parser.add_argument(
        "--sample", type=int, metavar="SEED", help="keep N drawn over the whole split"
    )
    parser.add_argument(
        "--history", action="store_true", help="add all payments up to the split's end"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        msg = f"expected 1 or more, got {value}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _chosen(
    rows: int, cases: int | None, sample_seed: int | None
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Row numbers to keep, ascending (a payment's number is its order in time)."""
    kept = rows if cases is None else min(cases, rows)
    if sample_seed is None:
        return np.arange(kept)
    chosen = np.random.default_rng(sample_seed).choice(rows, kept, replace=False)
    return np.asarray(np.sort(chosen), dtype=np.int64)


def _align(table: pa.Table, key: str, wanted: pa.ChunkedArray) -> pa.Table:
    """The rows of `table` whose key is wanted, in the wanted order."""
    rows = pc.index_in(wanted, value_set=table.column(key).combine_chunks())
    if rows.null_count:
        missing = wanted.filter(pc.is_null(rows))[0].as_py()
        msg = f"{key} {missing} is linked to, but no row has it; is the data complete?"
        raise SourceError(msg)
    return table.take(rows)


def _keys(payments: pa.Table, suffix: str) -> dict[str, pa.ChunkedArray]:
    case_id = payments.column("TRANSACTION_ID").cast(pa.string())
    return {
        "event_id": pc.binary_join_element_wise(case_id, suffix, "."),
        "case_id": case_id,
        "event_time": payments.column("TX_DATETIME").cast(TIME),
    }


def _tabular(payments: pa.Table) -> pa.Table:
    cents = payments.column("TX_AMOUNT_CENTS").cast(pa.float64())
    columns = {
        **_keys(payments, "tab"),
        "CUSTOMER_ID": payments.column("CUSTOMER_ID").cast(pa.string()),
        "TERMINAL_ID": payments.column("TERMINAL_ID").cast(pa.string()),
        "TX_AMOUNT": pc.divide(cents, 100.0),
    }
    return pa.table(columns)


def _media(
    data: Path, modality: Modality, payments: pa.Table, links: pa.Table
) -> pa.Table:
    """One event for every payment that has an item of this modality."""
    file, key, content = _ITEMS[modality]
    present = pc.greater_equal(links.column(key), 0)
    wanted = links.column(key).filter(present)
    items = pq.read_table(data / file, columns=[key, content])
    items = items.set_column(0, key, items.column(key).cast(wanted.type))
    columns = _keys(payments.filter(present), modality[:3])
    name = "text" if modality == "text" else "payload"
    return pa.table({**columns, name: _align(items, key, wanted).column(content)})


def _labels(payments: pa.Table) -> pa.Table:
    time_ms = payments.column("TX_DATETIME").cast(pa.int64())
    columns = [
        payments.column("TRANSACTION_ID").cast(pa.string()),
        pc.add(time_ms, LABEL_DELAY_MS).cast(TIME),
        payments.column("TX_FRAUD"),
    ]
    return pa.table(columns, schema=LABELS)


if __name__ == "__main__":
    raise SystemExit(main())
