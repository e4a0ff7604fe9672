"""The last decision of every case of an archive, computed without a cluster."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from automl.task import TaskSpec
from connectors.archive import Archive
from connectors.records import DeadLetter
from connectors.schemas import DECISIONS
from encoders import load_encoders
from pipelines.decide import decision_batch
from pipelines.offline import Joined, embed, join
from pipelines.operators.assemble import TABULAR
from pipelines.operators.undecided import Undecided
from pipelines.scorer import ENCODERS_FOLDER, Scorer

BATCH_ROWS = 512


def score_archive(
    archive: Archive, model_folder: Path, since: str | None, until: str | None
) -> tuple[pa.Table, list[DeadLetter]]:
    """Decisions (schema `DECISIONS`) of the cases in a span of days, and dead letters.

    Equal to the stream's decisions of highest revision to 1e-5, when each case has at
    most one event of a modality. Windows reach back before `since`.
    """
    scorer = Scorer.load(model_folder)
    encoders = load_encoders(model_folder / ENCODERS_FOLDER)
    spec = TaskSpec.from_json(scorer.manifest.task)
    joined = join(spec, archive, encoders).between(since, until)
    vectors = embed(joined, encoders)
    batches: list[pa.RecordBatch] = []
    for at in range(0, len(joined.case_id), BATCH_ROWS):
        rows = np.arange(at, min(at + BATCH_ROWS, len(joined.case_id)))
        given = _undecided(joined, vectors, rows)
        scored = scorer.score(given.x, given.vectors, given.mask)
        told = np.flatnonzero(scored.alert).tolist()
        reasons = scorer.reasons(given.x, scored, given.mask, told)
        why = dict(zip(told, reasons, strict=True))
        now_ms = time.time_ns() // 1_000_000
        batches.append(decision_batch(scorer.manifest, given, scored, why, now_ms))
    return pa.Table.from_batches(batches, schema=DECISIONS), joined.dead


def _undecided(
    joined: Joined, vectors: NDArray[np.float32], rows: NDArray[np.intp]
) -> Undecided:
    """The last decisions of some cases, each told by its tabular event."""
    mask = joined.mask[rows]
    return Undecided(
        case_id=pa.array([joined.case_id[row] for row in rows], pa.string()),
        event_id=pa.array([joined.event_id[row] for row in rows], pa.string()),
        revision=(mask.sum(axis=1) - 1).astype(np.int32),
        modality=np.full(len(rows), TABULAR, dtype=np.int8),
        event_time_ms=joined.event_time_ms[rows],
        created_ms=np.zeros(len(rows), dtype=np.int64),
        source_offset=np.full(len(rows), -1, dtype=np.int64),
        source_row=np.full(len(rows), -1, dtype=np.int32),
        x=joined.features[rows],
        mask=mask,
        vectors=vectors[rows],
    )
