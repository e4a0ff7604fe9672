"""Scored cases as the records that leave: decisions, alerts, features, vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from automl.registry import Manifest
from connectors.codec import encode_frame
from connectors.records import MODALITIES
from connectors.schemas import (
    DECISIONS,
    TIME,
    features_schema,
    frame_of,
    vectors_schema,
)
from pipelines.decision_ids import decision_ids
from pipelines.operators.assemble import TABULAR
from pipelines.operators.undecided import Undecided
from pipelines.scorer import Scored

#: What moved the score of a row, for the rows that are alerts.
Reasons = Mapping[int, list[dict[str, Any]]]

_COLUMNS = DECISIONS.names
#: Rows for which a column of one value is made once.
_BLOCK_ROWS = 4096


def decision_batch(
    manifest: Manifest,
    given: Undecided,
    scored: Scored,
    reasons: Reasons,
    decided_ms: int,
) -> pa.RecordBatch:
    """The decisions, one row each, in the schema `DECISIONS`."""
    rows = len(given)
    columns = {
        "decision_id": decision_ids(str(manifest.task["name"]), given.case_id),
        "case_id": given.case_id,
        "revision": pa.array(given.revision),
        "event_id": given.event_id,
        "score": pa.array(scored.score),
        "alert": pa.array(scored.alert),
        **_first(rows, _model(manifest.threshold, manifest.name, manifest.version)),
        **(
            _first(rows, _alone())
            if given.vectors is None
            else _together(given, scored)
        ),
        "reasons": _told(reasons, rows),
        "event_time": pa.array(given.event_time_ms).view(TIME),
        "created_ms": pa.array(given.created_ms),
        "decided_at": pa.array(np.full(rows, decided_ms)).view(TIME),
    }
    arrays = [columns[name] for name in _COLUMNS]
    return pa.RecordBatch.from_arrays(arrays, schema=DECISIONS)


def decision_frames(
    manifest: Manifest,
    given: Undecided,
    scored: Scored,
    reasons: Reasons,
    changed: list[int],
    decided_ms: int,
) -> Iterator[tuple[str, str, bytes]]:
    """(topic, key or "", value) of everything a batch of decisions causes.

    Args:
        manifest: of the model that decided.
        given: what was decided.
        scored: what the model said.
        reasons: of the rows that are alerts.
        changed: the rows whose alert is not what their case was told last.
        decided_ms: when it was decided.
    """
    batch = decision_batch(manifest, given, scored, reasons, decided_ms)
    yield "decisions", "", encode_frame(batch)
    tabular = np.flatnonzero(given.modality == TABULAR)
    if len(tabular):
        yield "features", "", _features(manifest, batch, given, tabular)
    fused = np.flatnonzero(scored.fused.any(axis=1)).tolist()
    if fused:
        # the fused vector of each case as it now stands
        last = {batch["case_id"][i].as_py(): i for i in fused}
        yield "vectors", "", _vectors(manifest, batch, scored, [*last.values()])
    if changed:
        for key, value in _alerts(batch, changed):
            yield "alerts", key, value


#: What an alert takes over from its decision as it is.
_TOLD = (
    *("decision_id", "case_id", "revision", "threshold", "model_name", "alert"),
    *("score", "model_version", "modalities"),
)


def _block(value: Any, kind: pa.DataType) -> pa.Array:
    """The same value in `_BLOCK_ROWS` rows."""
    return pa.array([value] * _BLOCK_ROWS, kind)


@lru_cache(maxsize=8)
def _model(threshold: float, name: str, version: int) -> dict[str, pa.Array]:
    """What is said of the model, in blocks."""
    return {
        "threshold": _block(threshold, pa.float64()),
        "model_name": _block(name, pa.string()),
        "model_version": _block(version, pa.int32()),
    }


@cache
def _alone() -> dict[str, pa.Array]:
    """What is said of modalities where tabular events are all there is, in blocks."""
    name = MODALITIES[TABULAR]
    return {
        "modality": _block(name, pa.string()),
        "modalities": _block((name,), pa.list_(pa.string())),
        **{f"gate_{m}": _block(float(m == name), pa.float32()) for m in MODALITIES},
        "evidence": _block([], pa.list_(pa.float32())),
    }


@cache
def _no_reasons() -> dict[str, pa.Array]:
    return {"reasons": _block("[]", pa.string())}


def _first(rows: int, blocks: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """So many rows of columns that are the same in every row."""
    if rows <= _BLOCK_ROWS:
        return {name: block.slice(0, rows) for name, block in blocks.items()}
    times = -(-rows // _BLOCK_ROWS)
    return {
        name: pa.concat_arrays([block] * times).slice(0, rows)
        for name, block in blocks.items()
    }


def _told(reasons: Reasons, rows: int) -> pa.StringArray:
    if not reasons:
        return _first(rows, _no_reasons())["reasons"]
    told = ["[]"] * rows
    for row, why in reasons.items():
        told[row] = orjson.dumps(why).decode()
    return pa.array(told, pa.string())


def _together(given: Undecided, scored: Scored) -> dict[str, pa.Array]:
    """What is said of modalities where cases have several."""
    names = pa.array(MODALITIES, pa.string())
    _, there = np.nonzero(given.mask)
    offsets = np.zeros(len(given) + 1, dtype=np.int32)
    np.cumsum(given.mask.sum(axis=1), out=offsets[1:])
    gates = np.ascontiguousarray(scored.gates.T).round(4)
    return {
        "modality": names.take(pa.array(given.modality)),
        "modalities": pa.ListArray.from_arrays(
            pa.array(offsets), names.take(pa.array(there))
        ),
        **{f"gate_{m}": pa.array(gates[i]) for i, m in enumerate(MODALITIES)},
        "evidence": _evidence(given, scored),
    }


def _evidence(given: Undecided, scored: Scored) -> pa.ListArray:
    """What each token said, of the cases that have media."""
    media = given.mask.sum(axis=1) > given.mask[:, TABULAR]
    offsets = np.zeros(len(given) + 1, dtype=np.int32)
    np.cumsum(media * scored.said.shape[1], out=offsets[1:])
    said = np.ascontiguousarray(scored.said[media]).round(4)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(said.reshape(-1)))


def _features(
    manifest: Manifest,
    batch: pa.RecordBatch,
    given: Undecided,
    tabular: NDArray[np.intp],
) -> bytes:
    schema = features_schema(manifest.features)
    if given.labels_read:
        told = {**schema.metadata, b"labels_read": given.labels_read.encode()}
        schema = schema.with_metadata(told)
    x, offsets, rows = given.x, given.source_offset, given.source_row
    if len(tabular) < len(given):
        batch = batch.take(pa.array(tabular))
        x, offsets, rows = x[tabular], offsets[tabular], rows[tabular]
    flat = pa.array(np.ascontiguousarray(x).reshape(-1))
    columns = {
        "source_offset": pa.array(offsets),
        "source_row": pa.array(rows),
        "values": pa.FixedSizeListArray.from_arrays(flat, x.shape[1]),
    }
    arrays = [
        columns[name] if name in columns else batch.column(name)
        for name in schema.names
    ]
    return encode_frame(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _vectors(
    manifest: Manifest, batch: pa.RecordBatch, scored: Scored, rows: list[int]
) -> bytes:
    told = batch.take(pa.array(rows))
    cases = told["case_id"].to_pylist()
    columns = {
        "event_id": [f"{case_id}/fused" for case_id in cases],
        "case_id": cases,
        "modality": ["fused"] * len(rows),
        "event_time": told["event_time"].cast(pa.int64()).to_numpy(),
        "created_ms": told["created_ms"].to_numpy(),
        "fingerprint": [manifest.fingerprints["fused"]] * len(rows),
        "vector": scored.fused[rows],
    }
    return frame_of(vectors_schema(manifest.width), columns)


def _alerts(batch: pa.RecordBatch, rows: list[int]) -> Iterator[tuple[str, bytes]]:
    """Keys and values of the alerts that decisions make."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for row in rows:
        alert = {name: columns[name][row].as_py() for name in _TOLD}
        alert["gates"] = {m: columns[f"gate_{m}"][row].as_py() for m in MODALITIES}
        alert["reasons"] = orjson.Fragment(columns["reasons"][row].as_py())
        for name in ("event_time", "decided_at"):
            alert[name] = columns[name][row].as_py().isoformat()
        yield alert["case_id"], orjson.dumps(alert)
