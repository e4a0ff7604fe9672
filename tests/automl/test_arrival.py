"""Backfill: exact values, one definition for stream and archive."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from automl.arrival import backfill, in_arrival_order
from automl.features import FeatureAssembler, column_kinds, event_columns
from automl.task import TaskSpec
from automl.windows import EntityWindows
from tests.automl.drawn import KINDS, RICH, archive, feature, resolved

HANDBOOK = Path(__file__).parents[3] / "shared" / "data" / "fraud-handbook"
DAY_MS = 86_400_000


def test_backfill_equals_the_stream_row_by_row() -> None:
    table = archive()
    spec = resolved("amount", RICH[0], "hour<=6", *RICH[1:], "is_new")
    assert column_kinds(table.schema).items() >= KINDS.items()
    assert "note" not in column_kinds(table.schema)
    out = backfill(spec, table)
    fixed = ["event_id", "case_id", "event_time"]
    assert out.column_names == fixed + spec.feature_names
    keys = list(
        zip(out["event_time"].to_pylist(), out["event_id"].to_pylist(), strict=True)
    )
    assert keys == sorted(keys)

    windows, assembler = EntityWindows(spec, "card"), FeatureAssembler(spec)
    ordered = table.sort_by([("event_time", "ascending"), ("event_id", "ascending")])
    for row in range(len(ordered)):
        frame = ordered.slice(row, 1).combine_chunks().to_batches()[0]
        columns = event_columns(spec, frame)
        times_ms = frame["event_time"].cast(pa.int64()).to_numpy()
        seen = windows.observe(columns["card"], times_ms, columns)
        streamed = assembler.assemble(times_ms, columns, {"card": seen})
        offline = [out[name][row].as_py() for name in spec.feature_names]
        assert streamed.tobytes() == np.array([offline]).tobytes()


def test_backfill_does_not_depend_on_the_order_of_the_archive() -> None:
    table, spec = archive(), resolved(*RICH)
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    one, other = backfill(spec, table), backfill(spec, shuffled)
    assert one.schema == other.schema
    for name in one.column_names[:3]:
        assert one[name].equals(other[name])
    for name in spec.feature_names:
        assert one[name].to_numpy().tobytes() == other[name].to_numpy().tobytes()


def test_backfill_of_an_empty_archive_is_empty() -> None:
    out = backfill(resolved(*RICH), archive().slice(0, 0))
    assert out.num_rows == 0
    assert out.num_columns == 3 + len(RICH)


def test_entity_ids_must_not_be_floats() -> None:
    table = archive().drop_columns(["card"])
    table = table.append_column("card", pa.array([1.5] * len(table)))
    with pytest.raises(TypeError, match="'card': expected string or integer"):
        backfill(resolved("hour", feature("count")), table)


@pytest.mark.skipif(not HANDBOOK.is_dir(), reason="no ../shared/data/fraud-handbook")
def test_the_published_customer_features_come_out() -> None:
    raw = pq.read_table(HANDBOOK / "transactions.parquet")
    raw = raw.filter(
        pc.is_in(raw["CUSTOMER_ID"], pa.array(range(100, 120), pa.int16()))
    )
    ids = pc.cast(raw["TRANSACTION_ID"], pa.string())
    table = pa.table(
        {
            "event_id": pc.utf8_lpad(ids, 9, "0"),
            "case_id": ids,
            "event_time": raw["TX_DATETIME"].cast(pa.timestamp("ms", "UTC")),
            "CUSTOMER_ID": raw["CUSTOMER_ID"],
            "amount": pc.divide(pc.cast(raw["TX_AMOUNT_CENTS"], pa.float64()), 100.0),
        }
    )
    wanted = [
        {"name": f"{agg}_{days}", "entity": "customer", "agg": agg}
        | {"column": "amount", "window": f"{days}d"}
        for days in (1, 7, 30)
        for agg in ("count", "mean")
    ]
    source = {"name": "fraud", "entities": {"customer": "CUSTOMER_ID"}}
    spec = TaskSpec.from_json(
        {**source, "features": ["weekday>=5", "hour<=6", *wanted]}
    ).resolve(column_kinds(table.schema))
    ours = {int(row["case_id"]): row for row in backfill(spec, table).to_pylist()}
    published = pq.read_table(HANDBOOK / "features.parquet")
    mine = pc.is_in(published["TRANSACTION_ID"], raw["TRANSACTION_ID"])
    rows = published.filter(mine).to_pylist()
    assert len(rows) > 500
    for row in rows:
        got = ours[row["TRANSACTION_ID"]]
        assert got["weekday>=5"] == row["TX_DURING_WEEKEND"]
        assert got["hour<=6"] == row["TX_DURING_NIGHT"]
        for days in (1, 7, 30):
            window = f"{days}DAY_WINDOW"
            assert got[f"count_{days}"] == row[f"CUSTOMER_ID_NB_TX_{window}"]
            average = row[f"CUSTOMER_ID_AVG_AMOUNT_{window}"]
            assert got[f"mean_{days}"] == pytest.approx(average, abs=1e-6)


def risk(**keys: str) -> dict[str, str]:
    return feature("rate", "1d", column="label", **keys)


def payments(times_ms: list[int]) -> pa.Table:
    ids = [f"e{i}" for i in range(len(times_ms))]
    at = pa.array(times_ms, pa.timestamp("ms", "UTC"))
    cards = ["c"] * len(ids)
    columns = {"event_id": ids, "case_id": ids, "event_time": at, "card": cards}
    return pa.table(columns)


def labels_of(*rows: tuple[str, int, int]) -> pa.Table:
    cases, times, labels = zip(*rows, strict=True)
    return pa.table(
        {
            "case_id": list(cases),
            "label_time": pa.array(times, pa.timestamp("ms", "UTC")),
            "label": pa.array(labels, pa.int8()),
        }
    )


def test_a_label_counts_from_its_label_time_on_and_never_before() -> None:
    table = payments([0, 999, 1000, 2000])
    labels = labels_of(("e0", 1000, 1), ("e1", 2000, 0))
    out = backfill(resolved(risk()), table, labels)
    assert out.column(3).to_pylist() == [0.0, 0.0, 1.0, 0.5]


def test_the_latest_label_of_a_case_counts() -> None:
    table = payments([0, 1000, 2000])
    labels = labels_of(("e0", 2000, 0), ("e0", 1000, 1))
    assert backfill(resolved(risk()), table, labels).column(3).to_pylist() == [0, 1, 0]


def test_a_delay_shifts_both_ends_of_the_window() -> None:
    table = payments([0, DAY_MS, 2 * DAY_MS - 1, 2 * DAY_MS])
    spec = resolved(feature("count", "1d", delay="1d"))
    # (t - 2 d, t - 1 d]: the first is seen from one day on, before two days
    assert backfill(spec, table).column(3).to_pylist() == [0, 1, 1, 1]
    spec = resolved(feature("count", "2d", delay="1d"))
    assert backfill(spec, table).column(3).to_pylist() == [0, 1, 1, 2]


def test_a_label_that_became_known_late_is_not_seen_before() -> None:
    table = payments([0, 1000, 2000])
    labels = labels_of(("e0", 500, 1)).append_column("known_from", pa.array([2]))
    matrix = in_arrival_order(resolved(risk()), table, labels)
    assert matrix[:, 0].tolist() == [0, 0, 1]
