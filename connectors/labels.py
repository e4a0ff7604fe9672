"""Labels from Kafka values: frames, or one plain JSON object."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectors.cells import is_integer, show
from connectors.codec import CodecError, decode_frame, is_frame
from connectors.records import DeadLetter, Place
from connectors.schemas import LABELS, frame_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What a case turned out to be, and when that was known."""

    case_id: str
    label_time_ms: int
    label: int


def labels_frame(labels: list[Label]) -> bytes:
    """One frame with the given labels."""
    return frame_of(
        LABELS,
        {
            "case_id": [one.case_id for one in labels],
            "label_time": pa.array([one.label_time_ms for one in labels]),
            "label": [one.label for one in labels],
        },
    )


def read_labels(
    value: bytes | None, place: Place
) -> tuple[list[Label], list[DeadLetter]]:
    """Labels of one Kafka value, and a dead letter for everything else."""
    raw = value or b""
    labels: list[Label] = []
    letters: list[DeadLetter] = []
    try:
        rows = _rows(raw)
    except (CodecError, pa.ArrowException, ValueError, RecursionError) as error:
        return [], [_letter(place, -1, f"not a label: {error}", raw)]
    for number, row in enumerate(rows):
        reason = _problem(row)
        if reason:
            letters.append(_letter(place, number, reason, raw))
        else:
            labels.append(
                Label(
                    case_id=row["case_id"],
                    label_time_ms=row["label_time_ms"],
                    label=row["label"],
                )
            )
    return labels, letters


def _rows(raw: bytes) -> list[Any]:
    if not is_frame(raw):
        return [json.loads(raw.decode("utf-8"))]
    batch = decode_frame(raw)
    missing = [name for name in LABELS.names if name not in batch.schema.names]
    if missing:
        msg = f"frame has no column {missing[0]!r}"
        raise CodecError(msg)
    for name, fits in _COLUMN_TYPES.items():
        if not any(is_type(batch.column(name).type) for is_type in fits):
            msg = f"column {name!r} is {batch.column(name).type}"
            raise CodecError(msg)
    times = batch.column("label_time")
    if pa.types.is_timestamp(times.type):
        times = times.cast(pa.timestamp("ms"), safe=False)
    columns = {
        "case_id": batch.column("case_id").to_pylist(),
        "label_time_ms": times.cast(pa.int64()).to_pylist(),
        "label": batch.column("label").to_pylist(),
    }
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


_COLUMN_TYPES = {
    "case_id": (pa.types.is_string, pa.types.is_large_string),
    "label_time": (pa.types.is_timestamp, pa.types.is_integer),
    "label": (pa.types.is_integer,),
}


def _problem(row: Any) -> str:
    if not isinstance(row, dict):
        return f"expected one JSON object, got {show(row)}"
    if not isinstance(row.get("case_id"), str) or not row["case_id"]:
        return f"case_id: expected non-empty text, got {show(row.get('case_id'))}"
    if not is_integer(row.get("label_time_ms")):
        found = show(row.get("label_time_ms"))
        return f"label_time_ms: expected milliseconds, got {found}"
    if not is_integer(row.get("label")) or row["label"] not in (0, 1):
        return f"label: expected 0 or 1, got {show(row.get('label'))}"
    return ""


def _letter(place: Place, row: int, reason: str, value: bytes) -> DeadLetter:
    return DeadLetter(
        place=place,
        row=row,
        kind="unreadable",
        reason=reason,
        event_id="",
        modality="",
        value=value,
    )


def label_columns(
    values: list[bytes],
) -> tuple[pa.Array, npt.NDArray[np.int64], npt.NDArray[np.float64], int]:
    """Labels of many Kafka values as columns, in their order.

    Returns: case ids, label times in milliseconds int64 (B,), labels float64 (B,), and
        how many values hold something that is no label.
    """
    cases, times, labels = [pa.array([], pa.string())], [], []
    bad = 0
    for value in values:
        found = _clean_columns(value)
        if found is None:
            nowhere = Place(topic="labels", partition=0, offset=0)
            read, letters = read_labels(value, nowhere)
            bad += bool(letters)
            found = (
                pa.array([one.case_id for one in read], pa.string()),
                np.array([one.label_time_ms for one in read], dtype=np.int64),
                np.array([one.label for one in read], dtype=np.float64),
            )
        cases.append(found[0])
        times.append(found[1])
        labels.append(found[2])
    return (
        pa.concat_arrays(cases),
        np.concatenate(times) if times else np.empty(0, np.int64),
        np.concatenate(labels) if labels else np.empty(0),
        bad,
    )


def _clean_columns(
    value: bytes,
) -> tuple[pa.Array, npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
    """The columns of a frame whose every row is a label, else None."""
    if not is_frame(value):
        return None
    try:
        batch = decode_frame(value)
    except CodecError:
        return None
    if not batch.schema.equals(LABELS) or any(c.null_count for c in batch.columns):
        return None
    cases, times, label = batch.columns
    labels = label.to_numpy(zero_copy_only=False).astype(np.float64)
    if not ((labels == 0) | (labels == 1)).all() or pc.any(pc.equal(cases, "")).as_py():
        return None
    return cases, times.cast(pa.int64()).to_numpy(zero_copy_only=False), labels
