"""Features of rows in the order in which they arrived, and in that of event time.

Legend: `B` rows, `F` features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from automl.features import FeatureAssembler, event_columns
from automl.keys import text_keys
from automl.stream_clock import StreamClock
from automl.task import TaskSpec
from automl.windows import EntityWindows

#: Optional column of labels: the first row, of those given, that may count the label.
KNOWN_FROM = "known_from"
_CHUNK_ROWS = 65_536
_TIME_ORDER = [("event_time", "ascending"), ("event_id", "ascending")]


def backfill(
    spec: TaskSpec, table: pa.Table, labels: pa.Table | None = None
) -> pa.Table:
    """Computes every feature of a tabular archive, as the stream would have.

    Args:
        spec: A resolved task.
        table: event_id, case_id, event_time and the columns of the events, in any
            order of rows.
        labels: case_id, label_time, label, in any order; of two labels of a case and
            a time the later row counts.

    Returns: event_id, case_id, event_time and one float64 column for each feature, in
        event-time order (ties by event_id).
    """
    ordered = table.take(pc.sort_indices(table, sort_keys=_TIME_ORDER))
    matrix = in_arrival_order(spec, ordered, labels)
    times = pa.array(times_of(ordered)).cast(pa.timestamp("ms", "UTC"))
    fixed = [ordered.column("event_id"), ordered.column("case_id"), times]
    names = ["event_id", "case_id", "event_time", *spec.feature_names]
    features = [pa.array(matrix[:, index]) for index in range(matrix.shape[1])]
    return pa.table([*fixed, *features], names=names)


def in_arrival_order(
    spec: TaskSpec,
    rows: pa.Table,
    labels: pa.Table | None = None,
    *,
    clock_ms: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float64]:
    """Computes every feature of rows as a stream that meets them in this order.

    Args:
        spec: A resolved task.
        rows: event_id, case_id, event_time and the columns of the events.
        labels: case_id, label_time, label. With the column `known_from`, a label is
            not there before the row at that position; null means from the beginning.
        clock_ms: int64 (B,), the stream's clock at each row; what these rows alone
            make it unless given.

    Returns: float64 (B, F), in the order of `rows`.
    """
    times_ms = times_of(rows)
    columns = event_columns(spec, rows)
    cases = text_keys(rows.column("case_id"))
    assembler = FeatureAssembler(spec)
    engines = {name: EntityWindows(spec, name) for name in assembler.entities}
    known = _Labels(labels)
    clock = StreamClock().observe(times_ms) if clock_ms is None else clock_ms
    out = np.empty((rows.num_rows, len(spec.feature_names)), dtype=np.float64)
    cuts = {*range(0, rows.num_rows, _CHUNK_ROWS), *known.positions(rows.num_rows)}
    for first, stop in _spans(sorted(cuts), rows.num_rows):
        part = slice(first, stop)
        fresh = known.until(first)
        given = {name: values[part] for name, values in columns.items()}
        windows = {}
        for name, engine in engines.items():
            if engine.uses_labels:
                engine.add_labels(*fresh)
            windows[name] = engine.observe(
                given[engine.entity_column],
                times_ms[part],
                given,
                clock_ms=clock[part],
                case_keys=cases[part],
            )
        out[part] = assembler.assemble(times_ms[part], given, windows)
    return out


def times_of(rows: pa.Table, column: str = "event_time") -> npt.NDArray[np.int64]:
    """A column of instants as milliseconds: int64 (B,)."""
    times = rows.column(column)
    if pa.types.is_timestamp(times.type):
        times = pc.cast(times, pa.timestamp("ms", "UTC"), safe=False)
    return np.asarray(pc.cast(times, pa.int64()).to_numpy(), dtype=np.int64)


def _spans(cuts: list[int], rows: int) -> list[tuple[int, int]]:
    return list(zip(cuts, [*cuts[1:], rows], strict=False))


class _Labels:
    """Labels in the order in which rows may count them."""

    def __init__(self, table: pa.Table | None) -> None:
        empty = np.empty(0)
        self._from = empty.astype(np.int64)
        self._labels: tuple[Any, Any, Any] = (
            empty.astype(np.uint64),
            self._from,
            empty,
        )
        self._taken = 0
        if table is None or not table.num_rows:
            return
        names = ("case_id", "label_time", "label")
        whole = [pc.is_valid(table.column(name)) for name in names]
        table = table.filter(pc.and_(pc.and_(whole[0], whole[1]), whole[2]))
        keys = text_keys(table.column("case_id"))
        times = times_of(table, "label_time")
        values = pc.cast(table.column("label"), pa.float64()).to_numpy()
        since = np.zeros(len(keys), dtype=np.int64)
        if KNOWN_FROM in table.column_names:
            since = pc.fill_null(table.column(KNOWN_FROM), 0).to_numpy()
        order = np.argsort(since, kind="stable")
        self._from = since[order]
        self._labels = (keys[order], times[order], values[order])

    def positions(self, rows: int) -> list[int]:
        """Rows before which labels become known."""
        found = np.unique(self._from)
        return [int(x) for x in found[(found >= 0) & (found < rows)]]

    def until(self, row: int) -> tuple[Any, Any, Any]:
        """Keys, times and values of labels that row may count and none before did."""
        first = self._taken
        self._taken = int(np.searchsorted(self._from, row, side="right"))
        keys, times, values = self._labels
        part = slice(first, self._taken)
        return keys[part], times[part], values[part]
