from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from automl.arrival import backfill
from automl.task import TaskSpec
from benchmarks.bare import BareFeatures, fill
from benchmarks.by_hand import FeaturesByHand
from benchmarks.payments import (
    DAY_MS,
    START_MS,
    PaymentFrames,
    PaymentObjects,
    Payments,
    payments_task,
)


def pay(case: str, day: float, amount: float, customer: str = "c", terminal: str = "p"):
    return {
        "case_id": case,
        "event_time_ms": START_MS + int(day * DAY_MS),
        "amount": amount,
        "customer": customer,
        "terminal": terminal,
    }


def few_payments(rows: int = 6_000) -> Payments:
    """Few customers and terminals: windows of many rows in a small sample."""
    draw = np.random.default_rng(4)
    return Payments(
        draw.integers(40, size=rows),
        draw.integers(60, size=rows),
        draw.integers(1, 30_000, size=rows),
        draw.random(rows) < 0.2,
    )


def test_a_customer_sees_the_windows_that_end_with_its_payment():
    features = FeaturesByHand()
    rows = features.rows(
        [pay("a", 0, 10.0), pay("b", 0.5, 20.0), pay("d", 1, 30.0), pay("e", 8, 40.0)]
    )
    # 2010-01-01 was a Friday; counts of 1, 7, 30 days, then means
    assert rows[0][:9] == [10.0, 0.0, 1.0, 1, 1, 1, 10.0, 10.0, 10.0]
    assert rows[1][3:9] == [2, 2, 2, 15.0, 15.0, 15.0]
    assert rows[2][1:9] == [1.0, 1.0, 2, 3, 3, 25.0, 20.0, 20.0]  # a is a day old: out
    assert rows[3][3:9] == [1, 1, 4, 40.0, 40.0, 25.0]


def test_a_terminal_counts_frauds_a_week_later():
    features = FeaturesByHand()
    features.labels.update({"a": 1, "b": 0})
    rows = features.rows(
        [pay("a", 0, 1.0), pay("b", 0.5, 1.0), pay("d", 7, 1.0), pay("e", 8, 1.0)]
    )
    assert rows[1][9:] == [0, 0, 0, 0.0, 0.0, 0.0]
    assert rows[2][9:] == [1, 1, 1, 1.0, 1.0, 1.0]
    assert rows[3][9:] == [1, 2, 2, 0.0, 0.5, 0.5]


def test_by_hand_bare_and_backfill_give_the_same_features():
    payments = few_payments()
    frames, objects = PaymentFrames(payments), PaymentObjects(payments)
    step = 61  # every 61st payment: 6,000 of them span 38 days
    numbers = range(0, 6_000 * step, step)
    events = [json.loads(objects.value(number, 0)) for number in numbers]
    batches = [frames.batch(number, 1, 0) for number in numbers]
    labels = pa.Table.from_batches([frames.labels(number, 1) for number in numbers])
    table = pa.Table.from_batches(batches)
    spec = TaskSpec.from_json(payments_task()).resolve(
        {"customer": "string", "terminal": "string", "amount": "number"}
    )
    by_hand = FeaturesByHand()
    by_hand.labels.update(
        zip(
            labels.column("case_id").to_pylist(),
            labels.column("label").to_pylist(),
            strict=True,
        )
    )
    rows = np.array(by_hand.rows(events))
    found = backfill(spec, table, labels)
    expected = np.column_stack([found.column(n).to_numpy() for n in spec.feature_names])
    np.testing.assert_allclose(rows, expected, rtol=1e-12)
    assert (expected[:, -1] > 0).mean() > 0.3

    bare = BareFeatures(spec)
    for batch in labels.to_batches():
        bare.add_labels(batch)
    whole = table.combine_chunks().to_batches()[0]
    seen = [bare.rows(whole.slice(at, 512)) for at in range(0, 6_000, 512)]
    np.testing.assert_array_equal(np.concatenate(seen), expected)


def test_filling_ends_on_whole_frames_of_labels():
    spec = TaskSpec.from_json(payments_task()).resolve(
        {"customer": "string", "terminal": "string", "amount": "number"}
    )
    features = BareFeatures(spec)
    assert fill(features, PaymentFrames(few_payments()), 0, 5_000) == 8_192
    assert features.engines["customer"].rows_kept == 8_192
