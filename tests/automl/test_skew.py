"""Planted late events, late labels, missing sources and bugs, each found and named."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from automl.arrival import backfill, in_arrival_order
from automl.skew import CAUSES, Skew, explain_skew
from automl.task import TaskSpec

START_MS, DAY_MS = 1_760_000_000_000, 86_400_000
ROWS = 1_200
FEATURES = ["n", "paid", "shops", "risk", "amount"]


@pytest.fixture(scope="module")
def spec() -> TaskSpec:
    card, hours = {"entity": "card"}, {"window": "6h"}
    features = [
        {"name": "n", "agg": "count", **card, **hours},
        {"name": "paid", "agg": "sum", "column": "amount", **card, **hours},
        {"name": "shops", "agg": "distinct", "column": "shop", **card, **hours},
        {"name": "risk", "entity": "shop", "agg": "mean", "column": "label"}
        | {"window": "2d", "delay": "1h"},
        "amount",
    ]
    task = {"name": "t", "entities": {"card": "card", "shop": "shop"}}
    kinds = {"card": "string", "shop": "string", "amount": "number"}
    return TaskSpec.from_json({**task, "features": features}).resolve(kinds)


@pytest.fixture(scope="module")
def archive() -> pa.Table:
    """Four days of 20 cards at 6 shops, all at their own millisecond."""
    draw = np.random.default_rng(5)
    times = START_MS + np.sort(draw.choice(4 * DAY_MS, ROWS, replace=False))
    return pa.table(
        {
            "event_id": [f"e{i:04d}" for i in range(ROWS)],
            "case_id": [f"k{i:04d}" for i in range(ROWS)],
            "event_time": pa.array(times).cast(pa.timestamp("ms", "UTC")),
            "card": [f"c{x}" for x in draw.integers(0, 20, ROWS)],
            "shop": [f"s{x}" for x in draw.integers(0, 6, ROWS)],
            "amount": draw.uniform(1, 100, ROWS).round(2),
        }
    )


@pytest.fixture(scope="module")
def labels(archive: pa.Table) -> pa.Table:
    """A label of every case, three hours after its event."""
    times = pc.add(archive.column("event_time").cast(pa.int64()), 3 * 3_600_000)
    return pa.table(
        {
            "case_id": archive.column("case_id"),
            "label_time": times.cast(pa.timestamp("ms", "UTC")),
            "label": pa.array(np.arange(ROWS) % 3 == 0).cast(pa.int8()),
        }
    )


def serve(
    spec: TaskSpec, rows: pa.Table, labels: pa.Table, known_from: Any = None
) -> pa.Table:
    """What a stream without a fault serves of rows in this order."""
    if known_from is not None:
        labels = labels.append_column("known_from", pa.array(known_from, pa.int64()))
    return with_values(spec, rows, in_arrival_order(spec, rows, labels))


def with_values(spec: TaskSpec, rows: pa.Table, values: np.ndarray) -> pa.Table:
    table = rows.select(["event_id", "case_id", "event_time"])
    for index, name in enumerate(spec.feature_names):
        table = table.append_column(name, pa.array(values[:, index]))
    return table


def changed(table: pa.Table, name: str, row: int, value: float) -> pa.Table:
    column = table.column(name).to_pylist()
    column[row] = value
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(column, pa.float64()))


def without(table: pa.Table, *rows: int) -> pa.Table:
    return table.take(np.delete(np.arange(table.num_rows), rows))


def causes(found: Skew) -> dict[str, int]:
    return {name: count for name, count in found.causes.items() if count}


def listed(found: Skew, what: str) -> list[str]:
    rows = found.differences.filter(pc.equal(found.differences.column("what"), what))
    return rows.column("event_id").to_pylist()


def test_a_stream_without_a_fault_does_not_differ(spec, archive, labels) -> None:
    found = explain_skew(spec, archive, serve(spec, archive, labels), labels=labels)
    assert (found.rows, found.differing_rows, causes(found)) == (ROWS, 0, {})
    assert found.passes(0.0)
    assert found.explained == 1.0


def test_the_order_of_the_archives_rows_does_not_matter(spec, archive, labels) -> None:
    mixed = archive.take(np.random.default_rng(0).permutation(ROWS))
    found = explain_skew(spec, mixed, serve(spec, archive, labels), labels=labels)
    assert found.differing_rows == 0


def test_events_that_came_late_explain_what_others_did_not_see(
    spec, archive, labels
) -> None:
    order = np.arange(ROWS)
    order[400:430] = np.roll(order[400:430], -1)  # one event after 29 newer ones
    order[800:900] = order[800:900][::-1]
    served = serve(spec, archive.take(order), labels)
    found = explain_skew(spec, archive, served, labels=labels)
    assert causes(found).keys() == {"late_event"}
    assert found.explained == 1.0
    assert not found.passes(0.001)
    assert found.passes(1.0)
    assert set(found.by_feature) >= {"n", "paid"}
    assert "amount" not in found.by_feature
    first = found.differences.slice(0, 1).to_pylist()[0]
    assert first["served"] != first["backfill"]


def test_a_label_that_came_late_is_named(spec, archive, labels) -> None:
    # the stream knows each label a quarter of the stream after it could
    times = archive.column("event_time").cast(pa.int64()).to_numpy()
    due = labels.column("label_time").cast(pa.int64()).to_numpy()
    known = np.searchsorted(times, due) + ROWS // 4
    served = serve(spec, archive, labels, known)
    told = labels.append_column("known_from", pa.array(known))
    found = explain_skew(spec, archive, served, labels=told)
    assert causes(found).keys() == {"label_late"}
    assert set(found.by_feature) == {"risk"}
    # without knowing when labels were known nothing can be proved
    assert causes(explain_skew(spec, archive, served, labels=labels)).keys() == {"bug"}


def test_an_event_the_stream_never_had_is_a_missing_source(
    spec, archive, labels
) -> None:
    served = serve(spec, without(archive, 300, 700), labels)
    found = explain_skew(spec, archive, served, labels=labels)
    assert causes(found).keys() == {"missing_source"}
    assert listed(found, "not_served") == ["e0300", "e0700"]
    assert len(listed(found, "value")) > 2
    assert found.rows == ROWS


def test_an_event_that_was_refused_for_its_limits_is_a_missing_source_too(
    spec, archive, labels
) -> None:
    served = serve(spec, without(archive, 300), labels)
    aside = {"e0300": "limits"}
    found = explain_skew(spec, archive, served, labels=labels, aside=aside)
    assert causes(found).keys() == {"missing_source"}
    assert listed(found, "not_served") == []


def test_an_event_that_was_refused_as_too_late_is_a_late_event(
    spec, archive, labels
) -> None:
    served = serve(spec, without(archive, 300), labels)
    aside = {"e0300": "late"}
    found = explain_skew(spec, archive, served, labels=labels, aside=aside)
    assert causes(found).keys() == {"late_event"}
    assert found.rows == ROWS - 1


def test_what_the_stream_read_proves_what_the_archive_lacks(
    spec, archive, labels
) -> None:
    served, short = serve(spec, archive, labels), without(archive, 300)
    found = explain_skew(spec, short, served, labels=labels, sources=archive)
    assert causes(found).keys() == {"missing_source"}
    assert listed(found, "not_in_archive") == ["e0300"]
    assert found.unproved == 0


def test_what_the_archive_lacks_is_not_proved_without_the_sources(
    spec, archive, labels
) -> None:
    served = serve(spec, archive, labels)
    found = explain_skew(spec, without(archive, 300), served, labels=labels)
    assert causes(found).keys() == {"missing_source"}
    assert found.unproved == found.differences.num_rows - 1 > 0
    # a feature of the row alone cannot be excused like that
    wrong = changed(served, "amount", 301, -1.0)
    worse = explain_skew(spec, without(archive, 300), wrong, labels=labels)
    assert worse.bugs == 1


@pytest.mark.parametrize("name", FEATURES)
def test_a_wrong_value_is_a_bug(spec, archive, labels, name) -> None:
    served = serve(spec, archive, labels)
    value = np.nextafter(served.column(name)[1000].as_py(), np.inf)
    wrong = changed(served, name, 1000, float(value))
    found = explain_skew(spec, archive, wrong, labels=labels)
    (difference,) = found.differences.to_pylist()
    assert difference["event_id"] == "e1000"
    assert (difference["feature"], difference["cause"]) == (name, "bug")
    assert not found.passes(1.0)
    near = explain_skew(spec, archive, wrong, labels=labels, tolerance=1e-9)
    assert near.differences.num_rows == 0


def test_a_bug_is_told_from_all_that_came_with_it(spec, archive, labels) -> None:
    kept = without(archive, 150)
    order = np.arange(ROWS - 1)
    order[500:520] = order[500:520][::-1]
    order[900:950] = order[900:950][::-1]
    rows = kept.take(order)
    known = np.full(ROWS, 600)
    known[::2] = 0
    served = serve(spec, rows, labels, known)
    wrong = changed(served, "paid", 1100, 7.0)
    told = labels.append_column("known_from", pa.array(known))
    found = explain_skew(spec, archive, wrong, labels=told)
    assert causes(found).keys() == set(CAUSES)
    assert found.bugs == 1
    clean = explain_skew(spec, archive, served, labels=told)
    assert clean.bugs == 0
    assert clean.explained == 1.0


def test_of_a_row_served_twice_the_first_counts(spec, archive, labels) -> None:
    served = serve(spec, archive, labels)
    again = served.slice(600, 50)
    twice = pa.concat_tables([served.slice(0, 650), again, served.slice(650)])
    assert explain_skew(spec, archive, twice, labels=labels).differing_rows == 0
    other = changed(twice, "n", 655, 99.0)
    found = explain_skew(spec, archive, other, labels=labels)
    assert listed(found, "repeat") == ["e0605"]
    assert found.bugs == 1


def test_an_event_sent_twice_is_in_the_windows_twice(spec, archive, labels) -> None:
    sent = pa.concat_tables([archive.slice(0, 601), archive.slice(600)])
    served = serve(spec, sent, labels)  # the case had it before: one row is served
    once = without(served, 601)
    found = explain_skew(spec, sent, once, labels=labels)
    assert found.differences.num_rows == 0


def test_rows_before_a_time_only_fill_the_windows(spec, archive, labels) -> None:
    served = changed(serve(spec, archive, labels), "n", 5, 99.0)
    since = archive.column("event_time")[100].value
    found = explain_skew(spec, archive, served, labels=labels, since_ms=since)
    assert (found.rows, found.differing_rows) == (ROWS - 100, 0)


def test_a_feature_that_was_not_served_is_refused(spec, archive, labels) -> None:
    served = serve(spec, archive, labels).drop_columns(["risk"])
    with pytest.raises(ValueError, match="column 'risk' is missing"):
        explain_skew(spec, archive, served, labels=labels)


def test_nothing_served_of_an_empty_archive_is_no_skew(spec, archive, labels) -> None:
    nothing = archive.slice(0, 0)
    found = explain_skew(spec, nothing, serve(spec, nothing, labels), labels=labels)
    assert (found.rows, found.share, found.explained) == (0, 0.0, 1.0)


def test_the_backfill_is_what_a_stream_in_time_order_serves(
    spec, archive, labels
) -> None:
    values = backfill(spec, archive, labels).select(FEATURES).to_pandas().to_numpy()
    served = in_arrival_order(spec, archive, labels)
    np.testing.assert_array_equal(values, served)
