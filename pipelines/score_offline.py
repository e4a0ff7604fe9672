"""The last decision of every case of an archive, computed without a cluster."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from automl.task import TaskSpec
from connectors.archive import Archive
from connectors.records import DeadLetter
from connectors.schemas import DECISIONS, TIME
from encoders import load_encoders
from pipelines.decide import decision_columns
from pipelines.offline import day_bounds, embed, join
from pipelines.operators.assemble import TABULAR, Case, Landing, Pending
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
    joined = join(TaskSpec.from_json(scorer.manifest.task), archive, encoders)
    vectors = embed(joined, encoders)
    start_ms, stop_ms = day_bounds(since, until)
    times = joined.event_time_ms
    chosen = np.flatnonzero((times >= start_ms) & (times < stop_ms))
    batches: list[pa.RecordBatch] = []
    for at in range(0, len(chosen), BATCH_ROWS):
        rows = chosen[at : at + BATCH_ROWS]
        mask, x = joined.mask[rows], joined.features[rows]
        scored = scorer.score(x, vectors[rows], mask)
        told = np.flatnonzero(scored.alert).tolist()
        reasons = scorer.reasons(x, scored, mask, told)
        pending = [
            Pending(
                Case(joined.case_id[row]),
                int(mask[i].sum()) - 1,
                Landing(joined.event_id[row], TABULAR, int(times[row]), 0, x[i]),
                {},
            )
            for i, row in enumerate(rows.tolist())
        ]
        columns = decision_columns(
            scorer.manifest,
            pending,
            mask,
            scored,
            dict(zip(told, reasons, strict=True)),
            time.time_ns() // 1_000_000,
        )
        arrays = [
            pa.array(columns[f.name], type=pa.int64()).cast(TIME)
            if f.type == TIME
            else pa.array(columns[f.name], type=f.type)
            for f in DECISIONS
        ]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=DECISIONS))
    return pa.Table.from_batches(batches, schema=DECISIONS), joined.dead
