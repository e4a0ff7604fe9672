"""Cases scored as their events land, with a model that can be swapped while running."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pyflink.common import Row, Time
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import (
    MapStateDescriptor,
    StateTtlConfig,
    ValueStateDescriptor,
)

from connectors.flink import out_row
from connectors.records import MEDIA, MODALITIES, DeadLetter
from connectors.rows import EventRows
from pipelines.operators.aggregate import windows_column
from pipelines.operators.assemble import (
    TABULAR,
    Case,
    Landing,
    Pending,
    inputs,
    land,
    release,
)
from pipelines.operators.read import letters_out, now_ms
from pipelines.operators.running_model import RunningModel
from pipelines.operators.shards import OwnShards, Shards, by_shard

#: How often a shard with held media looks for those that waited too long.
TICK_MS = 1000


def next_tick(clock_ms: int) -> int:
    """The next whole tick: one timer per shard, however often a job restarts."""
    return (clock_ms // TICK_MS + 1) * TICK_MS


class ScoreCases(KeyedProcessFunction):
    """Event rows, embeddings and model announcements of one node to Kafka rows.

    The main output is `OUT`: frames of decisions, features and vectors, and one JSON
    alert whenever the alert state of a case changes. The decisions of a frame are made
    in one call, which costs hardly more than one decision does.

    State per shard: the cases that were decided, kept for `case_ttl_s` after their last
    event; those that hold media and wait for their tabular event, since when; and the
    model announced last.

    Args:
        config: the job's settings, as a plain dict of `JobConfig`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the model and open the state of this node's shards."""
        import torch

        from pipelines.decide import decision_frames

        torch.set_num_threads(1)
        self._frames = decision_frames
        self._model = RunningModel(Path(self._config["model_folder"]))
        self._shards = Shards(self._config["shards"], self._config["nodes"])
        self._own = OwnShards(runtime_context, self._shards)
        cases = MapStateDescriptor("cases", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        kept = Time.seconds(self._config["case_ttl_s"])
        cases.enable_time_to_live(StateTtlConfig.new_builder(kept).build())
        self._cases = runtime_context.get_map_state(cases)
        self._held = runtime_context.get_map_state(
            MapStateDescriptor("held", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._announced = runtime_context.get_state(
            ValueStateDescriptor("model", Types.PICKLED_BYTE_ARRAY())
        )
        # what was imported and loaded stays: a full collection of it takes 0.1 s
        gc.collect()
        gc.freeze()
        # one partition per subtask, so that the revisions of a case stay in order
        self._key = uuid.uuid4().hex
        self._restored = False

    def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Any:
        """Rows, embeddings or an announcement, for this node."""
        yield from self._restore()
        if isinstance(value, dict):
            yield from self._swap(value)
            return
        landings, letters = (
            self._tabular(value) if value.modality == "tabular" else self._media(value)
        )
        yield from self._letters(letters)
        timers = ctx.timer_service()
        clock_ms = timers.current_processing_time()
        touched: dict[int, dict[str, Case]] = {}
        pending: list[Pending] = []
        for shard, members in by_shard(value.case_id, self._shards.count).items():
            self._own.use(shard)
            cases = touched[shard] = {}
            for i in members:
                landing = landings[i]
                if landing is None:
                    continue
                case_id = value.case_id[i]
                if case_id not in cases:
                    cases[case_id] = self._case(case_id)
                pending += land(cases[case_id], landing)
        yield from self._decide(pending)
        for shard, cases in touched.items():
            self._own.use(shard)
            for case in cases.values():
                self._keep(case, clock_ms, timers)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """Decide cases of one shard whose tabular event did not come in time."""
        shard = self._shards.of_flink_key(ctx.get_current_key())
        yield from self._restore()
        self._own.use(shard)
        timers = ctx.timer_service()
        clock_ms = timers.current_processing_time()
        held = self._held.items()
        waited_ms = self._config["media_wait_ms"]
        over = [case for _, (at_ms, case) in held if clock_ms - at_ms >= waited_ms]
        yield from self._decide([one for case in over for one in release(case)])
        for case in over:
            self._keep(case, clock_ms, timers)
        if not self._held.is_empty():
            timers.register_processing_time_timer(next_tick(clock_ms))

    def _case(self, case_id: str) -> Case:
        """A case of the shard in use."""
        case: Case | None = self._cases.get(case_id)
        if case is None:
            _, case = self._held.get(case_id) or (0, None)
        return case or Case(case_id)

    def _keep(self, case: Case, clock_ms: int, timers: Any) -> None:
        """Write a case of the shard in use to its state."""
        if case.held:
            self._held.put(case.case_id, (clock_ms, case))
            timers.register_processing_time_timer(next_tick(clock_ms))
            return
        self._cases.put(case.case_id, case)
        if case.contents.keys() != {TABULAR}:  # it may have waited
            self._held.remove(case.case_id)

    def _restore(self) -> Iterator[Row]:
        """Go on with the version that was at work before a restart."""
        if self._restored:
            return
        self._restored = True
        for shard in self._own.owned:
            self._own.use(shard)
            announced = self._announced.value()
            if announced is not None:
                yield from self._letters(self._model.take(announced))

    def _swap(self, announced: dict[str, Any]) -> Iterator[Row]:
        """Use the announced version from the next event on, or say why not."""
        yield from self._letters(self._model.take(announced))
        # a restart comes back to the last version that was taken, not to a refused one
        if self._model.is_at_work(announced):
            for shard in self._own.owned:
                self._own.use(shard)
                self._announced.update(announced)

    def _tabular(
        self, rows: EventRows
    ) -> tuple[list[Landing | None], list[DeadLetter]]:
        assembler = self._model.assembler
        windows = {e: rows.columns[windows_column(e)] for e in assembler.entities}
        x = assembler.assemble(rows.event_time_ms, rows.columns, windows)
        return [
            Landing(event_id, TABULAR, time_ms, created, features)
            for event_id, time_ms, created, features in zip(
                rows.event_id,
                rows.event_time_ms.tolist(),
                rows.created_ms.tolist(),
                x,
                strict=True,
            )
        ], []

    def _media(self, rows: EventRows) -> tuple[list[Landing | None], list[DeadLetter]]:
        """Landings of embeddings; those of another encoder are refused."""
        landings: list[Landing | None] = []
        letters: list[DeadLetter] = []
        manifest = self._model.scorer.manifest
        known = manifest.fingerprints
        fits = rows.columns["vector"].shape[1] == manifest.width
        for i, event_id in enumerate(rows.event_id):
            modality = rows.columns["modality"][i]
            fingerprint = rows.columns["fingerprint"][i]
            if modality not in MEDIA or known.get(modality) != fingerprint or not fits:
                landings.append(None)
                reason = (
                    f"embedding made by encoder {fingerprint}, the model takes "
                    f"{modality} from {known.get(modality)}"
                )
                letters.append(rows.dead_letter(i, kind="mismatch", reason=reason))
                continue
            landings.append(
                Landing(
                    event_id,
                    MODALITIES.index(modality),
                    int(rows.event_time_ms[i]),
                    int(rows.created_ms[i]),
                    rows.columns["vector"][i],
                )
            )
        return landings, letters

    def _decide(self, pending: list[Pending]) -> Iterator[Row]:
        """Make decisions, of whatever shard, in one call."""
        if not pending:
            return
        scorer = self._model.scorer
        manifest = scorer.manifest
        x, vectors, mask = inputs(
            pending, features=len(manifest.features), width=manifest.width
        )
        scored = scorer.score(x, vectors, mask)
        told = np.flatnonzero(scored.alert).tolist()
        reasons = dict(zip(told, scorer.reasons(x, scored, mask, told), strict=True))
        for topic, key, value in self._frames(
            manifest, pending, x, mask, scored, reasons, now_ms()
        ):
            yield out_row(self._topic(topic), key or self._key, value)

    def _letters(self, letters: list[DeadLetter]) -> Iterator[Row]:
        yield from letters_out(self._topic("dead-letters"), letters)

    def _topic(self, name: str) -> str:
        return str(self._config["prefix"]) + name
