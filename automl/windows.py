"""Exact sliding windows over the rows of every entity of one shard."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from automl.aggregates import COMPARE, Aggregate, aggregate_of, per_row_of, value_list
from automl.task import TaskSpec, Where, WindowFeature

ENTITY, TIME = "entity_id", "event_time_ms"
_NAN = math.nan
_Lane = tuple[str | None, Where | None]
_Direct = tuple[int, float]
_Read = tuple[int, Aggregate]


class _History:
    """The retained rows of one entity, by event time, ties by arrival.

    `raw[i]` is one column, `lanes[i]` one column as a feature sees it (None where the
    row is not to be seen); an unfiltered lane is the raw column itself.
    """

    __slots__ = ("lanes", "raw", "times_ms")

    def __init__(self, raw_count: int, lane_sources: Sequence[int | None]) -> None:
        self.times_ms: list[int] = []
        self.raw: list[list[Any]] = [[] for _ in range(raw_count)]
        self.lanes: list[list[Any]] = [
            [] if source is None else self.raw[source] for source in lane_sources
        ]


class ShardWindows:
    """The window features of one entity kind, for all its entities in one shard.

    A row with event time t sees the rows with event time in (t - window, t] that came
    before it, and itself; exact to the millisecond. Ids are compared as text, so 5 and
    "5" are one entity. Values that are missing, NaN or infinite are not aggregated.
    Sums are rounded once (`math.fsum`), so no value depends on what was pruned,
    restored or reordered. Legend: `B` rows, `V` window features of this entity.
    """

    def __init__(
        self, spec: TaskSpec, entity: str, *, lateness_ms: int | None = None
    ) -> None:
        """Plans the windows of `entity`.

        Args:
            spec: A resolved task.
            entity: One of the task's entities.
            lateness_ms: How much older than its entity's newest row a row may be
                and still be answered; the longest window unless given. Rows are kept
                for the longest window and this long.
        """
        kinds = spec.needed_columns
        features = spec.window_features(entity)
        self.feature_names = [feature.name for feature in features]
        self.horizon_ms = max((f.window_ms for f in features), default=0)
        self.lateness_ms = self.horizon_ms if lateness_ms is None else lateness_ms
        self.entity_column = spec.entities[entity]
        self.columns = {name: kinds[name] for name in _columns_of(features)}
        self._plan_lanes(features)
        self._plan_windows(features)
        self._histories: dict[str, _History] = {}

    def _plan_lanes(self, features: Sequence[WindowFeature]) -> None:
        names = list(self.columns)
        lanes = dict.fromkeys(map(_lane_of, features))
        lanes.pop((None, None), None)
        self._lane_index: dict[_Lane, int] = {lane: i for i, lane in enumerate(lanes)}
        self._lane_sources = [
            names.index(column) if column is not None and where is None else None
            for column, where in lanes
        ]
        self._filters = [
            (
                index,
                None if column is None else names.index(column),
                names.index(where.column),
                COMPARE[where.op],
                _literal(where, self.columns[where.column]),
            )
            for index, (column, where) in enumerate(lanes)
            if where is not None
        ]
        self._holes = [source is None for source in self._lane_sources]

    def _plan_windows(self, features: Sequence[WindowFeature]) -> None:
        windows: dict[int, tuple[list[_Direct], dict[int, list[_Read]]]] = {}
        for slot, feature in enumerate(features):
            direct, reads = windows.setdefault(feature.window_ms, ([], {}))
            lane = _lane_of(feature)
            if lane == (None, None):
                per_row = per_row_of(feature)
                direct.append((slot, per_row))
            else:
                aggregate = aggregate_of(feature)
                reads.setdefault(self._lane_index[lane], []).append((slot, aggregate))
        self._windows = [
            (window_ms, direct, [(lane, tuple(r)) for lane, r in reads.items()])
            for window_ms, (direct, reads) in sorted(windows.items(), reverse=True)
        ]

    def observe(
        self,
        entity_ids: Sequence[Any] | npt.NDArray[Any],
        times_ms: npt.NDArray[np.int64],
        columns: Mapping[str, npt.NDArray[Any]],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Adds rows in the order given and gives what each of them sees.

        A row that is older than its entity's newest one by more than `lateness_ms` is
        late: it is not added and its values are NaN. A row without an entity (None)
        is not added either and its values are NaN; it is not late.

        Args:
            entity_ids: B ids, strings or integers.
            times_ms: int64 (B,), event time.
            columns: An array (B,) for each name in `self.columns`.

        Returns:
            float64 (B, V) in the order of `self.feature_names`, and bool (B,) late.
        """
        raw = [value_list(name, columns, kind) for name, kind in self.columns.items()]
        self._note_holes(raw)
        times = np.asarray(times_ms, dtype=np.int64).tolist()
        ids = entity_ids.tolist() if isinstance(entity_ids, np.ndarray) else entity_ids
        blank = [_NAN] * len(self.feature_names)
        out = [blank] * len(times)
        late = np.zeros(len(times), dtype=bool)
        for row, (entity_id, time_ms) in enumerate(zip(ids, times, strict=True)):
            if entity_id is None or entity_id != entity_id:
                continue
            history = self._history(str(entity_id))
            kept = history.times_ms
            if kept and time_ms < kept[-1] - self.lateness_ms:
                late[row] = True
                continue
            end = self._insert(history, time_ms, [column[row] for column in raw])
            out[row] = self._values(history, time_ms, end)
        values = np.array(out, dtype=np.float64)
        return values.reshape(len(times), len(blank)), late

    def _history(self, entity_id: str) -> _History:
        history = self._histories.get(entity_id)
        if history is None:
            history = _History(len(self.columns), self._lane_sources)
            self._histories[entity_id] = history
        return history

    def _note_holes(self, raw: Sequence[list[Any]]) -> None:
        for lane, source in enumerate(self._lane_sources):
            if source is not None and not self._holes[lane]:
                self._holes[lane] = None in raw[source]

    def _insert(self, history: _History, time_ms: int, values: list[Any]) -> int:
        """Adds one row and gives the index after it."""
        times_ms = history.times_ms
        at = len(times_ms)
        if at and time_ms < times_ms[-1]:
            at = bisect_right(times_ms, time_ms)
        times_ms.insert(at, time_ms)
        for column, value in zip(history.raw, values, strict=True):
            column.insert(at, value)
        for lane, source, tested, compare, literal in self._filters:
            value = values[tested]
            if value is not None and compare(value, literal):
                seen = 1.0 if source is None else values[source]
            else:
                seen = None
            history.lanes[lane].insert(at, seen)
        return at + 1

    def _values(self, history: _History, time_ms: int, end: int) -> list[float]:
        values = [_NAN] * len(self.feature_names)
        times_ms, lanes, holes = history.times_ms, history.lanes, self._holes
        start = 0
        for window_ms, direct, reads in self._windows:
            start = bisect_right(times_ms, time_ms - window_ms, start, end)
            for slot, per_row in direct:
                values[slot] = (end - start) * per_row
            for lane, aggregates in reads:
                seen = lanes[lane][start:end]
                if holes[lane]:
                    seen = [value for value in seen if value is not None]
                for slot, aggregate in aggregates:
                    values[slot] = aggregate(seen)
        return values

    def prune(self) -> int:
        """Drops the rows that no answerable row can see; gives how many."""
        dropped = 0
        keep_ms = self.horizon_ms + self.lateness_ms
        for history in self._histories.values():
            times_ms = history.times_ms
            if not times_ms or times_ms[0] > times_ms[-1] - keep_ms:
                continue
            cut = min(bisect_right(times_ms, times_ms[-1] - keep_ms), len(times_ms) - 1)
            dropped += cut
            del times_ms[:cut]
            own = [s is None for s in self._lane_sources]
            filtered = [v for v, mine in zip(history.lanes, own, strict=True) if mine]
            for column in (*history.raw, *filtered):
                del column[:cut]
        return dropped

    def forget(self, entity_id: Any) -> int:
        """Drops every row of one entity; gives how many there were."""
        history = self._histories.pop(str(entity_id), None)
        return 0 if history is None else len(history.times_ms)

    def rows(self) -> pa.Table:
        """Gives the retained rows: entity_id, event_time_ms and the raw columns.

        Rows of one entity stand together, in event-time order, ties by arrival.
        """
        ids: list[str] = []
        times_ms: list[int] = []
        raw: list[list[Any]] = [[] for _ in self.columns]
        for entity_id, history in self._histories.items():
            ids += [entity_id] * len(history.times_ms)
            times_ms += history.times_ms
            for column, values in zip(raw, history.raw, strict=True):
                column += values
        arrays = [pa.array(ids, pa.string()), pa.array(times_ms, pa.int64())]
        for kind, values in zip(self.columns.values(), raw, strict=True):
            text = kind in ("string", "id")
            arrays.append(pa.array(values, pa.string() if text else pa.float64()))
        names = [ENTITY, TIME, *(f"column.{name}" for name in self.columns)]
        return pa.table(arrays, names=names)

    def restore(self, rows: pa.Table) -> None:
        """Adds the rows that `rows` gave, so that values go on bit for bit."""
        raw = [rows.column(f"column.{name}").to_pylist() for name in self.columns]
        self._note_holes(raw)
        ids, times_ms = rows.column(ENTITY).to_pylist(), rows.column(TIME).to_pylist()
        for row, (entity_id, time_ms) in enumerate(zip(ids, times_ms, strict=True)):
            values = [column[row] for column in raw]
            self._insert(self._history(entity_id), time_ms, values)


def _columns_of(features: Sequence[WindowFeature]) -> list[str]:
    names: dict[str, None] = {}
    for feature in features:
        if feature.column is not None:
            names[feature.column] = None
        if feature.where is not None:
            names[feature.where.column] = None
    return list(names)


def _lane_of(feature: WindowFeature) -> _Lane:
    return feature.column, feature.where


def _literal(where: Where, kind: str) -> float | str:
    return str(where.value) if kind in ("string", "id") else float(where.value)
