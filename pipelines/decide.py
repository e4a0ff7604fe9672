"""Scored cases as the records that leave: decisions, alerts, features, vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.registry import Manifest
from connectors.records import MODALITIES
from connectors.schemas import DECISIONS, features_schema, frame_of, vectors_schema
from pipelines.operators.assemble import TABULAR, Pending, decision_id
from pipelines.scorer import Scored


def decision_columns(
    manifest: Manifest,
    pending: list[Pending],
    mask: NDArray[np.bool_],
    scored: Scored,
    reasons: Mapping[int, list[dict[str, Any]]],
    decided_ms: int,
) -> dict[str, Any]:
    """Columns of `DECISIONS`, one row per pending decision."""
    task = str(manifest.task["name"])
    rows = len(pending)
    return {
        "decision_id": [decision_id(task, one.case.case_id) for one in pending],
        "case_id": [one.case.case_id for one in pending],
        "revision": [one.revision for one in pending],
        "event_id": [one.landing.event_id for one in pending],
        "modality": [MODALITIES[one.landing.modality] for one in pending],
        "score": scored.score,
        "alert": scored.alert,
        "threshold": [manifest.threshold] * rows,
        "model_name": [manifest.name] * rows,
        "model_version": [manifest.version] * rows,
        "modalities": [
            [m for m, there in zip(MODALITIES, row, strict=True) if there]
            for row in mask.tolist()
        ],
        **{f"gate_{m}": scored.gates[:, i].round(4) for i, m in enumerate(MODALITIES)},
        "reasons": [json.dumps(reasons.get(i, [])) for i in range(rows)],
        "event_time": np.array([one.landing.event_time_ms for one in pending]),
        "created_ms": [one.landing.created_ms for one in pending],
        "decided_at": np.full(rows, decided_ms),
    }


def decision_frames(
    manifest: Manifest,
    pending: list[Pending],
    x: NDArray[np.float64],
    mask: NDArray[np.bool_],
    scored: Scored,
    reasons: Mapping[int, list[dict[str, Any]]],
    decided_ms: int,
) -> Iterator[tuple[str, str, bytes]]:
    """(topic, key or "", value) of everything a batch of decisions causes.

    An alert is caused when it is not what the case was told last, which it remembers.
    """
    columns = decision_columns(manifest, pending, mask, scored, reasons, decided_ms)
    yield "decisions", "", frame_of(DECISIONS, columns)
    tabular = [i for i, one in enumerate(pending) if one.landing.modality == TABULAR]
    if tabular:
        yield "features", "", _features(manifest, pending, x, tabular)
    # the fused vector of each case as it now stands
    fused = {
        one.case.case_id: i for i, one in enumerate(pending) if scored.fused[i].any()
    }
    if fused:
        yield "vectors", "", _vectors(manifest, pending, scored, [*fused.values()])
    for i, one in enumerate(pending):
        alert = bool(scored.alert[i])
        if alert != one.case.alerted:
            one.case.alerted = alert
            yield "alerts", one.case.case_id, _alert(columns, i, reasons.get(i, []))


def _features(
    manifest: Manifest, pending: list[Pending], x: NDArray[np.float64], rows: list[int]
) -> bytes:
    landings = [pending[i].landing for i in rows]
    return frame_of(
        features_schema(manifest.features),
        {
            "event_id": [landing.event_id for landing in landings],
            "case_id": [pending[i].case.case_id for i in rows],
            "event_time": np.array([landing.event_time_ms for landing in landings]),
            "created_ms": [landing.created_ms for landing in landings],
            "model_name": [manifest.name] * len(rows),
            "model_version": [manifest.version] * len(rows),
            "values": x[rows],
        },
    )


def _vectors(
    manifest: Manifest, pending: list[Pending], scored: Scored, rows: list[int]
) -> bytes:
    return frame_of(
        vectors_schema(manifest.width),
        {
            "event_id": [f"{pending[i].case.case_id}/fused" for i in rows],
            "case_id": [pending[i].case.case_id for i in rows],
            "modality": ["fused"] * len(rows),
            "event_time": np.array([pending[i].landing.event_time_ms for i in rows]),
            "created_ms": [pending[i].landing.created_ms for i in rows],
            "fingerprint": [manifest.fingerprints["fused"]] * len(rows),
            "vector": scored.fused[rows],
        },
    )


def _alert(
    columns: Mapping[str, Any], row: int, reasons: list[dict[str, Any]]
) -> bytes:
    def iso(ms: int) -> str:
        return datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat()

    alert = {
        name: columns[name][row]
        for name in ("decision_id", "case_id", "revision", "threshold", "model_name")
    }
    alert |= {
        "alert": bool(columns["alert"][row]),
        "score": float(columns["score"][row]),
        "model_version": columns["model_version"][row],
        "modalities": columns["modalities"][row],
        "gates": {m: float(columns[f"gate_{m}"][row]) for m in MODALITIES},
        "reasons": reasons,
        "event_time": iso(int(columns["event_time"][row])),
        "decided_at": iso(int(columns["decided_at"][row])),
    }
    return json.dumps(alert).encode()
