"""Which row of an archive each served row is, and what became of every event.

Legend: `N` events that are known, `K` served rows, each event's first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from automl.arrival import times_of
from automl.keys import text_keys
from automl.stream_clock import StreamClock
from automl.task import TaskSpec

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

#: What became of an event: its values were served; it was refused as too late, or for
#: another reason; it came again; or nothing is known of it.
SERVED, LATE, REFUSED, REPEATED, MISSING = range(5)
_TIME_ORDER = [("event_time", "ascending"), ("event_id", "ascending")]
_ODD = tuple(
    np.uint64(x)
    for x in (
        0x9E3779B97F4A7C15,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0xD6E8FEB86659FD93,
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedRows:
    """The served rows among the events, and the order in which those arrived.

    Attributes:
        events: N rows: those of the archive in event-time order (ties by event_id),
            then those that only the stream read.
        archived: how many of the N are the archive's.
        first: int64 (K,), positions in the served rows: each event's first.
        again: int64, positions of rows of an event that was served before.
        again_of: int64, for each of `again` the position of the first.
        event: int64 (K,), which of the N each is; -1 where no such event is known.
        fate: int8 (N,), one of SERVED, LATE, REFUSED, REPEATED, MISSING.
        order: int64, those of the N that the windows saw, in order of arrival.
        clock_ms: int64, the stream's clock at each of `order`.
    """

    events: pa.Table
    archived: int
    first: Ints
    again: Ints
    again_of: Ints
    event: Ints
    fate: npt.NDArray[np.int8]
    order: Ints
    clock_ms: Ints

    @classmethod
    def find(
        cls,
        spec: TaskSpec,
        archive: pa.Table,
        served: pa.Table,
        *,
        sources: pa.Table | None = None,
        aside: Mapping[str, str] | None = None,
    ) -> ServedRows:
        """Finds every served row among the events.

        A row is the same as another when event_id, case_id and event_time agree.

        Args:
            spec: a resolved task; names the columns that are needed.
            archive: the events, in any order.
            served: what the stream served, in order of arrival.
            sources: the events that the stream read, in order of arrival; without
                them, those of the archive that were served.
            aside: event_id to kind (`late` or another) of events set aside.
        """
        keys = _row_keys(served)
        number = _number_among_equals(keys)
        first, again = np.flatnonzero(number == 0), np.flatnonzero(number > 0)
        again_of = _places(keys[again], keys)
        events, source_event = _events(spec, archive, sources)
        event = _places(keys[first], _row_keys(events))
        fate = _fates(events, served, event, aside or {})
        met = event if source_event is None else source_event
        order = _order(times_of(events), met[met >= 0], fate)
        clock_ms = StreamClock().observe(times_of(events)[order])
        seen = fate[order] != LATE
        return cls(
            events=events,
            archived=archive.num_rows,
            first=first,
            again=again,
            again_of=again_of,
            event=event,
            fate=fate,
            order=order[seen],
            clock_ms=clock_ms[seen],
        )

    def order_from(self, position: Ints) -> Ints:
        """For positions in the served rows, from which place in `order` on they are.

        Positions after the last served row give a place after the last.
        """
        place = np.full(self.events.num_rows + 1, len(self.order), dtype=np.int64)
        place[self.order] = np.arange(len(self.order))
        ours = np.append(place[self.event], len(self.order))
        least = np.minimum.accumulate(ours[::-1])[::-1]
        return np.asarray(least[np.searchsorted(self.first, position)])


def time_order(rows: pa.Table) -> Ints:
    """Positions of rows by event time, ties by event_id, further ties as given."""
    found = pc.sort_indices(rows, sort_keys=_TIME_ORDER).to_numpy()
    return np.asarray(found, dtype=np.int64)


def _events(
    spec: TaskSpec, archive: pa.Table, sources: pa.Table | None
) -> tuple[pa.Table, Ints | None]:
    """The archive with what only the stream read, and which of them each source is."""
    wanted = ["event_id", "case_id", "event_time", *spec.needed_columns]
    ordered = archive.select(wanted).take(time_order(archive))
    if sources is None:
        return ordered, None
    theirs = sources.select(wanted).cast(ordered.schema)
    place = _places(_one_by_one(_row_keys(theirs)), _one_by_one(_row_keys(ordered)))
    unknown = np.flatnonzero(place < 0)
    place[unknown] = ordered.num_rows + np.arange(len(unknown))
    return pa.concat_tables([ordered, theirs.take(unknown)]), place


def _fates(
    events: pa.Table, served: pa.Table, event: Ints, aside: Mapping[str, str]
) -> npt.NDArray[np.int8]:
    fate = np.full(events.num_rows, MISSING, dtype=np.int8)
    repeated = np.isin(_event_keys(events), _event_keys(served))
    fate[repeated] = REPEATED
    if aside:
        kinds = pa.array(list(aside.values()), pa.string())
        is_late = pc.equal(kinds, "late").to_numpy(zero_copy_only=False)
        place = _places(
            text_keys(events.column("event_id")),
            text_keys(pa.array(list(aside), pa.string())),
        )
        there = np.flatnonzero(place >= 0)
        fate[there] = np.where(is_late[place[there]], LATE, REFUSED)
    fate[event[event >= 0]] = SERVED
    return fate


def _order(times_ms: Ints, met: Ints, fate: npt.NDArray[np.int8]) -> Ints:
    """Events that moved the clock, as they were met; the others by their time."""
    seen = np.isin(fate, (SERVED, REPEATED, LATE))
    met = met[seen[met]]
    unmet = seen.copy()
    unmet[met] = False
    others = np.flatnonzero(unmet)
    reached = np.maximum.accumulate(times_ms[met])
    after = np.searchsorted(reached, times_ms[others], side="right")
    place = np.concatenate([np.arange(1, len(met) + 1), after + 0.5])
    return np.asarray(np.concatenate([met, others])[np.argsort(place, kind="stable")])


def _event_keys(rows: pa.Table) -> Keys:
    ids, cases = (text_keys(rows.column(name)) for name in ("event_id", "case_id"))
    return _mixed(ids * _ODD[0] + cases)


def _row_keys(rows: pa.Table) -> Keys:
    return _mixed(_event_keys(rows) + times_of(rows).astype(np.uint64) * _ODD[1])


def _one_by_one(keys: Keys) -> Keys:
    """Keys that tell equal rows apart by their number among equals."""
    return keys + _number_among_equals(keys).astype(np.uint64) * _ODD[2]


def _mixed(keys: Keys) -> Keys:
    keys = (keys ^ (keys >> np.uint64(32))) * _ODD[3]
    return np.asarray(keys ^ (keys >> np.uint64(29)))


def _number_among_equals(keys: Keys) -> Ints:
    """0 for the first of equal keys, 1 for the second, ..."""
    order = np.argsort(keys, kind="stable")
    new = np.append(True, keys[order][1:] != keys[order][:-1])[: len(keys)]
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(keys)))
    number = np.empty(len(keys), dtype=np.int64)
    number[order] = np.arange(len(keys)) - np.repeat(starts, lengths)
    return number


def _places(wanted: Keys, among: Keys) -> Ints:
    """Where each key stands first among others, or -1."""
    order = np.argsort(among, kind="stable")
    ranked = np.append(among[order], np.uint64(0))
    at = np.searchsorted(ranked[:-1], wanted)
    found = (at < len(among)) & (ranked[at] == wanted)
    places = np.append(order, -1)
    return np.asarray(np.where(found, places[at], -1), dtype=np.int64)
