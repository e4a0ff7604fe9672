"""Exact sliding windows over the rows of every entity, a frame at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from automl import window_store
from automl.label_table import new_labels, put_labels
from automl.task import TaskSpec
from automl.window_answer import Seen, observe
from automl.window_dump import dump_rows, dump_tiles, restore_tiles
from automl.window_plan import DISTINCT, WindowPlan
from automl.window_store import EPOCH, KEPT, NEED, new_store
from automl.window_tiles import know_labels

_DAY_MS = 86_400_000
_LONG_AGO = -(2**62)
#: Rows of one entity that are kept as they are; of more, the older half becomes tiles.
HEAD_ROWS = 65_536
#: The same where labels are asked for, which come long after their rows.
LABELLED_HEAD_ROWS = 1_048_576

Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


class EntityWindows:
    """The window features of one kind of entity, for all its entities.

    A row with event time t sees, of the rows of its entity that came before it and
    itself, those with event time in (t - delay - window, t - delay]; exact to the
    millisecond. A label counts for it from t = label_time on, however early or late it
    was read. Values that are missing are not aggregated. No value depends on how rows
    were put into frames, on what was pruned, or on a restore in between (sums are
    exact, see `exact_sum`). Ids are compared by their 64-bit keys (`keys`).

    Rows are kept for the longest window and `lateness_ms` behind the stream's clock; a
    row later than that is answered from what is kept. An entity of more than
    `head_rows` rows keeps the older ones as tiles of 64 rows: a window whose far edge
    falls among them holds at most 63 rows too many, one in a thousand of its rows.
    `distinct` and `age` look no further back than the rows kept as they are, and a
    label that comes after its row became part of a tile is not counted.

    Legend: `B` rows, `V` window features, `W` words of a row.

    Args:
        spec: a resolved task.
        entity: one of the task's entities.
        lateness_ms: the shorter of a day and the longest window unless given.
        head_rows: a power of two, at least 8,192.
    """

    def __init__(
        self,
        spec: TaskSpec,
        entity: str,
        *,
        lateness_ms: int | None = None,
        head_rows: int | None = None,
    ) -> None:
        plan = WindowPlan(spec, entity)
        self._plan = plan
        self.entity_column = spec.entities[entity]
        self.feature_names = plan.feature_names
        self.columns = plan.columns
        self.horizon_ms = plan.horizon_ms
        self.uses_labels = plan.uses_labels
        late = min(_DAY_MS, plan.horizon_ms) if lateness_ms is None else lateness_ms
        self.keep_ms = plan.horizon_ms + late
        self._head = head_rows or (
            LABELLED_HEAD_ROWS if plan.uses_labels else HEAD_ROWS
        )
        if self._head < 8192 or self._head & (self._head - 1):
            msg = f"head_rows: expected a power of two from 8192 on, got {self._head}"
            raise ValueError(msg)
        lanes = len(plan.program.lanes)
        self._store = new_store(plan.own_lanes, lanes, labels=plan.uses_labels)
        self._labels = new_labels()
        self._restored = False
        self._clock_ms = _LONG_AGO
        distinct = bool((plan.program.lanes[:, 0] & DISTINCT).any())
        room = (lanes, 4 * self._head if distinct else 1)
        self._seen = Seen(
            bits=np.zeros(room, dtype=np.int64),
            turn=np.zeros(room, dtype=np.int64),
            tally=np.zeros(lanes + 1, dtype=np.int64),
        )

    @property
    def row_words(self) -> int:
        """W, the words of a packed row."""
        return 3 + self._plan.own_lanes

    @property
    def entities(self) -> int:
        """How many entities have rows."""
        return int(np.count_nonzero(self._store.keys))

    @property
    def rows_kept(self) -> int:
        """How many rows are kept as they are."""
        return int(self._store.tally[KEPT])

    @property
    def memory_bytes(self) -> int:
        """Size of all arrays, room to grow included."""
        arrays: list[Any] = [*self._store, *self._labels, *self._seen]
        return sum(array.nbytes for array in arrays)

    def add_labels(
        self,
        case_keys: Keys,
        label_time_ms: npt.NDArray[np.int64],
        labels: npt.NDArray[np.float64],
    ) -> None:
        """Takes labels of cases in order of arrival, before or after their events.

        Of several labels of a case the one of the latest label time counts, of two of
        one time the later to arrive. A label is kept as long as a row of its label
        time, or of the clock when it came, would be; and as long as any row that had
        it. An event that comes later than that may find it forgotten.
        """
        if not len(case_keys):
            return
        forget_ms = self._clock_ms - self.keep_ms
        if self._restored and forget_ms > _LONG_AGO:
            # before any is forgotten: those rows came before their labels
            know_labels(self._store, self._labels)
            self._restored = False
        self._labels, corrected = put_labels(
            self._labels,
            np.array(case_keys, dtype=np.uint64),
            np.array(label_time_ms, dtype=np.int64),
            np.array(labels, dtype=np.float64),
            clock_ms=self._clock_ms,
            forget_ms=forget_ms,
        )
        self._store.tally[EPOCH] += corrected > 0

    def observe(
        self,
        entity_keys: Keys,
        times_ms: npt.NDArray[np.int64],
        columns: Mapping[str, npt.NDArray[Any]],
        *,
        clock_ms: npt.NDArray[np.int64] | None = None,
        case_keys: Keys | None = None,
    ) -> npt.NDArray[np.float64]:
        """Adds rows in order of arrival and gives what each of them sees.

        A row without an entity (key 0) is not added and sees nothing: NaN.

        Args:
            entity_keys: uint64 (B,), see `automl.keys`.
            times_ms: int64 (B,), event time.
            columns: for each name in `self.columns` float64 (B,), or uint64 keys.
            clock_ms: int64 (B,), the stream's clock at each row; without it nothing
                is ever too old.
            case_keys: uint64 (B,), needed when features read labels.

        Returns: float64 (B, V) in the order of `self.feature_names`.
        """
        rows = self.pack(entity_keys, times_ms, columns, case_keys)
        return self.answer(rows, clock_ms)

    def pack(
        self,
        entity_keys: Keys,
        times_ms: npt.NDArray[np.int64],
        columns: Mapping[str, npt.NDArray[Any]],
        case_keys: Keys | None = None,
    ) -> Rows:
        """Gives rows as `answer` takes them and as they can be stored: int64 (B, W)."""
        count = len(entity_keys)
        rows = np.empty((count, 3 + self._plan.own_lanes), dtype=np.int64)
        rows[:, 0] = np.asarray(entity_keys, dtype=np.uint64).view(np.int64)
        rows[:, 1] = times_ms
        if self.uses_labels and case_keys is None:
            msg = "features read labels: give case_keys, one for each row"
            raise ValueError(msg)
        rows[:, 2] = 0 if case_keys is None else case_keys.view(np.int64)
        rows[:, 3:] = self._plan.lanes(columns, count)
        return rows

    def answer(
        self,
        rows: Rows,
        clock_ms: npt.NDArray[np.int64] | None = None,
        *,
        silent: bool = False,
    ) -> npt.NDArray[np.float64]:
        """Adds packed rows and gives what they see: float64 (B, V); nothing if silent.

        Args:
            rows: as `pack` gave them.
            clock_ms: as in `observe`.
            silent: only add them, as after a restore.
        """
        count = len(rows)
        out = np.empty((count, 0 if silent else len(self.feature_names)))
        if clock_ms is None:
            clock = np.full(count, _LONG_AGO + self.keep_ms, dtype=np.int64)
        else:
            clock = np.array(clock_ms, dtype=np.int64)
            np.maximum(clock, _LONG_AGO + self.keep_ms, out=clock)
            if count:
                self._clock_ms = max(self._clock_ms, int(clock[-1]))
        keys = np.ascontiguousarray(rows[:, 0]).view(np.uint64)
        times = np.ascontiguousarray(rows[:, 1])
        bits = np.ascontiguousarray(rows[:, 3:])
        cases = np.ascontiguousarray(rows[:, 2]).view(np.uint64)
        if not self.uses_labels:
            cases = cases[:0]
        self._store = window_store.with_room(self._store, count)
        done = 0
        while True:
            done = observe(
                self._store,
                self._labels,
                self._plan.program,
                self._seen,
                keys,
                times,
                bits,
                cases,
                clock,
                self.keep_ms,
                self._head,
                out,
                done,
            )
            if done == count:
                return out
            need = int(self._store.tally[NEED])
            self._store = window_store.grown(self._store, need)

    def dump(self, shards: int, shard: int) -> Iterator[Any]:
        """What `restore` takes, of the entities of one shard (key % shards)."""
        yield from dump_tiles(self._store, shards, shard)
        rows: Rows = dump_rows(self._store, shards, shard)
        if len(rows):
            yield rows

    def restore(self, part: Any) -> None:
        """Takes packed rows, or one of the parts that `dump` gave, in their order."""
        self._restored = self.uses_labels
        if isinstance(part, np.ndarray):
            self.answer(part, silent=True)
        else:
            self._store = window_store.with_room(self._store, 1)
            self._store = restore_tiles(self._store, part)
