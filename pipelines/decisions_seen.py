"""Every decision once, as columns: the first of an id and revision is kept."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from automl.keys import text_keys
from connectors.schemas import DECISIONS
from pipelines.event_keys import event_keys

_ID = np.uint64(0x9E3779B97F4A7C15)


class DecisionsSeen:
    """Frames of decisions, kept as they came; nothing is made of a row.

    Attributes:
        events: keys of the events that were decided.
        tabular: how many of those are tabular.
        revised: decisions that revise an earlier one of their case.
        duplicated: rows whose id and revision had come before.
        differing: of those, the ones whose content is another.
        differing_columns: how often each column of such a row was another.
    """

    def __init__(self) -> None:
        self.events: set[int] = set()
        self.tabular = 0
        self.revised = 0
        self.duplicated = 0
        self.differing = 0
        self.differing_columns: Counter[str] = Counter()
        self._first: dict[int, int] = {}
        self._frames: list[pa.RecordBatch] = []
        self._starts: list[int] = []
        self._rows = 0

    def add(self, frame: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a frame that are new."""
        self._add_events(frame)
        revisions = frame.column("revision").to_numpy()
        keys = text_keys(frame.column("decision_id")) * _ID + revisions.astype(
            np.uint64
        )
        own = range(self._rows, self._rows + frame.num_rows)
        pairs = zip(keys.tolist(), own, strict=True)
        first = np.array([self._first.setdefault(k, row) for k, row in pairs])
        self._frames.append(frame)
        self._starts.append(self._rows)
        self._rows += frame.num_rows
        again = np.flatnonzero(first != np.arange(own.start, own.stop))
        self.revised += int((np.delete(revisions, again) > 0).sum())
        if not len(again):
            return frame
        self._compare(frame, again, first[again])
        return frame.take(pa.array(np.delete(np.arange(len(first)), again)))

    def table(self) -> pa.Table:
        """Every decision once, in the order they were made."""
        kept = np.zeros(self._rows, dtype=bool)
        kept[np.fromiter(self._first.values(), dtype=np.int64)] = True
        frames = [frame.select(DECISIONS.names) for frame in self._frames]
        tables = [pa.Table.from_batches([one]).cast(DECISIONS) for one in frames]
        whole = pa.concat_tables([DECISIONS.empty_table(), *tables])
        return whole if kept.all() else whole.filter(pa.array(kept))

    def _add_events(self, frame: pa.RecordBatch) -> None:
        modality = frame.column("modality")
        keys = event_keys(frame.column("case_id"), modality, frame.column("event_id"))
        is_tabular = np.asarray(pc.fill_null(pc.equal(modality, "tabular"), False))
        known = len(self.events)
        self.events.update(keys[is_tabular].tolist())
        self.tabular += len(self.events) - known
        self.events.update(keys[~is_tabular].tolist())

    def _compare(
        self,
        frame: pa.RecordBatch,
        again: npt.NDArray[np.intp],
        first: npt.NDArray[np.int64],
    ) -> None:
        """Count rows that came before, and what is another in them."""
        self.duplicated += len(again)
        names = [name for name in frame.schema.names if name != "decided_at"]
        found = pa.Table.from_batches([frame.take(pa.array(again))]).select(names)
        before = pa.concat_tables([self._row(row).select(names) for row in first])
        other = np.zeros(len(again), dtype=bool)
        for name in names:
            if found.column(name).equals(before.column(name)):
                continue
            pairs = zip(found[name].to_pylist(), before[name].to_pylist(), strict=True)
            changed = np.array([one != two for one, two in pairs])
            self.differing_columns[name] += int(changed.sum())
            other |= changed
        self.differing += int(other.sum())

    def _row(self, number: int) -> pa.Table:
        at = bisect_right(self._starts, number) - 1
        row = self._frames[at].slice(number - self._starts[at], 1)
        return pa.Table.from_batches([row])
