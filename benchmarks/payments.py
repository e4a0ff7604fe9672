"""Synthetic payments of the shape of a card fraud handbook: the measured workload.

5,000 customers pay at 10,000 terminals, 1.9 times a day each, so that windows of 1, 7
and 30 days hold what they hold in practice; 0.8 % of the payments are frauds. Event
time runs ahead of the clock: payment `n` happens `n` times nine seconds after `START`.

Legend: `B` rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.archive import Archive
from connectors.codec import encode_frame
from connectors.schemas import LABELS, TIME

DAY_MS = 86_400_000
#: 2010-01-01 UTC: fifty million payments later it is still the past.
START_MS = 1_262_304_000_000
CUSTOMERS, TERMINALS = 5_000, 10_000
PER_DAY = 9_600
STEP_MS = DAY_MS // PER_DAY
LABEL_DELAY_MS = 7 * DAY_MS
#: Payments after which the label of one is known.
LABEL_LAG = LABEL_DELAY_MS // STEP_MS
#: Payments drawn; then they come again, with other ids and times.
LAP = 1 << 17
ID_DIGITS = 9
#: The customer of the hot run, and its share of the payments.
HOT_CUSTOMER, HOT_SHARE = 0, 0.2
_OWN_TERMINALS = 40

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Payments:
    """A lap of payments as columns; row `i` stands for payments i, i + LAP, ...

    Attributes:
        customer: int64 (LAP,).
        terminal: int64 (LAP,).
        cents: int64 (LAP,).
        fraud: bool (LAP,).
    """

    customer: Int64s
    terminal: Int64s
    cents: Int64s
    fraud: npt.NDArray[np.bool_]


def draw_payments(seed: int = 0, *, hot: bool = False, rows: int = LAP) -> Payments:
    """The payments of a seed; with `hot`, one customer makes a fifth of them."""
    draw = np.random.default_rng(seed)
    pays = draw.gamma(4.0, size=CUSTOMERS)
    spends = draw.uniform(500, 10_000, CUSTOMERS)
    own = draw.integers(TERMINALS, size=(CUSTOMERS, _OWN_TERMINALS))
    customer = draw.choice(CUSTOMERS, size=rows, p=pays / pays.sum())
    terminal = own[customer, draw.integers(_OWN_TERMINALS, size=rows)]
    cents = np.maximum(1, draw.gamma(4.0, spends[customer] / 4.0)).astype(np.int64)
    taken_over = draw.random(TERMINALS) < 0.004
    fraud = taken_over[terminal] | (cents > 22_000)
    hit = draw.random(CUSTOMERS) < 0.004
    stolen = hit[customer] & (draw.random(rows) < 0.3)
    cents = np.where(stolen, cents * 5, cents)
    if hot:
        customer = np.where(draw.random(rows) < HOT_SHARE, HOT_CUSTOMER, customer)
    return Payments(customer.astype(np.int64), terminal, cents, fraud | stolen)


def event_times(first: int, rows: int) -> Int64s:
    """int64 (B,) milliseconds of payments `first` and those that follow."""
    times: Int64s = START_MS + np.arange(first, first + rows, dtype=np.int64) * STEP_MS
    return times


def ids(first: int, rows: int) -> pa.Array:
    """Texts (B,) `t000000000`, `t000000001`, ... without a Python object for each."""
    return texts_of("t", np.arange(first, first + rows, dtype=np.int64), ID_DIGITS)


def texts_of(letter: str, numbers: Int64s, digits: int) -> pa.Array:
    """A letter and a number of fixed width for each of the numbers."""
    width = digits + 1
    raw = np.empty((len(numbers), width), dtype=np.uint8)
    raw[:, 0] = ord(letter)
    scale = 10 ** np.arange(digits - 1, -1, -1, dtype=np.int64)
    raw[:, 1:] = numbers[:, None] // scale % 10 + ord("0")
    at = np.arange(len(numbers) + 1, dtype=np.int32) * width
    buffers = [None, pa.py_buffer(at), pa.py_buffer(raw)]
    return pa.Array.from_buffers(pa.string(), len(numbers), buffers)


class PaymentFrames:
    """Frames of payments and of their labels, by number; made before the clock starts.

    Args:
        payments: what is paid.
    """

    def __init__(self, payments: Payments) -> None:
        self._rows = len(payments.cents)
        # one and a bit laps, so that no frame has to be put together from two slices
        around = np.arange(self._rows + 4096) % self._rows
        self._customer = texts_of("c", payments.customer[around], 5)
        self._terminal = texts_of("p", payments.terminal[around], 5)
        self._amount = pa.array(payments.cents[around] / 100.0)
        self._fraud = payments.fraud[around].astype(np.int8)

    def batch(self, first: int, rows: int, created_ms: int | Int64s) -> pa.RecordBatch:
        """Payments `first` to `first + rows`, at most 4096."""
        at = first % self._rows
        name = ids(first, rows)
        return pa.RecordBatch.from_arrays(
            [
                name,
                name,
                pa.array(event_times(first, rows)).cast(TIME),
                pa.array(np.full(rows, created_ms, dtype=np.int64)),
                self._customer.slice(at, rows),
                self._terminal.slice(at, rows),
                self._amount.slice(at, rows),
            ],
            names=[
                "event_id",
                "case_id",
                "event_time",
                "created_ms",
                "customer",
                "terminal",
                "amount",
            ],
        )

    def frame(self, first: int, rows: int, created_ms: int | Int64s) -> bytes:
        """The Kafka value of `batch`."""
        return encode_frame(self.batch(first, rows, created_ms))

    def labels(self, first: int, rows: int) -> pa.RecordBatch:
        """The labels of payments `first` to `first + rows`, at most 4096."""
        at = first % self._rows
        known_ms = event_times(first, rows) + LABEL_DELAY_MS
        fraud = pa.array(self._fraud[at : at + rows])
        return pa.RecordBatch.from_arrays(
            [ids(first, rows), pa.array(known_ms).cast(TIME), fraud], schema=LABELS
        )

    def label_values(self, first: int, rows: int, partitions: int) -> list[bytes]:
        """Frames of labels, one for each partition: a case's labels stay in one."""
        batch = self.labels(first, rows)
        number = np.arange(first, first + rows) % partitions
        return [
            encode_frame(batch.filter(pa.array(number == partition)))
            for partition in range(partitions)
        ]


class PaymentObjects:
    """Payments as JSON objects, by number; all but ids and times is made beforehand.

    Args:
        payments: what is paid.
    """

    def __init__(self, payments: Payments) -> None:
        columns = zip(
            payments.customer.tolist(),
            payments.terminal.tolist(),
            (payments.cents / 100.0).tolist(),
            strict=True,
        )
        self._tails = [
            b',"customer":"c%05d","terminal":"p%05d","amount":%s}'
            % (customer, terminal, repr(amount).encode())
            for customer, terminal, amount in columns
        ]

    def value(self, number: int, created_ms: int) -> bytes:
        """The Kafka value of one payment."""
        return (
            b'{"event_id":"t%09d","case_id":"t%09d","event_time_ms":%d,"created_ms":%d'
            % (number, number, START_MS + number * STEP_MS, created_ms)
            + self._tails[number % len(self._tails)]
        )


def payments_task(*, labels: bool = True, name: str = "payments") -> dict[str, Any]:
    """The task file: the amount and the fourteen published features.

    Args:
        labels: False leaves out the three shares of frauds at a terminal.
        name: of the model.
    """

    def window(entity: str, agg: str, days: int, **more: str) -> Mapping[str, str]:
        named = {"name": f"{entity}_{agg}_{days}d", "entity": entity, "agg": agg}
        return {**named, "window": f"{days}d", **more}

    days = (1, 7, 30)
    late = {"delay": "7d"} if labels else {}
    terminal = [window("terminal", "count", d, **late) for d in days]
    if labels:
        terminal += [
            window("terminal", "rate", d, column="label", **late) for d in days
        ]
    customer = [window("customer", "count", d) for d in days]
    customer += [window("customer", "mean", d, column="amount") for d in days]
    return {
        "name": name,
        "entities": {"customer": "customer", "terminal": "terminal"},
        "features": ["amount", "weekday>=5", "hour<=6", *customer, *terminal],
        "modalities": {},
        "label": {"delay": "7d"},
        "alerts_per_day": 100,
    }


def payments_archive(count: int, seed: int = 0) -> Archive:
    """The first `count` payments with their labels, as an archive."""
    frames = PaymentFrames(draw_payments(seed))
    steps = [(at, min(4096, count - at)) for at in range(0, count, 4096)]
    events = [
        frames.batch(at, rows, 0).drop_columns(["created_ms"]) for at, rows in steps
    ]
    labels = [frames.labels(at, rows) for at, rows in steps]
    return Archive(
        tables={"tabular": pa.Table.from_batches(events)},
        labels=pa.Table.from_batches(labels),
    )
