"""What is known of the cases of a node, in memory and in the state of its shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyflink.common import Time
from pyflink.common.typeinfo import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, StateTtlConfig

from automl.keys import text_keys
from pipelines.operators.assemble import TABULAR, Case, case_after
from pipelines.operators.case_table import CaseTable
from pipelines.operators.shards import OwnShards, by_shard, shard_of

#: How often a shard with held media looks for those that waited too long.
TICK_MS = 1000


def next_tick(clock_ms: int) -> int:
    """The next whole tick: one timer per shard, however often a job restarts."""
    return (clock_ms // TICK_MS + 1) * TICK_MS


@dataclass(frozen=True, slots=True)
class Now:
    """The processing clock of one call, and the timers of its shard.

    Attributes:
        clock_ms: the clock.
        timers: Flink's timer service.
    """

    clock_ms: int
    timers: Any


class CaseState:
    """Cases by key: rows of a table while one event is all, objects from then on.

    A case that the table does not know is a new one, so its first event needs no state
    of its own. State per shard: a log of rows of the table, one entry a frame; cases
    that more happened to; and cases that hold media and wait for their tabular event,
    since when. All but the last are kept for `ttl_s` after they were written.

    Args:
        context: where the state is opened.
        own: this node's shards.
        shards: number of shards of the job.
        ttl_s: how long a case is kept.
        features: number of features that are kept of a first event.
    """

    def __init__(
        self,
        context: RuntimeContext,
        own: OwnShards,
        *,
        shards: int,
        ttl_s: int,
        features: int,
    ) -> None:
        self._own = own
        self._shards = shards
        self.table = CaseTable(ttl_ms=1000 * ttl_s, features=features)
        kept = StateTtlConfig.new_builder(Time.seconds(ttl_s)).build()
        log = MapStateDescriptor("first", Types.LONG(), Types.PICKLED_BYTE_ARRAY())
        log.enable_time_to_live(kept)
        self._log = context.get_map_state(log)
        cases = MapStateDescriptor("cases", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        cases.enable_time_to_live(kept)
        self._cases = context.get_map_state(cases)
        self._held = context.get_map_state(
            MapStateDescriptor("held", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._entries = 0

    def restore(self, clock_ms: int) -> None:
        """Read the log of every shard of this node, once, before anything else."""
        entries: list[tuple[int, bytes]] = []
        held: list[str] = []
        for shard in self._own.owned:
            self._own.use(shard)
            entries += self._log.items()
            held += [case_id for case_id, _ in self._held.items()]
        entries.sort(key=lambda entry: entry[0])
        self._entries = entries[-1][0] + 1 if entries else 0
        self.table.restore(bytes(packed) for _, packed in entries)
        if held:
            self.table.mark(text_keys(pa.array(held, pa.string())), clock_ms)

    def case(self, case_id: str, key: int) -> Case:
        """A case as it stands; a new one when nothing is known of it."""
        known = self.table.first_event(key)
        if known is None:
            return Case(case_id)
        if known.event_key:
            return case_after(
                case_id, event_key=known.event_key, x=known.x, alerted=known.alerted
            )
        self._own.use(shard_of(key, self._shards))
        case: Case | None = self._cases.get(case_id)
        if case is None:
            _, case = self._held.get(case_id) or (0, None)
        return case or Case(case_id)

    def held(self, shard: int) -> list[tuple[int, Case]]:
        """The cases of a shard that hold media, and since when."""
        self._own.use(shard)
        return [held for _, held in self._held.items()]

    def tick(self, shard: int, now: Now) -> None:
        """Have the shard looked at again, as long as any of its cases holds media."""
        self._own.use(shard)
        if not self._held.is_empty():
            now.timers.register_processing_time_timer(next_tick(now.clock_ms))

    def keep(self, first: NDArray[np.uint64], cases: dict[int, Case], now: Now) -> None:
        """Write what has changed: cases new in the table, and cases by their key."""
        keys = first
        if cases:
            touched = np.array([*cases], dtype=np.uint64)
            self.table.mark(touched, now.clock_ms)
            # one that became more in the same frame is marked already
            keys = np.concatenate([first[~np.isin(first, touched)], touched])
        if not len(keys):
            return
        shards = by_shard(keys, self._shards)
        order = np.concatenate([*shards.values()])
        bounds = [0, *np.cumsum([len(members) for members in shards.values()]).tolist()]
        entries = self.table.packed(keys[order], bounds, now.clock_ms)
        for shard, entry in zip(shards, entries, strict=True):
            self._own.use(shard)
            self._log.put(self._entries, entry)
        self._entries += 1
        self._keep_cases(cases.items(), now)

    def _keep_cases(self, cases: Iterable[tuple[int, Case]], now: Now) -> None:
        for key, case in cases:
            self._own.use(shard_of(key, self._shards))
            if case.held:
                self._held.put(case.case_id, (now.clock_ms, case))
                due_ms = next_tick(now.clock_ms)
                now.timers.register_processing_time_timer(due_ms)
                continue
            self._cases.put(case.case_id, case)
            if case.contents.keys() != {TABULAR}:  # it may have waited
                self._held.remove(case.case_id)
