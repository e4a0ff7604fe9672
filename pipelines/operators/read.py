"""Kafka values in, valid event rows out, to the node of their key; dead letters aside.

`ReadEvents` hands on every value as it comes, `CollectEvents` those of a few
milliseconds together.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pyflink.common import Row
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, ProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from connectors.codec import is_frame
from connectors.events import EventReader
from connectors.feature_rows import FeatureReader
from connectors.flink import ASIDE, out_row, place_and_value
from connectors.records import DeadLetter, Place
from connectors.rows import EventRows
from connectors.schemas import dead_letters_frame
from pipelines.operators.parts import Part, onward
from pipelines.operators.shards import Shards

#: Marks a topic that carries rows of features instead of events.
FEATURES = "features"
#: JSON events read together at most.
MOST_COLLECTED = 256


def now_ms() -> int:
    """This machine's clock, milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def to_nodes(shards: Shards, rows: EventRows, key: str) -> Iterator[Row]:
    """`KEYED` rows that bring each event to the node of its `case_id` or column."""
    for node, members in shards.by_node(rows.keys(key)):
        yield Row(node, rows.only(members))


def letters_out(topic: str, letters: list[DeadLetter]) -> Iterator[Row]:
    """Kafka records that bring dead letters to their topic, whole."""
    for letter in letters:
        frame = dead_letters_frame([letter])
        yield out_row(topic, letter.modality or letter.kind, frame)


def letters_aside(topic: str, letters: list[DeadLetter]) -> Iterator[Any]:
    """`letters_out` past the operators that follow."""
    for row in letters_out(topic, letters):
        yield ASIDE, row


class ReadEvents(ProcessFunction):
    """Source rows to `KEYED` event rows, by case; anything unreadable to dead letters.

    Args:
        topics: full topic name to modality, or to `FEATURES`.
        shards: number of shards.
        nodes: the job's parallelism.
        dead_letters: full name of the dead-letter topic.
    """

    def __init__(
        self, *, topics: Mapping[str, str], shards: int, nodes: int, dead_letters: str
    ) -> None:
        self._topics = dict(topics)
        self._layout = (shards, nodes)
        self._dead_letters = dead_letters

    def open(self, runtime_context: RuntimeContext) -> None:
        """Make one reader per topic."""
        self._shards = Shards(*self._layout)
        self._readers: dict[str, EventReader | FeatureReader] = {
            topic: FeatureReader()
            if modality == FEATURES
            else EventReader(modality, now_ms=now_ms)
            for topic, modality in self._topics.items()
        }

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Any:
        """One Kafka value."""
        _, record = value
        place, raw = place_and_value(record)
        rows, letters = self._readers[place.topic].read(raw, place)
        yield from letters_aside(self._dead_letters, letters)
        if rows is not None:
            yield from to_nodes(self._shards, rows, "case_id")


class CollectEvents(KeyedProcessFunction):
    """Records of one partition to `KEYED` parts of tabular events, many at a time.

    JSON events wait for each other, in Flink state, until `wait_ms` have passed since
    the first of them or there are `MOST_COLLECTED`: whatever follows costs per frame,
    hardly per event. A frame goes on at once, behind what came before it.

    Args:
        columns: columns and kinds an event must have.
        key: the column whose value chooses the shard; `case_id` or an entity column.
        wait_ms: longest wait for other events.
        shards: number of shards.
        nodes: the job's parallelism.
        dead_letters: full name of the dead-letter topic.
    """

    def __init__(
        self,
        *,
        columns: Mapping[str, str],
        key: str,
        wait_ms: int,
        shards: int,
        nodes: int,
        dead_letters: str,
    ) -> None:
        self._columns = dict(columns)
        self._key = key
        self._wait_ms = wait_ms
        self._layout = (shards, nodes)
        self._dead_letters = dead_letters

    def open(self, runtime_context: RuntimeContext) -> None:
        """Open the list of waiting records."""
        self._shards = Shards(*self._layout)
        self._reader = EventReader("tabular", columns=self._columns, now_ms=now_ms)
        # a map by number, not a list: RocksDB merges a list when it flushes
        self._waiting = runtime_context.get_map_state(
            MapStateDescriptor("waiting", Types.LONG(), Types.PICKLED_BYTE_ARRAY())
        )
        self._collected: dict[int, list[tuple[Place, bytes | None]]] = {}
        self._frames = itertools.count()

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Any:
        """One Kafka value."""
        partition = ctx.get_current_key()
        place, raw = place_and_value(value)
        collected = self._collected_of(partition)
        if raw is not None and is_frame(raw):
            yield from self._flush(partition)
            yield from self._on(partition, *self._reader.read(raw, place))
            return
        if not collected:
            timers = ctx.timer_service()
            due_ms = timers.current_processing_time() + self._wait_ms
            timers.register_processing_time_timer(due_ms)
        record = (place.topic, place.partition, place.offset, raw)
        self._waiting.put(len(collected), record)
        collected.append((place, raw))
        if len(collected) >= MOST_COLLECTED:
            yield from self._flush(partition)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """The first waiting event has waited long enough."""
        yield from self._flush(ctx.get_current_key())

    def _collected_of(self, partition: int) -> list[tuple[Place, bytes | None]]:
        found = self._collected.get(partition)
        if found is None:
            found = self._collected[partition] = [
                (Place(topic=topic, partition=number, offset=offset), raw)
                for _, (topic, number, offset, raw) in sorted(self._waiting.items())
            ]
        return found

    def _flush(self, partition: int) -> Iterator[Any]:
        collected = self._collected_of(partition)
        if not collected:
            return
        self._collected[partition] = []
        for number in range(len(collected)):
            self._waiting.remove(number)
        yield from self._on(partition, *self._reader.read_objects(collected))

    def _on(
        self, partition: int, rows: EventRows | None, letters: list[DeadLetter]
    ) -> Iterator[Any]:
        yield from letters_aside(self._dead_letters, letters)
        if rows is not None:
            frame = (partition, next(self._frames))
            part = Part(frame, np.arange(len(rows)), rows)
            yield from onward(self._shards, part, self._key)
