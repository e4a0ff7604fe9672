"""Windows and backfill: exact values, one definition for stream and archive."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from automl.features import (
    FeatureAssembler,
    ShardWindows,
    backfill,
    column_kinds,
    event_columns,
    row_features,
)
from automl.task import TaskSpec, WindowFeature

HANDBOOK = Path(__file__).parents[3] / "shared" / "data" / "fraud-handbook"
KINDS = {"card": "string", "amount": "number", "channel": "string", "is_new": "bool"}
SECOND, DAY = 1_000, 86_400_000


def resolved(*features: Any) -> TaskSpec:
    source = {"name": "t", "entities": {"card": "card"}, "features": list(features)}
    return TaskSpec.from_json(source).resolve(KINDS)


def feature(agg: str, window: str = "10s", **keys: Any) -> dict[str, Any]:
    name = "_".join([agg, window, *keys.values()])
    return {"name": name, "entity": "card", "agg": agg, "window": window, **keys}


def observe(
    windows: ShardWindows,
    times_ms: list[int],
    amounts: list[Any] | None = None,
    *,
    ids: list[Any] | None = None,
    **columns: list[Any],
) -> tuple[np.ndarray, list[bool]]:
    count = len(times_ms)
    given = {"amount": amounts or [1.0] * count, **columns}
    values, late = windows.observe(
        ids or ["c"] * count,
        np.array(times_ms, dtype=np.int64),
        {name: np.array(column, dtype=object) for name, column in given.items()},
    )
    return values, late.tolist()


def test_each_aggregation_of_three_rows_by_hand() -> None:
    aggs = ["count", "sum", "mean", "std", "min", "max", "distinct", "last", "rate"]
    spec = resolved(*(feature(agg, column="amount") for agg in aggs))
    values, late = observe(ShardWindows(spec, "card"), [0, 1, 2], [2.0, 0.0, 4.0])
    assert late == [False] * 3
    # one value 2; then 2 and 0: mean 1, both 1 away; then 2, 0, 4: mean 2, var 8/3
    assert values.tolist() == [
        [1, 2, 2, 0, 2, 2, 1, 2, 1],
        [2, 2, 1, 1, 0, 2, 2, 0, 0.5],
        [3, 6, 2, math.sqrt(8 / 3), 0, 4, 3, 4, 2 / 3],
    ]


def test_rate_without_a_column_is_rows_per_second() -> None:
    spec = resolved(feature("rate", "10s"), feature("rate", "10s", where="amount>1"))
    values, _ = observe(ShardWindows(spec, "card"), [0, 1, 2], [1.0, 2.0, 3.0])
    expected = [[0.1, 0.0], [0.2, 0.1], [0.3, 0.2]]
    np.testing.assert_allclose(values, expected, rtol=1e-15)


def test_the_window_is_open_on_the_left_and_closed_on_the_right() -> None:
    windows = ShardWindows(resolved(feature("count", "10s")), "card")
    values, _ = observe(windows, [0, 9_999, 10_000, 10_000, 10_001, 19_999])
    # 10,000 no longer sees 0; 19,999 sees (9999, 19999]
    assert values[:, 0].tolist() == [1, 2, 2, 3, 4, 4]


def test_rows_of_the_same_millisecond_see_those_that_came_before_only() -> None:
    spec = resolved(feature("count"), feature("last", column="amount"))
    values, _ = observe(ShardWindows(spec, "card"), [5, 5, 5], [1.0, 2.0, 3.0])
    assert values.tolist() == [[1, 1], [2, 2], [3, 3]]


def test_a_row_that_comes_late_sees_only_its_own_past_and_is_seen_after() -> None:
    spec = resolved(feature("sum", column="amount"), feature("last", column="amount"))
    windows = ShardWindows(spec, "card", lateness_ms=60 * SECOND)
    values, late = observe(
        windows, [1_000, 9_000, 4_000, 9_000], [1.0, 10.0, 100.0, 1000.0]
    )
    assert late == [False] * 4
    assert values.tolist() == [[1, 1], [11, 10], [101, 100], [1111, 1000]]


def test_entities_do_not_see_each_other_and_ids_compare_as_text() -> None:
    windows = ShardWindows(resolved(feature("count")), "card")
    values, _ = observe(windows, [1, 2, 3, 4], ids=[5, "6", "5", np.int16(5)])
    assert values[:, 0].tolist() == [1, 1, 2, 3]


def test_a_row_older_than_the_horizon_is_late_and_leaves_no_trace() -> None:
    spec = resolved(feature("count", "10s"), feature("count", "5s"))
    windows = ShardWindows(spec, "card")
    assert windows.horizon_ms == 10 * SECOND
    values, late = observe(windows, [20_000, 10_000, 9_999, 20_000])
    assert late == [False, False, True, False]
    assert values[1].tolist() == [1, 1]
    assert np.isnan(values[2]).all()
    assert values[3].tolist() == [2, 2]
    assert windows.rows().num_rows == 3
    # another entity has its own clock
    assert observe(windows, [1], ids=["other"])[1] == [False]


def test_a_row_that_is_late_within_one_call_depends_on_the_rows_before_it() -> None:
    windows = ShardWindows(resolved(feature("count", "1s")), "card")
    assert observe(windows, [0, 10_000, 0])[1] == [False, False, True]


def test_where_selects_rows_and_an_empty_selection_is_nan_or_zero() -> None:
    aggs = ["mean", "std", "min", "max", "last", "count", "sum", "distinct"]
    web = "channel=='web'"
    spec = resolved(*(feature(agg, column="amount", where=web) for agg in aggs))
    values, _ = observe(
        ShardWindows(spec, "card"),
        [0, 1, 2, 3],
        [5.0, 7.0, 100.0, 9.0],
        channel=["shop", "web", None, "web"],
    )
    assert np.isnan(values[0, :5]).all()
    assert values[0, 5:].tolist() == [0, 0, 0]
    assert values[1].tolist() == [7, 0, 7, 7, 7, 1, 7, 1]
    assert values[2].tolist() == values[1].tolist()
    assert values[3].tolist() == [8, 1, 7, 9, 9, 2, 16, 2]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("amount>2", [0, 0, 1]),
        ("amount>=2", [0, 1, 2]),
        ("amount!=2", [1, 1, 2]),
        ("channel!='a'", [0, 1, 1]),
        ("is_new==true", [1, 1, 1]),
        ("is_new!=true", [0, 1, 1]),
        ("card=='c'", [1, 2, 3]),
    ],
)
def test_every_comparison_counts_and_a_missing_value_never_does(
    where: str, expected: list[int]
) -> None:
    windows = ShardWindows(resolved(feature("count", where=where)), "card")
    values, _ = observe(
        windows,
        [0, 1, 2],
        [1.0, 2.0, 3.0],
        channel=["a", "b", None],
        is_new=[True, False, None],
        card=["c", "c", "c"],
    )
    assert values[:, 0].tolist() == expected


def test_missing_and_infinite_values_are_not_aggregated_but_rows_are_counted() -> None:
    spec = resolved(
        feature("count"),
        feature("count", column="amount"),
        feature("mean", column="amount"),
        feature("distinct", column="channel"),
    )
    windows = ShardWindows(spec, "card")
    values, _ = observe(
        windows,
        [0, 1, 2, 3],
        [4.0, None, math.inf, 8.0],
        channel=["a", None, "b", "a"],
    )
    assert values.tolist() == [[1, 1, 4, 1], [2, 1, 4, 1], [3, 1, 4, 2], [4, 2, 6, 2]]


def test_a_row_without_an_entity_is_not_added_and_not_late() -> None:
    windows = ShardWindows(resolved(feature("count")), "card")
    values, late = observe(windows, [1, 2, 3], ids=["c", None, "c"])
    assert late == [False] * 3
    assert math.isnan(values[1, 0])
    assert values[2, 0] == 2


def test_a_sum_is_rounded_once_whatever_the_order_and_the_size() -> None:
    spec = resolved(feature("sum", column="amount"))
    # added left to right in floats: 0.0 or 2.0; and infinity
    for amounts, total in (
        ([1e16, 1.0, 1.0, -1e16], 2.0),
        ([1e308, 1e308, -1e308, -1e308], 0.0),
    ):
        for order in (amounts, amounts[::-1]):
            values, _ = observe(ShardWindows(spec, "card"), [0] * 4, list(order))
            assert values[3, 0] == total
    values, _ = observe(ShardWindows(spec, "card"), [0, 0], [1.7e308, 1.7e308])
    assert values[1, 0] == math.inf


def test_no_rows_and_no_features_give_empty_arrays() -> None:
    windows = ShardWindows(resolved(feature("count")), "card")
    values, late = windows.observe([], np.array([], dtype=np.int64), {})
    assert values.shape == (0, 1)
    assert late.shape == (0,)
    bare = ShardWindows(resolved("hour"), "card")
    values, late = bare.observe(["c", "c"], np.array([1, 2]), {})
    assert values.shape == (2, 0)
    assert late.tolist() == [False, False]


def test_a_missing_column_is_named() -> None:
    windows = ShardWindows(resolved(feature("sum", column="amount")), "card")
    with pytest.raises(KeyError, match="'amount'"):
        windows.observe(["c"], np.array([1]), {})


def test_forget_drops_one_entity_and_nothing_else() -> None:
    windows = ShardWindows(resolved(feature("count")), "card")
    observe(windows, [1, 2, 3], ids=["a", "b", "a"])
    assert windows.forget("a") == 2
    assert windows.forget("a") == 0
    assert observe(windows, [4, 5], ids=["a", "b"])[0][:, 0].tolist() == [1, 2]


RICH = [
    feature(agg, window, **keys)
    for agg in ("count", "sum", "mean", "std", "min", "max", "distinct", "last", "rate")
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


def feed(
    windows: ShardWindows, rows: dict[str, list[Any]], first: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    part = {k: np.array(v[first:last], dtype=object) for k, v in rows.items()}
    return windows.observe(part["card"], part["t"].astype(np.int64), part)


def reference(
    spec: TaskSpec, rows: dict[str, list[Any]], late: np.ndarray
) -> np.ndarray:
    """The same values from the definition alone: scan all rows for each feature."""
    out = np.full((len(rows["t"]), len(spec.features)), np.nan)
    for i, time_ms in enumerate(rows["t"]):
        if late[i]:
            continue
        for j, f in enumerate(spec.features):
            assert isinstance(f, WindowFeature)
            seen = [
                k
                for k in range(i + 1)
                if not late[k]
                and rows["card"][k] == rows["card"][i]
                and time_ms - f.window_ms < rows["t"][k] <= time_ms
            ]
            if f.where is not None and f.where.column == "channel":
                seen = [k for k in seen if rows["channel"][k] == "web"]
            elif f.where is not None:
                seen = [k for k in seen if (rows["amount"][k] or 0) > 50]
            seen.sort(key=lambda k: (rows["t"][k], k))
            out[i, j] = plain_aggregate(f, [rows[f.column or "card"][k] for k in seen])
    return out


def plain_aggregate(f: WindowFeature, column: list[Any]) -> float:
    values = [v for v in column if v is not None]
    if f.agg == "rate" and f.column is None:
        return len(values) / (f.window_ms / 1000)
    if f.agg in ("count", "distinct"):
        return len(values if f.agg == "count" else set(values))
    if not values:
        return 0.0 if f.agg in ("sum", "rate") else math.nan
    numbers = np.array(values, dtype=np.float64)
    plain = {
        "sum": numbers.sum(),
        "mean": numbers.mean(),
        "std": numbers.std(),
        "min": numbers.min(),
        "max": numbers.max(),
        "last": numbers[-1],
        "rate": (numbers != 0).mean(),
    }
    return float(plain[f.agg])


def test_every_aggregation_equals_a_scan_of_all_rows() -> None:
    spec, rows = resolved(*RICH), random_rows(250, seed=1)
    values, late = feed(ShardWindows(spec, "card"), rows, 0, 250)
    assert 0 < late.sum() < 100
    np.testing.assert_allclose(
        values, reference(spec, rows, late), rtol=1e-12, atol=1e-6
    )


@pytest.mark.parametrize("lateness_ms", [None, 0, 4_000])
def test_pruned_and_restored_state_goes_on_bit_for_bit(lateness_ms: int | None) -> None:
    spec, rows, draw = resolved(*RICH), random_rows(3_000, seed=2), random.Random(3)
    undisturbed = ShardWindows(spec, "card", lateness_ms=lateness_ms)
    disturbed = ShardWindows(spec, "card", lateness_ms=lateness_ms)
    at, dropped, restored = 0, 0, 0
    while at < 3_000:
        end = min(3_000, at + draw.randint(1, 60))
        expected, expected_late = feed(undisturbed, rows, at, end)
        values, late = feed(disturbed, rows, at, end)
        assert late.tolist() == expected_late.tolist()
        assert values.tobytes() == expected.tobytes()
        if draw.random() < 0.5:
            dropped += disturbed.prune()
        if draw.random() < 0.5:
            snapshot = disturbed.rows()
            disturbed = ShardWindows(spec, "card", lateness_ms=lateness_ms)
            disturbed.restore(snapshot)
            assert disturbed.rows().equals(snapshot)
            restored += 1
        at = end
    assert dropped > 1_000
    assert restored > 10


def test_prune_keeps_what_the_oldest_answerable_row_can_see() -> None:
    windows = ShardWindows(resolved(feature("count", "10s")), "card")
    observe(windows, [0, 1, 20_000])
    # the oldest row still answered is at 10,000: it sees (0, 10000]
    assert windows.prune() == 1
    assert observe(windows, [10_000])[0].tolist() == [[2]]


def test_the_batch_size_does_not_change_a_bit() -> None:
    spec, rows = resolved(*RICH), random_rows(400, seed=4)
    whole, _ = feed(ShardWindows(spec, "card"), rows, 0, 400)
    single = ShardWindows(spec, "card")
    parts = [feed(single, rows, row, row + 1)[0] for row in range(400)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_calendar_features_are_utc_with_monday_0() -> None:
    # 2018-05-12 is a Saturday; 1969-12-31 a Wednesday
    stamps = ["2018-05-12T06:59:59.999", "2018-05-12T07:00", "1969-12-31T23:00"]
    times_ms = np.array(stamps, dtype="datetime64[ms]").astype(np.int64)
    spec = resolved("hour<=6", "weekday>=5", "hour", "weekday", "hour==7")
    assert row_features(spec, times_ms, {}).tolist() == [
        [1, 1, 6, 5, 0],
        [0, 1, 7, 5, 1],
        [0, 0, 23, 2, 0],
    ]


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

    windows, assembler = ShardWindows(spec, "card"), FeatureAssembler(spec)
    ordered = table.sort_by([("event_time", "ascending"), ("event_id", "ascending")])
    for row in range(len(ordered)):
        frame = ordered.slice(row, 1).combine_chunks().to_batches()[0]
        columns = event_columns(spec, frame)
        times_ms = frame["event_time"].cast(pa.int64()).to_numpy()
        seen, late = windows.observe(columns["card"], times_ms, columns)
        streamed = assembler.assemble(times_ms, columns, {"card": seen})
        offline = [out[name][row].as_py() for name in spec.feature_names]
        assert not late.any()
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
