"""Labels from Kafka values: frames, or one plain JSON object."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

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
