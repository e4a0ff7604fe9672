"""From the backfill to what the stream did, in steps, each one simulated.

Legend: `N` events, `F` features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from automl.arrival import KNOWN_FROM, backfill, in_arrival_order
from automl.served_rows import LATE, REPEATED, SERVED, Ints, ServedRows, time_order
from automl.task import TaskSpec

Matrix = npt.NDArray[np.float64]


class Steps:
    """The values of the N events after each step from the backfill to the stream."""

    def __init__(
        self, spec: TaskSpec, rows: ServedRows, labels: pa.Table | None
    ) -> None:
        self._spec = spec
        self._rows = rows
        self._labels = labels
        plain = [] if labels is None else ["case_id", "label_time", "label"]
        self._known = None if labels is None else labels.select(plain)

    def backfilled(self) -> Matrix:
        """The backfill of the archive."""
        return self._backfill(np.arange(self._rows.archived))

    def all(self, first: Matrix) -> list[Matrix]:
        """Every step, from `backfilled` on; one that changes nothing is not computed.

        Then: over the events that the stream had; in order of arrival, without those
        refused as late; with each label only from when the stream knew it.
        """
        rows = self._rows
        seen = np.isin(rows.fate, (SERVED, REPEATED, LATE))
        had = np.flatnonzero(seen)
        same = len(had) == rows.archived == rows.events.num_rows
        second = first if same else self._backfill(had[self._by_time(had)])
        in_time = len(had) == len(rows.order) and np.array_equal(
            rows.order, had[self._by_time(had)]
        )
        third = second if in_time else self._arrived(self._known)
        if self._labels is None or KNOWN_FROM not in self._labels.column_names:
            return [first, second, third, third]
        return [first, second, third, self._arrived(self._late_labels())]

    def _by_time(self, members: Ints) -> Ints:
        return time_order(self._rows.events.take(members))

    def _backfill(self, members: Ints) -> Matrix:
        events = self._rows.events.take(members)
        values = backfill(self._spec, events, self._known)
        return self._spread(members, matrix_of(self._spec, values))

    def _arrived(self, labels: pa.Table | None) -> Matrix:
        order = self._rows.order
        events = self._rows.events.take(order)
        clock_ms = self._rows.clock_ms
        values = in_arrival_order(self._spec, events, labels, clock_ms=clock_ms)
        return self._spread(order, values)

    def _late_labels(self) -> pa.Table:
        """The labels, known from a place in the order of arrival on."""
        assert self._labels is not None
        known = pc.fill_null(self._labels.column(KNOWN_FROM), 0).to_numpy()
        place = pa.array(self._rows.order_from(np.asarray(known, dtype=np.int64)))
        at = self._labels.column_names.index(KNOWN_FROM)
        return self._labels.set_column(at, KNOWN_FROM, place)

    def _spread(self, members: Ints, values: Matrix) -> Matrix:
        out = np.full((self._rows.events.num_rows, values.shape[1]), np.nan)
        out[members] = values
        return out


def matrix_of(spec: TaskSpec, rows: pa.Table) -> Matrix:
    """The features of a table as float64 (B, F)."""
    out = np.empty((rows.num_rows, len(spec.feature_names)))
    for index, name in enumerate(spec.feature_names):
        out[:, index] = pc.cast(rows.column(name), pa.float64()).to_numpy()
    return out
