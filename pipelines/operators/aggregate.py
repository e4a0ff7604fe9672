"""Window features of one entity, added to the rows that pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor

from automl.keys import text_keys
from automl.task import TaskSpec
from automl.windows import EntityWindows
from connectors.label_feed import LabelFeed, Labels
from connectors.rows import ADDED_PREFIX, CLOCK, LABELS_READ, EventRows
from pipelines.operators.parts import InOrder, Part, onward
from pipelines.operators.read import now_ms
from pipelines.operators.seen_rows import SeenRows
from pipelines.operators.shards import OwnShards, Shards, by_shard
from pipelines.operators.turn import TURN


def windows_column(entity: str) -> str:
    """Name of the (B, V) column that carries an entity's window features."""
    return f"{ADDED_PREFIX}of.{entity}"


class StateError(Exception):
    """The state of a job was made for other features; the message says what to do."""


class AggregateWindows(KeyedProcessFunction):
    """Adds one entity's window features, and sends rows on to the next key's node.

    Frames are whole and in their order when the windows see them, whatever the number
    of nodes: the features are those that one node alone would give. Features on labels
    see every label that was published before the event: the operator reads that topic
    itself, up to its end, before it answers (`LabelFeed`).

    Durable state of a shard is a log of the rows it has seen and still needs; the
    structure that answers windows lives in memory and is built again from those logs.
    Labels are in no checkpoint: a restart reads their topic again.

    Args:
        task: the task file, resolved, as a plain dict.
        entity: whose windows.
        next_key: the column that chooses the node of the next operator.
        senders: nodes that send a part of every frame.
        bootstrap: HOST:PORT of the broker that has the labels.
        labels: full name of their topic.
        shards: number of shards.
        nodes: the job's parallelism.
    """

    def __init__(
        self,
        *,
        task: dict[str, Any],
        entity: str,
        next_key: str,
        senders: int,
        bootstrap: str,
        labels: str,
        shards: int,
        nodes: int,
    ) -> None:
        self._task = task
        self._entity = entity
        self._next_key = next_key
        self._senders = senders
        self._labels = (bootstrap, labels)
        self._layout = (shards, nodes)

    def open(self, runtime_context: RuntimeContext) -> None:
        """Open the log of seen rows and, for features on labels, their topic."""
        spec = TaskSpec.from_json(self._task)
        self._view = (
            spec.state_fingerprint(self._entity),
            spec.entity_horizon_ms(self._entity),
        )
        self._windows = EntityWindows(spec, self._entity)
        self._shards = Shards(*self._layout)
        self._own = OwnShards(runtime_context, self._shards)
        self._order = InOrder(self._senders)
        self._seen = SeenRows(runtime_context, self._windows.row_words)
        self._views = runtime_context.get_state(
            ValueStateDescriptor("view", Types.PICKLED_BYTE_ARRAY())
        )
        self._feed = (
            LabelFeed(*self._labels, now_ms=now_ms)
            if self._windows.uses_labels
            else None
        )
        self._restored = False

    def close(self) -> None:
        """Leave the topic of labels."""
        if self._feed is not None:
            self._feed.close()

    def process_element(self, value: Part, ctx: KeyedProcessFunction.Context) -> Any:
        """A part of a frame, with rows of shards of this node."""
        part = self._order.add(value)
        if part is None:
            return
        rows = part.rows
        if rows is None:
            yield from onward(self._shards, part, self._next_key)
            return
        fresh = None
        if self._feed is not None:
            fresh = _fresh(self._feed, rows)  # waits for the broker: not in a turn
        with TURN:
            packed = self._packed(rows, fresh)
        # compiled code that leaves the interpreter to others: not in a turn either
        values = self._windows.answer(packed, rows.columns[CLOCK])
        with TURN:
            rows.columns[windows_column(self._entity)] = values
            self._keep(rows.keys(self._windows.entity_column), packed)
            found = list(onward(self._shards, part, self._next_key))
        yield from found

    def _packed(self, rows: EventRows, fresh: Labels | None) -> NDArray[np.int64]:
        """The rows as the windows take them; they know the fresh labels then."""
        if not self._restored:
            self._restore()
        windows = self._windows
        if fresh is not None:
            cases, times_ms, labels = fresh
            windows.add_labels(text_keys(cases), times_ms, labels)
        keys = rows.keys(windows.entity_column)
        cases = rows.keys("case_id") if windows.uses_labels else None
        return windows.pack(keys, rows.event_time_ms, rows.columns, cases)

    def _keep(self, keys: NDArray[np.uint64], packed: NDArray[np.int64]) -> None:
        """Adds what was seen to the logs of its shards."""
        for shard, members in by_shard(keys, self._shards.count).items():
            self._own.use(shard)
            if self._seen.is_long(shard):
                parts = self._windows.dump(self._shards.count, shard)
                self._seen.replace(shard, parts)
            else:
                self._seen.add(shard, packed[members])

    def _restore(self) -> None:
        """Builds the windows again from the logs of this node's shards.

        Raises:
            StateError: the logs were written for other features.
        """
        self._restored = True
        for shard in self._own.owned:
            self._own.use(shard)
            view = self._views.value()
            if view is None:
                self._views.update(self._view)
            else:
                self._check(view)
            for part in self._seen.restore(shard):
                self._windows.restore(part)

    def _check(self, view: tuple[str, int]) -> None:
        fingerprint, horizon_ms = view
        if fingerprint != self._view[0] or horizon_ms < self._view[1]:
            msg = (
                f"windows of {self._entity}: the job's state was kept for other "
                f"features ({fingerprint}, {horizon_ms} ms back), the model needs "
                f"{self._view[0]}, {self._view[1]} ms back; start the job without a "
                "savepoint, or with a model for the same columns and no longer windows"
            )
            raise StateError(msg)


def _fresh(feed: LabelFeed, rows: EventRows) -> Labels | None:
    """The labels published since, if these rows may have to see them."""
    created = rows.created_ms
    fresh = feed.fresh(int(created.max()) if created.min() > 0 else 0)
    read_to = np.array([*feed.read_to.values()], dtype=np.int64)
    rows.columns[LABELS_READ] = np.tile(read_to, (len(rows), 1))
    return fresh
