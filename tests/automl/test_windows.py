"""Windows: exact values by hand, whatever the frames, the pruning and the restarts."""

import math
import random
from typing import Any

import numpy as np
import pytest

from automl.keys import key_of
from automl.windows import EntityWindows
from tests.automl.drawn import RICH, as_columns, feature, random_rows, resolved

SECOND = 1_000


def observe(
    windows: EntityWindows,
    times_ms: list[int],
    amounts: list[Any] | None = None,
    *,
    ids: list[Any] | None = None,
    **columns: list[Any],
) -> np.ndarray:
    count = len(times_ms)
    keys = [0 if i is None else key_of(i) for i in ids or ["c"] * count]
    given = {"amount": amounts or [1.0] * count, "card": ["c"] * count, **columns}
    times = np.array(times_ms, dtype=np.int64)
    return windows.observe(np.array(keys, np.uint64), times, as_columns(given))


def test_each_aggregation_of_three_rows_by_hand() -> None:
    aggs = ["count", "sum", "mean", "std", "min", "max", "distinct", "last", "rate"]
    spec = resolved(*(feature(agg, column="amount") for agg in aggs))
    values = observe(EntityWindows(spec, "card"), [0, 1, 2], [2.0, 0.0, 4.0])
    # one value 2; then 2 and 0: mean 1, both 1 away; then 2, 0, 4: mean 2, var 8/3
    assert values.tolist() == [
        [1, 2, 2, 0, 2, 2, 1, 2, 1],
        [2, 2, 1, 1, 0, 2, 2, 0, 0.5],
        [3, 6, 2, math.sqrt(8 / 3), 0, 4, 3, 4, 2 / 3],
    ]


def test_a_row_is_set_against_the_rows_of_its_window() -> None:
    keys = {"column": "amount"}
    spec = resolved(feature("ratio", **keys), feature("zscore", **keys))
    values = observe(EntityWindows(spec, "card"), [0, 1, 2, 3], [2.0, 0.0, 4.0, None])
    # 2 alone; 0 against 2 and 0; 4 against 2, 0, 4: mean 2, variance 8/3; no value
    assert values[:3].tolist() == [[1, 0], [0, -1], [2, 2 / math.sqrt(8 / 3)]]
    assert np.isnan(values[3]).all()


def test_a_row_that_does_not_pass_is_not_set_against_those_that_do() -> None:
    keys = {"column": "amount", "where": "amount>1"}
    spec = resolved(feature("ratio", **keys), feature("zscore", delay="1s", **keys))
    values = observe(EntityWindows(spec, "card"), [0, 1_500, 1_600], [4.0, 1.0, 8.0])
    np.testing.assert_array_equal(values, [[1, np.nan], [np.nan, np.nan], [8 / 6, 0]])


def test_rate_without_a_column_is_rows_per_second() -> None:
    spec = resolved(feature("rate", "10s"), feature("rate", "10s", where="amount>1"))
    values = observe(EntityWindows(spec, "card"), [0, 1, 2], [1.0, 2.0, 3.0])
    expected = [[0.1, 0.0], [0.2, 0.1], [0.3, 0.2]]
    np.testing.assert_allclose(values, expected, rtol=1e-15)


def test_the_window_is_open_on_the_left_and_closed_on_the_right() -> None:
    windows = EntityWindows(resolved(feature("count", "10s")), "card")
    values = observe(windows, [0, 9_999, 10_000, 10_000, 10_001, 19_999])
    # 10,000 no longer sees 0; 19,999 sees (9999, 19999]
    assert values[:, 0].tolist() == [1, 2, 2, 3, 4, 4]


def test_rows_of_the_same_millisecond_see_those_that_came_before_only() -> None:
    spec = resolved(feature("count"), feature("last", column="amount"))
    values = observe(EntityWindows(spec, "card"), [5, 5, 5], [1.0, 2.0, 3.0])
    assert values.tolist() == [[1, 1], [2, 2], [3, 3]]


def test_a_row_that_comes_late_sees_only_its_own_past_and_is_seen_after() -> None:
    spec = resolved(feature("sum", column="amount"), feature("last", column="amount"))
    windows = EntityWindows(spec, "card")
    values = observe(windows, [1_000, 9_000, 4_000, 9_000], [1.0, 10.0, 100.0, 1000.0])
    assert values.tolist() == [[1, 1], [11, 10], [101, 100], [1111, 1000]]


def test_entities_do_not_see_each_other_and_ids_compare_as_text() -> None:
    windows = EntityWindows(resolved(feature("count")), "card")
    values = observe(windows, [1, 2, 3, 4], ids=[5, "6", "5", 5])
    assert values[:, 0].tolist() == [1, 1, 2, 3]


def test_where_selects_rows_and_an_empty_selection_is_nan_or_zero() -> None:
    aggs = ["mean", "std", "min", "max", "last", "count", "sum", "distinct"]
    web = "channel=='web'"
    spec = resolved(*(feature(agg, column="amount", where=web) for agg in aggs))
    values = observe(
        EntityWindows(spec, "card"),
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
    windows = EntityWindows(resolved(feature("count", where=where)), "card")
    values = observe(
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
    windows = EntityWindows(spec, "card")
    values = observe(
        windows,
        [0, 1, 2, 3],
        [4.0, None, math.inf, 8.0],
        channel=["a", None, "b", "a"],
    )
    assert values.tolist() == [[1, 1, 4, 1], [2, 1, 4, 1], [3, 1, 4, 2], [4, 2, 6, 2]]


def test_a_row_without_an_entity_is_not_added() -> None:
    windows = EntityWindows(resolved(feature("count")), "card")
    values = observe(windows, [1, 2, 3], ids=["c", None, "c"])
    assert math.isnan(values[1, 0])
    assert values[2, 0] == 2


def feed(
    windows: EntityWindows, rows: dict[str, Any], first: int, last: int, **more: Any
) -> np.ndarray:
    part = {k: v[first:last] for k, v in rows.items()}
    return windows.observe(part["card"], part["t"], part, **more)


def drawn(count: int, seed: int) -> dict[str, Any]:
    rows = as_columns(random_rows(count, seed))
    return {**rows, "t": rows["t"].astype(np.int64)}


def test_a_sum_is_rounded_once_whatever_the_order() -> None:
    spec = resolved(feature("sum", column="amount"))
    # added left to right in floats it would be 0.0 or 0.0001220703125
    amounts = [1e12, 1e-4, 1e-4, -1e12]
    for order in (amounts, amounts[::-1]):
        values = observe(EntityWindows(spec, "card"), [0] * 4, list(order))
        assert values[3, 0] == 2e-4


def test_no_rows_and_no_features_give_empty_arrays() -> None:
    assert observe(EntityWindows(resolved(feature("count")), "card"), []).shape == (
        0,
        1,
    )
    bare = EntityWindows(resolved("hour"), "card")
    assert observe(bare, [1, 2]).shape == (2, 0)


def test_the_age_is_that_of_the_row_before_in_seconds() -> None:
    spec = resolved(feature("age", "10s"), feature("age", "10s", where="amount>1"))
    values = observe(
        EntityWindows(spec, "card"), [0, 2_500, 5_000, 20_000], [2.0, 1.0, 3.0, 4.0]
    )
    assert values[1:3].tolist() == [[2.5, 2.5], [2.5, 5.0]]
    assert np.isnan(values[[0, 3]]).all()


def test_the_frame_size_does_not_change_a_bit() -> None:
    spec, rows = resolved(*RICH), drawn(400, seed=4)
    whole = feed(EntityWindows(spec, "card"), rows, 0, 400)
    single = EntityWindows(spec, "card")
    parts = [feed(single, rows, row, row + 1) for row in range(400)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_pruned_and_restored_state_goes_on_bit_for_bit() -> None:
    spec, rows, draw = resolved(*RICH), drawn(3_000, seed=2), random.Random(3)
    undisturbed, disturbed = EntityWindows(spec, "card"), EntityWindows(spec, "card")
    clock = np.maximum.accumulate(rows["t"]) - 20 * SECOND
    at = restored = 0
    while at < 3_000:
        end = min(3_000, at + draw.randint(1, 60))
        expected = feed(undisturbed, rows, at, end, clock_ms=clock[at:end])
        values = feed(disturbed, rows, at, end, clock_ms=clock[at:end])
        assert values.tobytes() == expected.tobytes()
        if draw.random() < 0.3:
            parts = [p for shard in range(3) for p in disturbed.dump(3, shard)]
            disturbed = EntityWindows(spec, "card")
            for part in parts:
                disturbed.restore(part)
            restored += 1
        at = end
    assert restored > 10
    assert undisturbed.rows_kept < 1_500


def test_what_is_pruned_changes_no_value() -> None:
    spec, rows = resolved(*RICH), drawn(2_000, seed=6)
    kept = feed(EntityWindows(spec, "card"), rows, 0, 2_000)
    clock = np.maximum.accumulate(rows["t"]) - 26 * SECOND
    windows = EntityWindows(spec, "card")
    pruned = feed(windows, rows, 0, 2_000, clock_ms=clock)
    assert pruned.tobytes() == kept.tobytes()
    assert windows.rows_kept < 1_000


def test_entities_that_are_silent_are_forgotten_and_memory_stays() -> None:
    windows = EntityWindows(resolved(feature("count", "10s")), "card")
    sizes = []
    for step in range(60):
        times = np.arange(step * 5_000, (step + 1) * 5_000, 5)
        keys = np.arange(1 + step * 1_000, 1 + (step + 1) * 1_000, dtype=np.uint64)
        windows.observe(keys * np.uint64(2**40 + 1), times, {}, clock_ms=times)
        sizes.append((windows.entities, windows.memory_bytes))
    assert max(entities for entities, _ in sizes) < 10_000
    assert sizes[-1][1] == sizes[20][1]


def test_a_hot_entity_is_exact_in_its_head_and_off_by_less_than_a_tile_behind() -> None:
    spec = resolved(
        feature("count", "5s"),
        feature("count", "20s"),
        feature("sum", "20s", column="amount"),
        feature("max", "20s", column="amount"),
    )
    windows = EntityWindows(spec, "card", head_rows=8_192)
    rows = 40_000
    amounts = list(np.random.default_rng(0).integers(0, 100, rows).astype(float))
    values = np.concatenate(
        [
            observe(windows, [*range(at, at + 500)], amounts[at : at + 500])
            for at in range(0, rows, 500)
        ]
    )
    # a row a millisecond: 4,096 rows at least are kept as they are, 5 s are more
    wanted = np.minimum(np.arange(1, rows + 1)[:, None], [5_000, 20_000])
    off = values[:, :2] - wanted
    assert off.min() == 0
    assert off.max() == 63
    assert (off[:8_000] == 0).all()
    sums = np.cumsum([0.0, *amounts])
    for row in (8_000, 30_000, 39_999):
        begin = row + 1 - int(values[row, 1])
        assert values[row, 2] == sums[row + 1] - sums[begin]
        assert values[row, 3] == max(amounts[begin : row + 1])
    assert windows.rows_kept < 8_192


def test_a_hot_entity_goes_on_after_a_restart() -> None:
    spec = resolved(feature("count", "20s"), feature("sum", "20s", column="amount"))
    steady, broken = (
        EntityWindows(spec, "card", head_rows=8_192),
        EntityWindows(spec, "card", head_rows=8_192),
    )
    for at in range(0, 30_000, 1_000):
        times, amounts = [*range(at, at + 1_000)], [float(at % 7)] * 1_000
        expected = observe(steady, times, amounts)
        assert observe(broken, times, amounts).tobytes() == expected.tobytes()
        if at % 5_000 == 0:
            parts = [*broken.dump(1, 0)]
            broken = EntityWindows(spec, "card", head_rows=8_192)
            for part in parts:
                broken.restore(part)


def test_a_row_older_than_the_head_of_a_hot_entity_is_taken() -> None:
    spec = resolved(feature("count", "20s"))
    windows = EntityWindows(spec, "card", head_rows=8_192)
    for at in range(0, 10_000, 1_000):
        observe(windows, [*range(at, at + 1_000)])
    observe(windows, [5])
    assert observe(windows, [10_000])[0, 0] == 10_002


def test_labels_need_the_keys_of_the_cases() -> None:
    windows = EntityWindows(resolved(feature("rate", column="label")), "card")
    with pytest.raises(ValueError, match="case_keys"):
        observe(windows, [1])


@pytest.mark.parametrize("rows", [4096, 10_000])
def test_a_head_of_another_size_is_refused(rows: int) -> None:
    with pytest.raises(ValueError, match=f"power of two from 8192 on, got {rows}"):
        EntityWindows(resolved(feature("count")), "card", head_rows=rows)
