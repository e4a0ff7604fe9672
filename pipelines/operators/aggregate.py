"""Window features of one entity, added to the rows that pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyflink.datastream import KeyedProcessFunction, RuntimeContext

from automl.task import TaskSpec
from automl.windows import ShardWindows
from connectors.records import DeadLetter
from connectors.rows import ADDED_PREFIX, EventRows
from pipelines.operators.parts import InOrder, Part, onward
from pipelines.operators.read import letters_aside
from pipelines.operators.seen_rows import SeenRows
from pipelines.operators.shards import OwnShards, Shards, by_shard


def windows_column(entity: str) -> str:
    """Name of the (B, V) column that carries an entity's window features."""
    return f"{ADDED_PREFIX}{entity}"


class AggregateWindows(KeyedProcessFunction):
    """Adds one entity's window features, and sends rows on to the next key's node.

    Frames are whole and in their order when the windows see them, whatever the number
    of nodes: the features are those that one node alone would give.

    Durable state of a shard is the list of rows it has seen inside the horizon; the
    structure that answers windows lives in memory and is rebuilt from that list.
    A row too old for its entity's windows goes to dead letters as `late`.

    Args:
        task: the task file, resolved, as a plain dict.
        entity: whose windows.
        next_key: the column that chooses the node of the next operator.
        senders: nodes that send a part of every frame.
        shards: number of shards.
        nodes: the job's parallelism.
        dead_letters: full name of the dead-letter topic.
    """

    def __init__(
        self,
        *,
        task: dict[str, Any],
        entity: str,
        next_key: str,
        senders: int,
        shards: int,
        nodes: int,
        dead_letters: str,
    ) -> None:
        self._task = task
        self._entity = entity
        self._next_key = next_key
        self._senders = senders
        self._layout = (shards, nodes)
        self._dead_letters = dead_letters

    def open(self, runtime_context: RuntimeContext) -> None:
        """Open the list of seen rows of every shard."""
        self._spec = TaskSpec.from_json(self._task)
        self._features = len(self._spec.window_features(self._entity))
        self._shards = Shards(*self._layout)
        self._own = OwnShards(runtime_context, self._shards)
        self._order = InOrder(self._senders)
        self._windows: dict[int, ShardWindows] = {}
        self._pruned_chunks: dict[int, int] = {}
        self._seen = SeenRows(runtime_context)

    def process_element(self, value: Part, ctx: KeyedProcessFunction.Context) -> Any:
        """A part of a frame, with rows of shards of this node."""
        part = self._order.add(value)
        if part is None:
            return
        if part.rows is not None:
            late = self._add_windows(part.rows)
            if late.any():
                yield from letters_aside(self._dead_letters, self._letters(part, late))
                part = part.take(np.flatnonzero(~late).tolist())
        yield from onward(self._shards, part, self._next_key)

    def _add_windows(self, rows: EventRows) -> NDArray[np.bool_]:
        """Adds the column of window features; says which rows came too late."""
        keys = rows.keys(self._spec.entities[self._entity])
        values = np.empty((len(rows), self._features))
        late = np.zeros(len(rows), dtype=np.bool_)
        for shard, members in by_shard(keys, self._shards.count).items():
            seen = self._observe(shard, rows.only(members))
            values[members], late[members] = seen
        rows.columns[windows_column(self._entity)] = values
        return late

    def _letters(self, part: Part, late: NDArray[np.bool_]) -> list[DeadLetter]:
        assert part.rows is not None
        reason = f"older than the windows of its {self._entity} reach back"
        return [
            part.rows.dead_letter(row, kind="late", reason=reason)
            for row in np.flatnonzero(late).tolist()
        ]

    def _observe(
        self, shard: int, rows: EventRows
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Window features of rows of one shard, and which of them came too late."""
        self._own.use(shard)
        windows = self._windows.get(shard)
        if windows is None:
            windows = self._windows[shard] = self._restored(shard)
        ids = rows.columns[windows.entity_column]
        values, late = windows.observe(ids, rows.event_time_ms, rows.columns)
        if late.any():
            rows = rows.take(np.flatnonzero(~late).tolist())
        if len(rows):
            self._remember(shard, windows, rows)
        return values, late

    def _restored(self, shard: int) -> ShardWindows:
        windows = ShardWindows(self._spec, self._entity)
        for columns in self._seen.restore(shard):
            windows.restore(pa.table(columns))
        self._pruned_chunks[shard] = 0
        return windows

    def _remember(self, shard: int, windows: ShardWindows, rows: EventRows) -> None:
        columns = {
            "entity_id": [str(x) for x in rows.columns[windows.entity_column]],
            "event_time_ms": rows.event_time_ms.tolist(),
            **{f"column.{n}": rows.columns[n].tolist() for n in windows.columns},
        }
        self._seen.add(shard, columns)
        # when the log has doubled: so pruning costs the same per row at any size
        if self._seen.chunks(shard) >= 2 * max(1, self._pruned_chunks[shard]):
            if windows.prune():
                self._seen.replace(shard, windows.rows().to_pydict())
            self._pruned_chunks[shard] = self._seen.chunks(shard)
