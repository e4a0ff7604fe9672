"""Cases scored as their events land, with a model that can be swapped while running."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyflink.common import Row
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import (
    ListStateDescriptor,
    MapStateDescriptor,
    ValueStateDescriptor,
)

from automl.features import FeatureAssembler
from automl.registry import ArtefactError
from automl.task import TaskSpec
from connectors.flink import out_row
from connectors.records import MEDIA, MODALITIES, DeadLetter, Place
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

if TYPE_CHECKING:
    from pipelines.scorer import Scorer

#: How often a shard with work looks for media that waited too long.
TICK_MS = 1000
#: How often a shard looks for cases to forget.
SWEEP_MS = 60_000
#: Decisions made in one call at most, but for those of one frame.
MOST_DUE = 512


def next_tick(clock_ms: int, every_ms: int = TICK_MS) -> int:
    """The next whole tick: one timer per shard, however often a job restarts."""
    return (clock_ms // every_ms + 1) * every_ms


class ScoreCases(KeyedProcessFunction):
    """Event rows, embeddings and model announcements of one shard to Kafka rows.

    The main output is `OUT`: frames of decisions, features and vectors, and one JSON
    alert whenever the alert state of a case changes. Decisions of all shards are made
    together, `decide_wait_ms` after the first of them fell due: one call costs hardly
    more than one decision does.

    State per shard: its open cases (expiring `case_ttl_s` after their last event),
    decisions that are due, and the model announced last. A decision leaves the state of
    its shard when the shard is touched next, a second later at most; a failure between
    makes it again, under the same id.

    Args:
        config: the job's settings, as a plain dict of `JobConfig`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the model and open the shard's state."""
        import torch

        from pipelines.decide import decision_frames
        from pipelines.scorer import Scorer

        torch.set_num_threads(1)
        self._load, self._frames = Scorer.load, decision_frames
        self._use(Scorer.load(Path(self._config["model_folder"])))
        self._cases = runtime_context.get_map_state(
            MapStateDescriptor("cases", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._undecided = runtime_context.get_list_state(
            ListStateDescriptor("undecided", Types.PICKLED_BYTE_ARRAY())
        )
        self._announced = runtime_context.get_state(
            ValueStateDescriptor("model", Types.PICKLED_BYTE_ARRAY())
        )
        # one partition per subtask, so that the revisions of a case stay in order
        self._key = uuid.uuid4().hex
        self._tried: dict[str, str] = {}
        self._waiting: dict[int, set[str]] = {}
        # when each case was touched, oldest first
        self._touched_ms: dict[int, dict[str, int]] = {}
        self._due: list[tuple[int, Pending]] = []
        self._due_at_ms = 0
        self._decided: dict[int, dict[str, bool]] = {}

    def _use(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._spec = TaskSpec.from_json(scorer.manifest.task)
        self._assembler = FeatureAssembler(self._spec)

    def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Any:
        """Rows, embeddings or an announcement, for one shard."""
        shard, body = ctx.get_current_key(), value
        timers = ctx.timer_service()
        clock_ms = timers.current_processing_time()
        yield from self._touch(shard, timers, clock_ms)
        if isinstance(body, dict):
            yield from self._decide()  # what is due was due before the new model
            yield from self._swap(body)
            return
        landings, letters = (
            self._tabular(body) if body.modality == "tabular" else self._media(body)
        )
        yield from letters_out(self._topic("dead-letters"), letters)
        pending: list[Pending] = []
        touched: dict[str, Case] = {}
        for case_id, landing in zip(body.case_id, landings, strict=True):
            if landing is None:
                continue
            case = touched.get(case_id) or self._cases.get(case_id) or Case(case_id)
            touched[case_id] = case
            pending += land(case, landing, clock_ms)
            waiting = self._waiting[shard]
            (waiting.add if case.held else waiting.discard)(case_id)
        ages = self._touched_ms[shard]
        for case_id, case in touched.items():
            self._cases.put(case_id, case)
            ages.pop(case_id, None)
            ages[case_id] = clock_ms
        if pending:
            self._undecided.add(pending)
        if self._waiting[shard]:
            timers.register_processing_time_timer(next_tick(clock_ms))
        self._fall_due(shard, pending, timers, clock_ms)
        if len(self._due) >= MOST_DUE:
            yield from self._decide()

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """Make the decisions that are due; once a tick, look after the shard."""
        shard = ctx.get_current_key()
        timers = ctx.timer_service()
        clock_ms = timers.current_processing_time()
        yield from self._touch(shard, timers, clock_ms)
        if timestamp % TICK_MS == 0:
            self._release_waiting(shard, timers, clock_ms)
            if self._waiting[shard]:
                timers.register_processing_time_timer(next_tick(clock_ms))
        if timestamp % SWEEP_MS == 0:
            self._forget(shard, clock_ms - 1000 * self._config["case_ttl_s"])
            timers.register_processing_time_timer(next_tick(clock_ms, SWEEP_MS))
        if clock_ms >= self._due_at_ms:
            yield from self._decide()

    def _touch(self, shard: int, timers: Any, clock_ms: int) -> Iterator[Row]:
        """Bring the shard's state and memory in step."""
        if shard not in self._touched_ms:
            cases = [*self._cases.values()]
            self._waiting[shard] = {case.case_id for case in cases if case.held}
            cases.sort(key=lambda case: case.touched_ms)
            ages = {case.case_id: case.touched_ms for case in cases}
            self._touched_ms[shard] = ages
            announced = self._announced.value()
            if announced is not None:
                yield from self._swap(announced)
            timers.register_processing_time_timer(next_tick(clock_ms, SWEEP_MS))
            restored = [one for part in self._undecided.get() or () for one in part]
            self._fall_due(shard, restored, timers, clock_ms)
        decided = self._decided.pop(shard, None)
        if decided is not None:
            self._undecided.clear()
            for case_id, alerted in decided.items():
                case = self._cases.get(case_id)
                if case is not None and case.alerted != alerted:
                    case.alerted = alerted
                    self._cases.put(case_id, case)

    def _fall_due(
        self, shard: int, pending: list[Pending], timers: Any, clock_ms: int
    ) -> None:
        if not pending:
            return
        latest_ms = clock_ms + self._config["decide_wait_ms"]
        if not self._due:
            self._due_at_ms = latest_ms
            timers.register_processing_time_timer(latest_ms)
        # a tick after they are made, the shard drops them from its state
        timers.register_processing_time_timer(next_tick(latest_ms))
        self._due += [(shard, one) for one in pending]

    def _release_waiting(self, shard: int, timers: Any, clock_ms: int) -> None:
        """Decide cases whose tabular event did not come in time."""
        pending: list[Pending] = []
        for case_id in list(self._waiting[shard]):
            case = self._cases.get(case_id)
            if clock_ms - case.touched_ms >= self._config["media_wait_ms"]:
                pending += release(case)
                self._waiting[shard].discard(case_id)
                self._cases.put(case_id, case)
        if pending:
            self._undecided.add(pending)
        self._fall_due(shard, pending, timers, clock_ms)

    def _forget(self, shard: int, before_ms: int) -> None:
        ages = self._touched_ms[shard]
        old = list(itertools.takewhile(lambda case_id: ages[case_id] < before_ms, ages))
        for case_id in old:
            del ages[case_id]
            self._cases.remove(case_id)

    def _swap(self, announced: dict[str, Any]) -> Iterator[Any]:
        """Use the announced version from the next row on, or say why not."""
        if announced["name"] != self._scorer.manifest.name:
            return
        folder = str(announced["folder"])
        if folder not in self._tried:
            self._tried = {folder: announced["name"]}
            if announced["version"] != self._scorer.manifest.version:
                yield from self._take(Path(folder), announced)
        # a restart comes back to the last version that was taken, not to a refused one
        if announced["version"] == self._scorer.manifest.version:
            self._announced.update(announced)

    def _take(self, folder: Path, announced: dict[str, Any]) -> Iterator[Any]:
        manifest = self._scorer.manifest
        try:
            scorer = self._load(folder)
            if scorer.manifest.task["features"] != manifest.task["features"]:
                msg = f"{folder}: made for other features; restart the job for it"
                raise ArtefactError(msg)
            if scorer.manifest.fingerprints != manifest.fingerprints:
                msg = f"{folder}: made for other encoders; restart both jobs for it"
                raise ArtefactError(msg)
        except Exception as error:
            letter = DeadLetter(
                place=Place(**announced["place"]),
                row=-1,
                kind="mismatch",
                reason=f"model refused, v{manifest.version} stays: {error}",
                event_id="",
                modality="",
                value=json.dumps(announced).encode(),
            )
            yield from letters_out(self._topic("dead-letters"), [letter])
            return
        self._use(scorer)

    def _tabular(
        self, rows: EventRows
    ) -> tuple[list[Landing | None], list[DeadLetter]]:
        windows = {e: rows.columns[windows_column(e)] for e in self._assembler.entities}
        x = self._assembler.assemble(rows.event_time_ms, rows.columns, windows)
        return [
            Landing(event_id, TABULAR, int(time_ms), int(created), features)
            for event_id, time_ms, created, features in zip(
                rows.event_id, rows.event_time_ms, rows.created_ms, x, strict=True
            )
        ], []

    def _media(self, rows: EventRows) -> tuple[list[Landing | None], list[DeadLetter]]:
        """Landings of embeddings; those of another encoder are refused."""
        landings: list[Landing | None] = []
        letters: list[DeadLetter] = []
        known = self._scorer.manifest.fingerprints
        fits = rows.columns["vector"].shape[1] == self._scorer.manifest.width
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

    def _decide(self) -> Iterator[Row]:
        """Make every decision that is due, of whatever shard."""
        due, self._due = self._due, []
        if not due:
            return
        pending = [one for _, one in due]
        manifest = self._scorer.manifest
        x, vectors, mask = inputs(
            pending, features=len(manifest.features), width=manifest.width
        )
        scored = self._scorer.score(x, vectors, mask)
        told = np.flatnonzero(scored.alert).tolist()
        reasons = dict(
            zip(told, self._scorer.reasons(x, scored, mask, told), strict=True)
        )
        alerted = self._alerted_before(due)
        for topic, key, value in self._frames(
            manifest, pending, x, mask, scored, reasons, alerted, now_ms()
        ):
            yield out_row(self._topic(topic), key or self._key, value)
        for shard, one in due:
            case_id = one.case.case_id
            self._decided.setdefault(shard, {})[case_id] = alerted[case_id]

    def _alerted_before(self, due: list[tuple[int, Pending]]) -> dict[str, bool]:
        """Whether each case was alerted last; later news is not in the state yet."""
        alerted: dict[str, bool] = {}
        for shard, one in due:
            case_id = one.case.case_id
            news = self._decided.get(shard, {}).get(case_id, one.case.alerted)
            alerted.setdefault(case_id, news)
        return alerted

    def _topic(self, name: str) -> str:
        return str(self._config["prefix"]) + name
