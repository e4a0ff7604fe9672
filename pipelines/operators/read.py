"""Kafka values in, valid event rows out, to the node of their key; dead letters aside.

`ReadEvents` hands on every value as it comes, `CollectEvents` those of a few
milliseconds together.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyflink.common import Row
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, ProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

from automl.keys import text_keys
from automl.stream_clock import StreamClock
from connectors.codec import is_frame
from connectors.events import EventReader
from connectors.feature_rows import FeatureReader
from connectors.flink import ASIDE, out_row, place_and_value
from connectors.records import DeadLetter
from connectors.rows import CASE_KEY, CLOCK, EventRows
from connectors.schemas import dead_letters_frame
from pipelines.operators.parts import Part, onward
from pipelines.operators.shards import Shards
from pipelines.operators.turn import takes_turns

#: Marks a topic that carries rows of features instead of events.
FEATURES = "features"
TABULAR = "tabular"
#: JSON events read together at most.
MOST_COLLECTED = 256
#: Where the topic of the waiting events stands among them; no offset is below 0.
TOPIC = -1


def now_ms() -> int:
    """This machine's clock, milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def keyed(rows: EventRows) -> EventRows:
    """The rows with the key of each case id; of payments, of all other ids and texts.

    What is compared by key needs no text any more, and the bytes a payment was read
    from are needed no longer once it was found good: neither travels on.
    """
    rows.columns[CASE_KEY] = text_keys(rows.case_id)
    if rows.modality == TABULAR:
        rows.origins.values = None
        for name, cells in rows.columns.items():
            if isinstance(cells, pa.Array):
                rows.columns[name] = text_keys(cells)
    return rows


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


@dataclass(slots=True)
class Collected:
    """JSON events of one partition that wait for each other.

    Attributes:
        topic: where all of them were read.
        offsets: their places in the partition.
        values: what was read there.
    """

    topic: str = ""
    offsets: list[int] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)


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
            yield from to_nodes(self._shards, keyed(rows), "case_id")


class CollectEvents(KeyedProcessFunction):
    """Records of one partition to `KEYED` parts of tabular events, many at a time.

    JSON events wait for each other, in Flink state, until `wait_ms` have passed since
    the first of them or there are `MOST_COLLECTED`: whatever follows costs per frame,
    hardly per event. A frame goes on at once, behind what came before it.

    Here every event is told the time that its partition has reached. One that is older
    than all windows goes to dead letters as `late`, before any window has seen it.

    Args:
        columns: columns and kinds an event must have.
        number_limits: least and greatest value of its columns of numbers.
        key: the column whose value chooses the shard; `case_id` or an entity column.
        wait_ms: longest wait for other events.
        horizon_ms: how far behind the stream's time an event may be; 0 for any.
        shards: number of shards.
        nodes: the job's parallelism.
        dead_letters: full name of the dead-letter topic.
    """

    def __init__(
        self,
        *,
        columns: Mapping[str, str],
        number_limits: Mapping[str, tuple[float, float]],
        key: str,
        wait_ms: int,
        horizon_ms: int,
        shards: int,
        nodes: int,
        dead_letters: str,
    ) -> None:
        taken = {CASE_KEY, CLOCK} & columns.keys()
        if taken:
            msg = f"collect column {taken.pop()!r}: the name is ours; rename the column"
            raise ValueError(msg)
        self._columns = dict(columns)
        self._number_limits = dict(number_limits)
        self._key = key
        self._wait_ms = wait_ms
        self._horizon_ms = horizon_ms
        self._layout = (shards, nodes)
        self._dead_letters = dead_letters

    def open(self, runtime_context: RuntimeContext) -> None:
        """Open the waiting records and the clock of each partition."""
        self._shards = Shards(*self._layout)
        self._reader = EventReader(
            TABULAR,
            columns=self._columns,
            number_limits=self._number_limits,
            now_ms=now_ms,
        )
        # a map by offset, not a list: RocksDB merges a list when it flushes
        self._waiting = runtime_context.get_map_state(
            MapStateDescriptor("waiting", Types.LONG(), Types.PICKLED_BYTE_ARRAY())
        )
        self._clock = runtime_context.get_state(
            ValueStateDescriptor("clock", Types.PICKLED_BYTE_ARRAY())
        )
        self._collected: dict[int, Collected] = {}
        self._clocks: dict[int, StreamClock] = {}
        self._frames = itertools.count()

    @takes_turns
    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Any:
        """One Kafka value."""
        topic, partition, offset, raw = value
        if raw is not None and is_frame(raw):
            place, frame = place_and_value(value)
            yield from self._flush(partition)
            yield from self._on(partition, *self._reader.read(frame, place))
            return
        collected = self._collected.get(partition)
        if collected is None:
            collected = self._restored(partition)
        if not collected.offsets:
            collected.topic = topic
            self._waiting.put(TOPIC, topic)
            timers = ctx.timer_service()
            due_ms = timers.current_processing_time() + self._wait_ms
            timers.register_processing_time_timer(due_ms)
        raw = None if raw is None else bytes(raw)
        self._waiting.put(offset, raw)
        collected.offsets.append(offset)
        collected.values.append(raw)
        if len(collected.offsets) >= MOST_COLLECTED:
            yield from self._flush(partition)

    @takes_turns
    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """The first waiting event has waited long enough."""
        yield from self._flush(ctx.get_current_key())

    def _restored(self, partition: int) -> Collected:
        found = self._collected[partition] = Collected()
        for offset, raw in sorted(self._waiting.items()):
            if offset == TOPIC:
                found.topic = raw
            else:
                found.offsets.append(offset)
                found.values.append(raw)
        return found

    def _flush(self, partition: int) -> Iterator[Any]:
        collected = self._collected.get(partition) or self._restored(partition)
        if not collected.offsets:
            return
        self._collected[partition] = Collected()
        self._waiting.clear()
        source = (collected.topic, partition)
        rows, letters = self._reader.read_objects(
            source, collected.offsets, collected.values
        )
        yield from self._on(partition, rows, letters)

    def _on(
        self, partition: int, rows: EventRows | None, letters: list[DeadLetter]
    ) -> Iterator[Any]:
        yield from letters_aside(self._dead_letters, letters)
        if rows is None:
            return
        rows, late = self._in_time(partition, rows)
        yield from letters_aside(self._dead_letters, late)
        if len(rows):
            frame = (partition, next(self._frames))
            part = Part(frame, np.arange(len(rows)), keyed(rows))
            yield from onward(self._shards, part, self._key)

    def _in_time(
        self, partition: int, rows: EventRows
    ) -> tuple[EventRows, list[DeadLetter]]:
        """The rows with the time of their stream; of those too late, the letters."""
        clock = self._clocks.get(partition)
        if clock is None:
            kept = self._clock.value()
            clock = StreamClock() if kept is None else StreamClock.from_bytes(kept)
            self._clocks[partition] = clock
        now = rows.columns[CLOCK] = clock.observe(rows.event_time_ms)
        self._clock.update(clock.to_bytes())
        late = rows.event_time_ms < now - self._horizon_ms
        if not self._horizon_ms or not late.any():
            return rows, []
        letters = [
            rows.dead_letter(
                row,
                kind="late",
                reason=(
                    f"event time {rows.event_time_ms[row]} ms is more than the horizon "
                    f"of {self._horizon_ms} ms behind the stream's time {now[row]} ms"
                ),
            )
            for row in np.flatnonzero(late).tolist()
        ]
        return rows.take(np.flatnonzero(~late)), letters
