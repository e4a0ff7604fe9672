from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from automl.task import TaskSpec
from benchmarks.payments import (
    CUSTOMERS,
    DAY_MS,
    HOT_SHARE,
    LABEL_DELAY_MS,
    LAP,
    PER_DAY,
    START_MS,
    TERMINALS,
    PaymentFrames,
    PaymentObjects,
    draw_payments,
    event_times,
    ids,
    payments_archive,
    payments_task,
    texts_of,
)
from connectors.codec import decode_frame
from connectors.events import EventReader
from connectors.records import Place

COLUMNS = {"customer": "id", "terminal": "id", "amount": "number"}


def test_payments_are_those_of_the_handbook_in_kind():
    payments = draw_payments(3)
    assert payments.customer.min() >= 0
    assert payments.customer.max() < CUSTOMERS
    assert payments.terminal.max() < TERMINALS
    assert 0.004 < payments.fraud.mean() < 0.013
    assert 2_000 < payments.cents.mean() < 9_000
    assert payments.cents.min() >= 1


def test_the_same_seed_draws_the_same_payments():
    first, second = draw_payments(5), draw_payments(5)
    assert all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("customer", "terminal", "cents", "fraud")
    )


def test_one_customer_makes_a_fifth_of_the_hot_payments():
    customer = draw_payments(1, hot=True).customer
    assert abs((customer == 0).mean() - HOT_SHARE) < 0.01


def test_a_day_of_event_time_holds_9600_payments():
    times = event_times(PER_DAY, 2)
    assert times.tolist() == [START_MS + DAY_MS, START_MS + DAY_MS + 9_000]


def test_ids_are_numbers_of_fixed_width():
    assert ids(41, 2).to_pylist() == ["t000000041", "t000000042"]
    assert texts_of("c", np.array([7, 4999]), 5).to_pylist() == ["c00007", "c04999"]


def test_a_frame_is_read_whole_by_the_job_and_laps_are_one_stream():
    frames = PaymentFrames(draw_payments())
    batch = decode_frame(frames.frame(LAP - 2, 4, 5))
    again = frames.batch(2 * LAP, 2, 5)
    assert batch.column("event_id").to_pylist() == [
        f"t{n:09d}" for n in range(LAP - 2, LAP + 2)
    ]
    assert batch.column("customer").slice(2).equals(again.column("customer"))
    reader = EventReader("tabular", columns=COLUMNS, now_ms=lambda: START_MS * 2)
    place = Place(topic="t", partition=0, offset=0)
    rows, letters = reader.read(frames.frame(0, 300, 5), place)
    assert letters == []
    assert rows is not None
    assert len(rows) == 300


def test_an_object_says_what_a_frame_says():
    payments = draw_payments()
    row = PaymentFrames(payments).batch(70, 1, 9).to_pylist()[0]
    found = json.loads(PaymentObjects(payments).value(70, 9))
    at_ms = round(row.pop("event_time").timestamp() * 1000)
    assert found == {**row, "event_time_ms": at_ms}


def test_a_label_comes_a_week_after_its_payment_and_stays_in_one_partition():
    payments = draw_payments()
    frames = PaymentFrames(payments)
    parts = [decode_frame(value) for value in frames.label_values(10, 5, 2)]
    assert [part.column("case_id").to_pylist() for part in parts] == [
        ["t000000010", "t000000012", "t000000014"],
        ["t000000011", "t000000013"],
    ]
    known = parts[0].column("label_time").cast(pa.int64()).to_pylist()
    assert known[0] == event_times(10, 1)[0] + LABEL_DELAY_MS
    assert parts[0].column("label").to_pylist() == [
        int(payments.fraud[n]) for n in (10, 12, 14)
    ]


def test_the_task_has_the_amount_and_the_fourteen_features():
    assert len(TaskSpec.from_json(payments_task()).feature_names) == 15
    without = TaskSpec.from_json(payments_task(labels=False)).feature_names
    assert len(without) == 12


def test_the_archive_has_every_payment_and_its_label():
    archive = payments_archive(5_000)
    assert archive.tables["tabular"].num_rows == 5_000
    assert archive.labels is not None
    assert archive.labels.num_rows == 5_000
