"""Payments of a partition collected into frames, told the stream's time, sent on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor

from automl.stream_clock import StreamClock
from connectors.codec import is_frame
from connectors.events import EventReader
from connectors.flink import Record
from connectors.records import DeadLetter, Place
from connectors.rows import CASE_KEY, CLOCK, EventRows, concat_rows
from pipelines.operators.parts import Part, forget_handed, onward
from pipelines.operators.read import TABULAR, keyed, letters_aside, now_ms
from pipelines.operators.shards import Shards
from pipelines.operators.slots import Slots
from pipelines.operators.turn import UNDER_WAY, takes_turns

#: JSON events that wait at most, and rows of frames.
MOST_EVENTS, MOST_ROWS = 1024, 2048
#: Frames that are older than this are behind, and go on together.
BEHIND_MS = 25
#: Frames of a node under way from which on others, or JSON events, wait for them; how
#: long they do before it is looked at again, and how often.
BUSY_FRAMES, BUSY_EVENTS, LOOK_MS, MOST_LOOKS = 3, 1, 1, 20
#: JSON events that come so fast that more are waited for.
MANY_EVENTS = 64


@dataclass(slots=True)
class Collected:
    """What waits in one partition: JSON events for each other, or frames.

    Attributes:
        offsets: their places in the partition, growing.
        values: what was read there, when it was JSON.
        frames: rows of frames, when those wait.
        due_ms: when the first of them has waited long enough.
        rows: rows of those frames.
        looks: how often it was looked at whether others are still under way.
    """

    offsets: list[int] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    frames: list[EventRows] = field(default_factory=list)
    rows: int = 0
    due_ms: int = 0
    looks: int = 0


class CollectEvents(KeyedProcessFunction):
    """Records of the partitions of a node to `KEYED` parts of tabular events.

    JSON events wait for each other, in Flink state, until `wait_ms` have passed since
    the first of them and, on a single node, nothing is under way, or there are
    `MOST_EVENTS`: whatever follows costs per frame, hardly per event. A frame goes on
    at once, behind what came before it, unless it is `BEHIND_MS` old, or others of a
    single node are still under way: frames that would pile up wait for each other here,
    up to `MOST_ROWS`.

    Here every event is told the time that its partition has reached. One that is older
    than all windows goes to dead letters as `late`, before any window has seen it.

    Args:
        topic: full name of the topic of events.
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
        topic: str,
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
        self._topic = topic
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
        self._slots = Slots(runtime_context)
        self._clock = runtime_context.get_state(
            ValueStateDescriptor("clock", Types.PICKLED_BYTE_ARRAY())
        )
        self._collected: dict[int, Collected] = {}
        self._clocks: dict[int, StreamClock] = {}
        self._frames = itertools.count()
        UNDER_WAY.begin()
        forget_handed()

    @takes_turns
    def process_element(self, value: Record, ctx: KeyedProcessFunction.Context) -> Any:
        """One Kafka value."""
        where, raw = value
        _, at, number = where.split()
        partition, offset = int(at), int(number)
        if raw is not None and is_frame(raw):
            return self._frame(partition, offset, raw, ctx)
        collected = self._of(partition)
        gone: list[Any] = []
        if collected.frames:
            gone = [*self._flush(partition)]
            collected = self._of(partition)
        self._wait(collected, offset, raw, self._wait_ms, ctx)
        collected.values.append(raw)
        if len(collected.values) >= MOST_EVENTS:
            gone += self._flush(partition)
        return gone or None

    def _frame(
        self, partition: int, offset: int, raw: bytes, ctx: Any
    ) -> Iterator[Any]:
        """A frame: on at once, or with others when it is behind."""
        rows, letters = self._reader.read(raw, self._place(partition, offset))
        yield from letters_aside(self._dead_letters, letters)
        if rows is None:
            return
        if self._of(partition).values:
            yield from self._flush(partition)
        collected = self._of(partition)
        busy = self._is_busy(BUSY_FRAMES)
        if busy or _is_behind(rows):
            wait_ms = LOOK_MS if busy else self._wait_ms
            self._wait(collected, offset, raw, wait_ms, ctx)
            collected.frames.append(rows)
            collected.rows += len(rows)
            if collected.rows >= MOST_ROWS:
                yield from self._flush(partition)
        elif collected.frames:
            collected.frames.append(rows)
            yield from self._flush(partition)
        else:
            yield from self._on(partition, rows)

    def _is_busy(self, frames: int) -> bool:
        """Whether so many are under way that more would wait; of one node alone."""
        return self._layout[1] == 1 and UNDER_WAY.frames >= frames

    def _wait(
        self,
        collected: Collected,
        offset: int,
        raw: bytes | None,
        wait_ms: int,
        ctx: Any,
    ) -> None:
        if not collected.offsets:
            self._flush_later(collected, wait_ms, ctx)
        self._slots.put(len(collected.offsets), offset, raw)
        collected.offsets.append(offset)

    def _flush_later(self, collected: Collected, wait_ms: int, ctx: Any) -> None:
        timers = ctx.timer_service()
        collected.due_ms = timers.current_processing_time() + wait_ms
        timers.register_processing_time_timer(collected.due_ms)

    @takes_turns
    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """The first that waits in a partition has waited long enough."""
        partition = ctx.get_current_key()
        collected = self._of(partition)
        if not collected.offsets or collected.due_ms > timestamp:
            return  # what this timer was for went on
        busy = self._is_busy(BUSY_FRAMES if collected.frames else BUSY_EVENTS)
        many = len(collected.values) >= MANY_EVENTS
        collected.looks += 1
        if (busy or many) and collected.looks < MOST_LOOKS:
            self._flush_later(collected, LOOK_MS, ctx)
            return
        yield from self._flush(partition)

    def _place(self, partition: int, offset: int) -> Place:
        return Place(topic=self._topic, partition=partition, offset=offset)

    def _of(self, partition: int) -> Collected:
        """What waits in the partition in use."""
        found = self._collected.get(partition)
        if found is not None:
            return found
        found = self._collected[partition] = Collected()
        for offset, raw in self._slots.waiting():
            found.offsets.append(offset)
            if raw is not None and is_frame(raw):
                # its letters were written when it came
                rows, _ = self._reader.read(raw, self._place(partition, offset))
                found.frames += [] if rows is None else [rows]
            else:
                found.values.append(raw)
        return found

    def _flush(self, partition: int) -> Iterator[Any]:
        """What waits in the partition in use goes on."""
        collected = self._collected[partition]
        if not collected.offsets:
            return
        self._collected[partition] = Collected()
        self._slots.went_on(collected.offsets[-1])
        if collected.frames:
            yield from self._on(partition, concat_rows(collected.frames))
        if collected.values:
            rows, letters = self._reader.read_objects(
                (self._topic, partition), collected.offsets, collected.values
            )
            yield from letters_aside(self._dead_letters, letters)
            if rows is not None:
                yield from self._on(partition, rows)

    def _on(self, partition: int, rows: EventRows) -> Iterator[Any]:
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
