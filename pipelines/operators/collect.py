"""Payments of a partition collected into frames, told the stream's time, sent on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from pyflink.common import Row
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

from automl.stream_clock import StreamClock
from connectors.codec import is_frame
from connectors.events import EventReader
from connectors.flink import place_and_value
from connectors.records import DeadLetter, Place
from connectors.rows import CASE_KEY, CLOCK, EventRows, concat_rows
from pipelines.operators.parts import Part, onward
from pipelines.operators.read import TABULAR, keyed, letters_aside, now_ms
from pipelines.operators.shards import Shards
from pipelines.operators.turn import UNDER_WAY, takes_turns

#: JSON events read together at most.
MOST_COLLECTED = 256
#: Rows of frames that go on together at most, and how old frames must be for that.
MOST_ROWS, BEHIND_MS = 2048, 25
#: Frames of a node under way from which on new ones wait for each other, how long they
#: do before it is looked at again, and how often.
BUSY_FRAMES, LOOK_MS, MOST_LOOKS = 3, 1, 20


@dataclass(slots=True)
class Collected:
    """What waits in one partition: JSON events for each other, or frames.

    Attributes:
        topic: where all of them were read.
        offsets: their places in the partition, growing.
        values: what was read there.
        frames: rows of frames, when those wait.
        looks: how often it was found that those under way are still there.
    """

    topic: str = ""
    offsets: list[int] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    frames: list[EventRows] = field(default_factory=list)
    looks: int = 0

    @property
    def rows(self) -> int:
        """Rows of the frames that wait."""
        return sum(len(rows) for rows in self.frames)


class CollectEvents(KeyedProcessFunction):
    """Records of one partition to `KEYED` parts of tabular events, many at a time.

    JSON events wait for each other, in Flink state, until `wait_ms` have passed since
    the first of them or there are `MOST_COLLECTED`: whatever follows costs per frame,
    hardly per event. A frame goes on at once, behind what came before it, unless it is
    `BEHIND_MS` old, or others of a single node are still under way: frames that would
    pile up wait for each other here, up to `MOST_ROWS`, since large ones cost less per
    event.

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
        # Those that wait lie in slots 0, 1, ... of a map, which are written over by the
        # next ones; a number tells which went on. RocksDB would step over everything
        # that was ever removed from a map whenever it is cleared or read.
        self._slots = runtime_context.get_map_state(
            MapStateDescriptor("slots", Types.LONG(), Types.PICKLED_BYTE_ARRAY())
        )
        self._gone = runtime_context.get_state(
            ValueStateDescriptor("gone", Types.PICKLED_BYTE_ARRAY())
        )
        self._clock = runtime_context.get_state(
            ValueStateDescriptor("clock", Types.PICKLED_BYTE_ARRAY())
        )
        self._collected: dict[int, Collected] = {}
        self._clocks: dict[int, StreamClock] = {}
        self._frames = itertools.count()
        UNDER_WAY.begin()

    @takes_turns
    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Any:
        """One Kafka value."""
        topic, partition, offset, raw = value
        collected = self._collected.get(partition)
        if collected is None:
            collected = self._restored(partition)
        if raw is not None and is_frame(raw):
            yield from self._frame(partition, value, ctx)
            return
        if collected.frames:
            yield from self._flush(partition)
            collected = self._collected[partition]
        if not collected.offsets:
            collected.topic = topic
            self._flush_later(ctx, self._wait_ms)
        raw = None if raw is None else bytes(raw)
        self._slots.put(len(collected.offsets), (topic, offset, raw))
        collected.offsets.append(offset)
        collected.values.append(raw)
        if len(collected.offsets) >= MOST_COLLECTED:
            yield from self._flush(partition)

    def _frame(self, partition: int, value: Row, ctx: Any) -> Iterator[Any]:
        """A frame: on at once, or with others when it is behind."""
        place, raw = place_and_value(value)
        rows, letters = self._reader.read(raw, place)
        held = self._collected[partition]
        if rows is None or not (self._is_busy() or _is_behind(rows)):
            if rows is not None and held.frames:
                held.frames.append(rows)
                rows = None
            yield from self._flush(partition)
            yield from self._on(partition, rows, letters)
            return
        yield from letters_aside(self._dead_letters, letters)
        if held.values:
            yield from self._flush(partition)
        collected = self._collected[partition]
        if not collected.frames:
            collected.topic = place.topic
            self._flush_later(ctx, LOOK_MS if self._is_busy() else self._wait_ms)
        self._slots.put(len(collected.offsets), (place.topic, place.offset, raw))
        collected.offsets.append(place.offset)
        collected.frames.append(rows)
        if collected.rows >= MOST_ROWS:
            yield from self._flush(partition)

    def _is_busy(self) -> bool:
        """Whether frames would wait for others; of several nodes nobody knows."""
        return self._layout[1] == 1 and UNDER_WAY.frames >= BUSY_FRAMES

    def _flush_later(self, ctx: Any, wait_ms: int) -> None:
        timers = ctx.timer_service()
        due_ms = timers.current_processing_time() + wait_ms
        timers.register_processing_time_timer(due_ms)

    @takes_turns
    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """The first waiting event has waited long enough."""
        partition = ctx.get_current_key()
        collected = self._collected.get(partition)
        if collected and collected.frames and self._is_busy():
            collected.looks += 1
            if collected.looks < MOST_LOOKS:
                self._flush_later(ctx, LOOK_MS)
                return
        yield from self._flush(partition)

    def _restored(self, partition: int) -> Collected:
        found = self._collected[partition] = Collected()
        gone = self._gone.value()
        waiting = (slot for _, slot in self._slots.items())
        for topic, offset, raw in sorted(waiting, key=itemgetter(1)):
            if gone is not None and offset <= gone:
                continue
            found.topic = topic
            found.offsets.append(offset)
            if raw is not None and is_frame(raw):
                place = Place(topic=topic, partition=partition, offset=offset)
                rows, _ = self._reader.read(raw, place)  # its letters were written
                found.frames += [] if rows is None else [rows]
            else:
                found.values.append(raw)
        return found

    def _flush(self, partition: int) -> Iterator[Any]:
        collected = self._collected.get(partition) or self._restored(partition)
        if not collected.offsets:
            return
        self._collected[partition] = Collected()
        self._gone.update(collected.offsets[-1])
        if collected.frames:
            yield from self._on(partition, concat_rows(collected.frames), [])
        if not collected.values:
            return
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
            UNDER_WAY.start()
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


def _is_behind(rows: EventRows) -> bool:
    """Whether events waited for this job rather than for their sender."""
    created = rows.created_ms
    return bool(created.min() > 0) and now_ms() - int(created.max()) > BEHIND_MS
