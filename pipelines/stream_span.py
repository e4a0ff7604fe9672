"""A span of what a stream read and served, as its topics tell it."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import numpy as np
import pyarrow as pa

from automl.arrival import times_of
from automl.keys import text_keys
from automl.skew import Skew, explain_skew
from automl.stream_clock import StreamClock
from automl.task import TaskSpec
from connectors.codec import CodecError, decode_frame
from connectors.events import EventReader
from connectors.kafka import Value
from connectors.rows import concat_rows
from connectors.topics import DAY_MS, event_topic
from pipelines.operators.read import now_ms
from pipelines.skew_check import (
    events_table,
    labels_table,
    places_of,
    served_table,
    set_aside,
    with_known_from,
)

logger = logging.getLogger(__name__)

EVENTS = event_topic("tabular")
TOPICS = (EVENTS, "features", "labels", "dead-letters")
#: An event that was not served is on its way while no more than this came after it.
IN_FLIGHT_ROWS = 4096
_NEVER = -(2**62)


class StreamSpan:
    """Holds the newest events of a stream and what became of them.

    Args:
        most_rows: events held, and twice as many labels; None for all.
    """

    def __init__(self, *, most_rows: int | None = None) -> None:
        self._most_rows = most_rows
        self._events: deque[tuple[Value, int, int]] = deque()
        self._frames: deque[pa.RecordBatch] = deque()
        self._labels: deque[Value] = deque()
        self._letters: deque[dict[str, Any]] = deque()
        self._rows = self._served = 0
        self._unknown_until_ms = _NEVER
        self._clock = StreamClock()
        self._any_event = EventReader("tabular", columns={}, now_ms=now_ms)

    def take(self, topic: str, value: Value) -> None:
        """Keep one Kafka value of one of `TOPICS`, named without its prefix."""
        if topic == EVENTS:
            self._take_event(value)
        elif topic == "labels":
            self._labels.append(value)
        elif topic in ("features", "dead-letters"):
            try:
                batch = decode_frame(value.value or b"")
            except CodecError as error:
                logger.error("read %s: %s", value.place, error)
                return
            if topic == "features":
                self._frames.append(batch)
                self._served += batch.num_rows
            else:
                self._letters += batch.to_pylist()
        self._drop()

    def _take_event(self, value: Value) -> None:
        rows, _ = self._any_event.read(value.value, value.place)
        if rows is None:
            return
        times = rows.event_time_ms
        now = int(self._clock.observe(times)[-1])
        # one far ahead was set aside
        near = times if now == _NEVER else times[times <= now + DAY_MS]
        newest_ms = int(near.max()) if len(near) else _NEVER
        if not self._events and value.place.offset > 0:
            self._unknown_until_ms = newest_ms
        self._events.append((value, len(rows), newest_ms))
        self._rows += len(rows)

    def _drop(self) -> None:
        """Forget the oldest of what is held above the limit."""
        most = self._most_rows
        if most is None:
            return
        while len(self._events) > 1 and self._rows - self._events[0][1] >= most:
            _, rows, newest_ms = self._events.popleft()
            self._rows -= rows
            self._unknown_until_ms = max(self._unknown_until_ms, newest_ms)
        while self._frames and self._served - self._frames[0].num_rows >= 2 * most:
            self._served -= self._frames.popleft().num_rows
        while len(self._labels) > 2 * most:
            self._labels.popleft()
        while len(self._letters) > most:
            self._letters.popleft()

    def skew(
        self,
        spec: TaskSpec,
        *,
        archive: pa.Table | None = None,
        tolerance: float = 0.0,
    ) -> Skew | None:
        """How served features differ from the backfill; None where nothing is held.

        Args:
            spec: a resolved task; frames of other features are left out.
            archive: the events that the backfill rests on; those of the topic if None.
            tolerance: see `explain_skew`.
        """
        sources = self._sources(spec)
        served = served_table(self._frames, features=spec.feature_names)
        if sources is None or not served.num_rows:
            return None
        aside = set_aside(self._letters)
        since_ms: int | None = None
        if self._most_rows is None:
            there = places_of(served) <= places_of(sources)[-1]
            served = served.filter(pa.array(there))
        else:
            sources, served, since_ms = self._settled(spec, sources, served, aside)
        labels = with_known_from(labels_table(self._labels), served)
        return explain_skew(
            spec,
            sources if archive is None else archive,
            served,
            labels=labels if labels.num_rows else None,
            sources=sources,
            aside=aside,
            tolerance=tolerance,
            since_ms=since_ms,
        )

    def _sources(self, spec: TaskSpec) -> pa.Table | None:
        reader = EventReader(
            "tabular",
            columns=spec.needed_columns,
            number_limits=spec.number_limits(),
            now_ms=now_ms,
        )
        read = [reader.read(one.value, one.place)[0] for one, _, _ in self._events]
        parts = [rows for rows in read if rows is not None]
        if not parts:
            return None
        return events_table(concat_rows(parts), spec.needed_columns)

    def _settled(
        self,
        spec: TaskSpec,
        sources: pa.Table,
        served: pa.Table,
        aside: dict[str, str],
    ) -> tuple[pa.Table, pa.Table, int | None]:
        """What is decided by now, and the time from which all windows are filled."""
        theirs, ours = places_of(sources), places_of(served)
        ids = text_keys(sources.column("event_id"))
        known = np.isin(ids, text_keys(pa.array([*aside], pa.string())))
        known |= np.isin(ids, text_keys(served.column("event_id")))
        waiting = np.flatnonzero(~known & (np.arange(len(ids)) >= _settled_rows(ids)))
        end = theirs[waiting[0]] if len(waiting) else theirs[-1] + 1
        first = max(theirs[0], ours[ours >= theirs[0]].min(initial=end))
        before = sources.filter(pa.array(theirs < first))
        until_ms = self._unknown_until_ms
        if before.num_rows:
            until_ms = max(until_ms, int(times_of(before).max()))
        since_ms = None if until_ms == _NEVER else until_ms + spec.horizon_ms
        sources = sources.filter(pa.array((theirs >= first) & (theirs < end)))
        served = served.filter(pa.array((ours >= first) & (ours < end)))
        return sources, served, since_ms


def _settled_rows(ids: Any) -> int:
    """How many rows have so many behind them that none of them is on its way."""
    return max(0, len(ids) - IN_FLIGHT_ROWS)
