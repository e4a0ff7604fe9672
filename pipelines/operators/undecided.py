"""Decisions to be made, in columns: what the scorer and the output frames rest on.

Legend: `B` decisions, `F` features, `M` modalities, `D` shared width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from connectors.records import MODALITIES
from connectors.rows import LABELS_READ, EventRows
from pipelines.operators.assemble import TABULAR, Pending


@dataclass(frozen=True, kw_only=True, slots=True)
class Undecided:
    """Cases as they stood when one event of each had landed.

    Attributes:
        case_id: strings (B,).
        event_id: strings (B,), the event that landed.
        revision: int32 (B,).
        modality: int8 (B,), that of the event, index in `MODALITIES`.
        event_time_ms: int64 (B,).
        created_ms: int64 (B,), the producer's clock, 0 when unknown.
        source_offset: int64 (B,), of the Kafka value the event was read from.
        source_row: int32 (B,), its row there; -1 when it was the whole value.
        x: float64 (B, F), NaN where no tabular event is there.
        mask: bool (B, M), which modalities are there.
        vectors: float32 (B, M, D); None when no case has media.
        labels_read: JSON, partition to how far the labels had been read when the
            features were made; "" when they look at none.
    """

    case_id: pa.StringArray
    event_id: pa.StringArray
    revision: NDArray[np.int32]
    modality: NDArray[np.int8]
    event_time_ms: NDArray[np.int64]
    created_ms: NDArray[np.int64]
    source_offset: NDArray[np.int64]
    source_row: NDArray[np.int32]
    x: NDArray[np.float64]
    mask: NDArray[np.bool_]
    vectors: NDArray[np.float32] | None = None
    labels_read: str = ""

    def __len__(self) -> int:
        return len(self.mask)


def of_rows(
    rows: EventRows, x: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> Undecided:
    """The chosen tabular rows, each the first event of its case.

    Args:
        rows: tabular rows (B).
        x: float64 (B, F), their features.
        chosen: bool (B,).
    """
    if not chosen.all():
        members = np.flatnonzero(chosen)
        rows, x = rows.take(members), x[members]
    mask = np.zeros((len(x), len(MODALITIES)), dtype=np.bool_)
    mask[:, TABULAR] = True
    return Undecided(
        case_id=rows.case_id,
        event_id=rows.event_id,
        revision=np.zeros(len(x), dtype=np.int32),
        modality=np.full(len(x), TABULAR, dtype=np.int8),
        event_time_ms=rows.event_time_ms,
        created_ms=rows.created_ms,
        source_offset=rows.origins.offset,
        source_row=rows.origins.row,
        x=x,
        mask=mask,
        labels_read=_labels_read(rows),
    )


def _labels_read(rows: EventRows) -> str:
    """How far the labels were read for these rows; of several nodes the least."""
    read = rows.columns.get(LABELS_READ)
    if read is None or not len(rows):
        return ""
    least = np.asarray(read).min(axis=0).tolist()
    return json.dumps({str(partition): end for partition, end in enumerate(least)})


def of_pending(pending: list[Pending], *, features: int, width: int) -> Undecided:
    """The decisions that events caused one by one."""
    rows = len(pending)
    x = np.full((rows, features), np.nan)
    mask = np.zeros((rows, len(MODALITIES)), dtype=np.bool_)
    media = any(one.contents.keys() - {TABULAR} for one in pending)
    shape = (rows, len(MODALITIES), width)
    vectors = np.zeros(shape, dtype=np.float32) if media else None
    for i, one in enumerate(pending):
        for modality, content in one.contents.items():
            mask[i, modality] = True
            if modality == TABULAR:
                x[i] = content
            elif vectors is not None:
                vectors[i, modality] = content
    landed = [one.landing for one in pending]
    return Undecided(
        case_id=pa.array([one.case.case_id for one in pending], pa.string()),
        event_id=pa.array([one.event_id for one in landed], pa.string()),
        revision=np.array([one.revision for one in pending], dtype=np.int32),
        modality=np.array([one.modality for one in landed], dtype=np.int8),
        event_time_ms=np.array([one.event_time_ms for one in landed], dtype=np.int64),
        created_ms=np.array([one.created_ms for one in landed], dtype=np.int64),
        source_offset=np.array([one.source_offset for one in landed], dtype=np.int64),
        source_row=np.array([one.source_row for one in landed], dtype=np.int32),
        x=x,
        mask=mask,
        vectors=vectors,
    )


def joined(first: Undecided, then: Undecided) -> Undecided:
    """The decisions of both, one after the other."""
    if not len(then):
        return first
    if not len(first):
        return then
    columns: dict[str, Any] = {}
    for name in (field.name for field in fields(Undecided)):
        pair = [getattr(first, name), getattr(then, name)]
        if name == "vectors":
            columns[name] = _joined_vectors(first, then)
        elif isinstance(pair[0], str):
            columns[name] = pair[0]
        elif isinstance(pair[0], pa.Array):
            columns[name] = pa.concat_arrays(pair)
        else:
            columns[name] = np.concatenate(pair)
    return Undecided(**columns)


def _joined_vectors(first: Undecided, then: Undecided) -> NDArray[np.float32] | None:
    given = [one.vectors for one in (first, then) if one.vectors is not None]
    if not given:
        return None
    vectors = np.zeros((len(first) + len(then), *given[0].shape[1:]), dtype=np.float32)
    if first.vectors is not None:
        vectors[: len(first)] = first.vectors
    if then.vectors is not None:
        vectors[len(first) :] = then.vectors
    return vectors
