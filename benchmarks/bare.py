"""Loop (a): the project's own features and trees in memory, without Kafka and Flink."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from automl.candidates import TreeCandidate
from automl.features import FeatureAssembler, event_columns
from automl.keys import text_keys
from automl.registry import verify
from automl.stream_clock import StreamClock
from automl.task import TaskSpec
from automl.windows import EntityWindows
from benchmarks.payments import LABEL_LAG, PaymentFrames, draw_payments
from pipelines.scorer import TREE_FILE

LABEL_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class BareConfig:
    """How the loop runs.

    Attributes:
        model_folder: of the trees and their task.
        frame_rows: events computed together; divides 4096.
        history: events whose windows are filled before anything is timed.
        seconds: of timed work.
    """

    model_folder: Path
    frame_rows: int = 512
    history: int = 400_000
    seconds: float = 10.0


class BareFeatures:
    """Features of frames of payments, with labels in their time.

    Args:
        spec: a resolved task.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self._assembler = FeatureAssembler(spec)
        names = self._assembler.entities
        self.engines = {name: EntityWindows(spec, name) for name in names}
        self._clock = StreamClock()

    def add_labels(self, batch: pa.RecordBatch) -> None:
        """Take labels, ahead of the events that may count them."""
        keys = text_keys(batch.column("case_id"))
        times = batch.column("label_time").cast(pa.int64()).to_numpy()
        labels = batch.column("label").to_numpy().astype(np.float64)
        for engine in self.engines.values():
            if engine.uses_labels:
                engine.add_labels(keys, times, labels)

    def rows(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        """float64 (B, F), a row of features for each event."""
        times = batch.column("event_time").cast(pa.int64()).to_numpy()
        columns = event_columns(self.spec, batch)
        cases = text_keys(batch.column("case_id"))
        clock = self._clock.observe(times)
        windows = {
            name: engine.observe(
                columns[engine.entity_column],
                times,
                columns,
                clock_ms=clock,
                case_keys=cases,
            )
            for name, engine in self.engines.items()
        }
        return self._assembler.assemble(times, columns, windows)


def labels_due(frames: PaymentFrames, first: int) -> pa.RecordBatch | None:
    """Labels known soon after payment `first`, when a frame of them is due."""
    behind = first - LABEL_LAG // LABEL_ROWS * LABEL_ROWS
    if first % LABEL_ROWS or behind < 0:
        return None
    return frames.labels(behind, LABEL_ROWS)


def fill(features: BareFeatures, frames: PaymentFrames, first: int, until: int) -> int:
    """Let features see payments from `first` on; gives the number of the next one."""
    for at in range(first, until, LABEL_ROWS):
        labels = labels_due(frames, at)
        if labels is not None:
            features.add_labels(labels)
        features.rows(frames.batch(at, LABEL_ROWS, 0))
        first = at + LABEL_ROWS
    return first


def bare_loop(config: BareConfig) -> dict[str, Any]:
    """Events per second and CPU cost of features and trees, frame by frame."""
    spec = TaskSpec.from_json(verify(config.model_folder).task)
    trees = TreeCandidate.load(config.model_folder / TREE_FILE)
    frames, features = PaymentFrames(draw_payments()), BareFeatures(spec)
    first = fill(features, frames, 0, config.history)
    rows, wall, spent = config.frame_rows, 0.0, {"features": 0.0, "trees": 0.0}
    count, began = 0, time.monotonic()
    while time.monotonic() - began < config.seconds:
        batch = frames.batch(first + count, rows, 0)
        labels = labels_due(frames, first + count)
        made, cpu = time.perf_counter(), time.process_time()
        if labels is not None:
            features.add_labels(labels)
        x = features.rows(batch)
        computed = time.process_time()
        trees.predict_logit(x)
        scored = time.process_time()
        spent["features"] += computed - cpu
        spent["trees"] += scored - computed
        wall += time.perf_counter() - made
        count += rows
    return {
        "events": count,
        "events_per_s": round(count / wall),
        "cpu_us_per_event": round(1e6 * sum(spent.values()) / count, 3),
        **{f"{name}_us": round(1e6 * s / count, 3) for name, s in spent.items()},
        "frame_rows": rows,
    }
