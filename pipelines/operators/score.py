"""Cases scored as their events land, with a model that can be swapped while running."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyflink.common import Row
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor

from automl.keys import text_keys
from connectors.flink import out_row
from connectors.records import MEDIA, MODALITIES, DeadLetter
from connectors.rows import CASE_KEY, EventRows
from pipelines.operators.aggregate import windows_column
from pipelines.operators.assemble import TABULAR, Case, Landing, Pending, land, release
from pipelines.operators.case_state import CaseState, Now
from pipelines.operators.read import letters_out, now_ms
from pipelines.operators.running_model import RunningModel
from pipelines.operators.shards import OwnShards, Shards
from pipelines.operators.turn import UNDER_WAY, takes_turns
from pipelines.operators.undecided import Undecided, joined, of_pending, of_rows

_NONE = np.empty(0, dtype=np.uint64)


def case_keys(rows: EventRows) -> NDArray[np.uint64]:
    """The keys of the cases, as the rows bring them or made of their ids."""
    return rows.keys("case_id") if CASE_KEY in rows.columns else text_keys(rows.case_id)


class ScoreCases(KeyedProcessFunction):
    """Event rows, embeddings and model announcements of one node to Kafka rows.

    The main output is `OUT`: frames of decisions, features and vectors, and one JSON
    alert whenever the alert state of a case changes. The decisions of a frame are made
    in one call, which costs hardly more than one decision does. The first tabular event
    of a case goes through as a row of columns; whatever else happens to a case makes an
    object of it (`CaseState`).

    State per shard: what is known of its cases, and the model announced last.

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
        manifest = self._model.scorer.manifest
        self._cases = CaseState(
            runtime_context,
            self._own,
            shards=self._shards.count,
            ttl_s=self._config["case_ttl_s"],
            # features are wanted again beside media, and only then
            features=len(manifest.features) if self._model.takes_media else 0,
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

    @takes_turns
    def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Any:
        """Rows, embeddings or an announcement, for this node."""
        timers = ctx.timer_service()
        now = Now(timers.current_processing_time(), timers)
        yield from self._restore(now)
        if isinstance(value, dict):
            yield from self._swap(value)
        elif value.modality == "tabular":
            yield from self._tabular(value, now)
        else:
            yield from self._media(value, now)

    @takes_turns
    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """Decide cases of one shard whose tabular event did not come in time."""
        shard = self._shards.of_flink_key(ctx.get_current_key())
        timers = ctx.timer_service()
        now = Now(timers.current_processing_time(), timers)
        yield from self._restore(now)
        waited_ms = self._config["media_wait_ms"]
        held = self._cases.held(shard)
        over = [case for at_ms, case in held if now.clock_ms - at_ms >= waited_ms]
        pending = [one for case in over for one in release(case)]
        if pending:
            keys = text_keys(pa.array([case.case_id for case in over], pa.string()))
            cases = dict(zip(keys.tolist(), over, strict=True))
            yield from self._decide(self._undecided(pending), pending, cases)
            self._cases.keep(_NONE, cases, now)
        self._cases.tick(shard, now)

    def _restore(self, now: Now) -> Iterator[Row]:
        """Go on with the cases and the version that were at work before a restart."""
        if self._restored:
            return
        self._restored = True
        self._cases.restore(now.clock_ms)
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

    def _tabular(self, rows: EventRows, now: Now) -> Iterator[Row]:
        """Decide tabular events: the first ones of their cases all at once."""
        assembler = self._model.assembler
        windows = {e: rows.columns[windows_column(e)] for e in assembler.entities}
        x = assembler.assemble(rows.event_time_ms, rows.columns, windows)
        keys, events = case_keys(rows), text_keys(rows.event_id)
        first, again = self._cases.table.land(keys, events, x, now.clock_ms)
        given = of_rows(rows, x, first)
        fresh = keys[first]
        cases: dict[int, Case] = {}
        pending: list[Pending] = []
        for i in np.flatnonzero(~(first | again)).tolist():
            landing = _landing(rows, i, int(events[i]), TABULAR, x[i].copy())
            pending += self._land(cases, rows, i, int(keys[i]), landing)
        if pending:
            given = joined(given, self._undecided(pending))
        if len(given):
            yield from self._decide(given, pending, cases, fresh)
        self._cases.keep(fresh, cases, now)
        UNDER_WAY.arrive()

    def _media(self, rows: EventRows, now: Now) -> Iterator[Row]:
        """Let embeddings land in their cases; refuse those of another encoder."""
        letters: list[DeadLetter] = []
        cases: dict[int, Case] = {}
        pending: list[Pending] = []
        manifest = self._model.scorer.manifest
        columns: dict[str, Any] = rows.columns
        width = columns["vector"].shape[1]
        fits = width == manifest.width
        made_by = zip(
            columns["modality"].to_pylist(),
            columns["fingerprint"].to_pylist(),
            case_keys(rows).tolist(),
            text_keys(rows.event_id).tolist(),
            strict=True,
        )
        for i, (modality, fingerprint, case, event) in enumerate(made_by):
            known = manifest.fingerprints.get(modality)
            if modality not in MEDIA or known != fingerprint or not fits:
                reason = (
                    f"embedding made by encoder {fingerprint}, the model takes "
                    f"{modality} from {known}"
                )
                if not fits:
                    reason += f"; its width is {width}, the model's {manifest.width}"
                letters.append(rows.dead_letter(i, kind="mismatch", reason=reason))
                continue
            vector = columns["vector"][i]
            landing = _landing(rows, i, event, MODALITIES.index(modality), vector)
            pending += self._land(cases, rows, i, case, landing)
        yield from self._letters(letters)
        if pending:
            yield from self._decide(self._undecided(pending), pending, cases)
        self._cases.keep(_NONE, cases, now)

    def _land(
        self, cases: dict[int, Case], rows: EventRows, i: int, key: int, one: Landing
    ) -> list[Pending]:
        """The decisions that an event causes in its case, one of `cases` from now."""
        if key not in cases:
            cases[key] = self._cases.case(rows.case_id[i].as_py(), key)
        return land(cases[key], one)

    def _undecided(self, pending: list[Pending]) -> Undecided:
        manifest = self._model.scorer.manifest
        width = manifest.width
        return of_pending(pending, features=len(manifest.features), width=width)

    def _decide(
        self,
        given: Undecided,
        pending: list[Pending],
        cases: dict[int, Case],
        fresh: NDArray[np.uint64] = _NONE,
    ) -> Iterator[Row]:
        """Make decisions, of whatever shard, in one call.

        Args:
            given: all of them.
            pending: the last of them, those of cases that are objects.
            cases: these cases by their key.
            fresh: keys of the cases of all others, which are rows of the table.
        """
        scorer = self._model.scorer
        scored = scorer.score(given.x, given.vectors, given.mask)
        told = np.flatnonzero(scored.alert).tolist()
        reasons = {}
        if told:
            why = scorer.reasons(given.x, scored, given.mask, told)
            reasons = dict(zip(told, why, strict=True))
        changed = self._changed(scored.alert, pending, cases, fresh)
        for topic, key, value in self._frames(
            scorer.manifest, given, scored, reasons, changed, now_ms()
        ):
            yield out_row(self._topic(topic), key or self._key, value)

    def _changed(
        self,
        alert: NDArray[np.bool_],
        pending: list[Pending],
        cases: dict[int, Case],
        fresh: NDArray[np.uint64],
    ) -> list[int]:
        """The rows whose alert is not what their case was told last; tells them."""
        changed: list[int] = np.flatnonzero(alert[: len(fresh)]).tolist()
        if changed:
            alerted = fresh[changed]
            self._cases.table.alert(alerted)
            for key in cases.keys() & set(alerted.tolist()) if cases else ():
                cases[key].alerted = True  # it became more in the same frame
        for row, one in enumerate(pending, start=len(fresh)):
            if one.case.alerted != bool(alert[row]):
                one.case.alerted = bool(alert[row])
                changed.append(row)
        return changed

    def _letters(self, letters: list[DeadLetter]) -> Iterator[Row]:
        yield from letters_out(self._topic("dead-letters"), letters)

    def _topic(self, name: str) -> str:
        return str(self._config["prefix"]) + name


def _landing(
    rows: EventRows, i: int, event_key: int, modality: int, content: NDArray[Any]
) -> Landing:
    return Landing(
        event_id=rows.event_id[i].as_py(),
        event_key=event_key,
        modality=modality,
        event_time_ms=int(rows.event_time_ms[i]),
        created_ms=int(rows.created_ms[i]),
        content=content,
        source_offset=int(rows.origins.offset[i]),
        source_row=int(rows.origins.row[i]),
    )
