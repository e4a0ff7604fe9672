"""Arrow schemas of the frames sluice writes, and the rows-to-frame step for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from connectors.codec import encode_frame
from connectors.records import MODALITIES, DeadLetter

TIME = pa.timestamp("ms", tz="UTC")

DEAD_LETTERS = pa.schema(
    [
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("row", pa.int32()),
        pa.field("kind", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("event_id", pa.string()),
        pa.field("modality", pa.string()),
        pa.field("value", pa.binary()),
    ]
)

DECISIONS = pa.schema(
    [
        pa.field("decision_id", pa.string()),
        pa.field("case_id", pa.string()),
        pa.field("revision", pa.int32()),
        pa.field("event_id", pa.string()),
        pa.field("modality", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("alert", pa.bool_()),
        pa.field("threshold", pa.float64()),
        pa.field("model_name", pa.string()),
        pa.field("model_version", pa.int32()),
        pa.field("modalities", pa.list_(pa.string())),
        *(pa.field(f"gate_{modality}", pa.float32()) for modality in MODALITIES),
        # log-odds said by each modality, then by each pair; empty without media
        pa.field("evidence", pa.list_(pa.float32())),
        pa.field("reasons", pa.string()),
        pa.field("event_time", TIME),
        pa.field("created_ms", pa.int64()),
        pa.field("decided_at", TIME),
    ]
)

LABELS = pa.schema(
    [
        pa.field("case_id", pa.string()),
        pa.field("label_time", TIME),
        pa.field("label", pa.int8()),
    ]
)


@cache
def vectors_schema(width: int) -> pa.Schema:
    """Schema of `embeddings` and `vectors` frames, one vector a row."""
    return pa.schema(
        [
            pa.field("event_id", pa.string()),
            pa.field("case_id", pa.string()),
            pa.field("modality", pa.string()),
            pa.field("event_time", TIME),
            pa.field("created_ms", pa.int64()),
            pa.field("fingerprint", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), width)),
        ]
    )


@cache
def features_schema(names: tuple[str, ...]) -> pa.Schema:
    """Schema of `features` frames: who and when, and one list of values a row.

    The names of the values, in their order, are in the schema's metadata. The offset
    and the row say where the event was read, and so in which order events came.
    """
    return pa.schema(
        [
            pa.field("event_id", pa.string()),
            pa.field("case_id", pa.string()),
            pa.field("event_time", TIME),
            pa.field("created_ms", pa.int64()),
            pa.field("source_offset", pa.int64()),
            pa.field("source_row", pa.int32()),
            pa.field("model_name", pa.string()),
            pa.field("model_version", pa.int32()),
            pa.field("values", pa.list_(pa.float64(), len(names))),
        ],
        metadata={"features": json.dumps(names)},
    )


def feature_names(schema: pa.Schema) -> list[str]:
    """The names of the values of a `features` frame."""
    names: list[str] = json.loads(schema.metadata[b"features"])
    return names


def rows_of_list(column: pa.Array) -> npt.NDArray[Any]:
    """A fixed-size-list column as an array (B, N), which shares its memory."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size)


def frame_of(schema: pa.Schema, columns: dict[str, Any]) -> bytes:
    """A frame with the given columns, in the schema's order and types."""
    return encode_frame(batch_of(schema, columns))


def batch_of(schema: pa.Schema, columns: dict[str, Any]) -> pa.RecordBatch:
    """The rows that `frame_of` puts into a frame."""
    arrays = [_array(columns[f.name], f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        flat = pa.array(values.reshape(-1), type=kind.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
    if isinstance(values, pa.Array) and values.type == kind:
        return values
    if kind == TIME and not isinstance(values, list):
        return pa.array(values, type=pa.int64()).cast(kind)
    return pa.array(values, type=kind)


def dead_letters_frame(letters: Sequence[DeadLetter]) -> bytes:
    """One frame with the given dead letters, original bytes included."""
    return frame_of(
        DEAD_LETTERS,
        {
            "topic": [x.place.topic for x in letters],
            "partition": [x.place.partition for x in letters],
            "offset": [x.place.offset for x in letters],
            "row": [x.row for x in letters],
            "kind": [x.kind for x in letters],
            "reason": [x.reason for x in letters],
            "event_id": [x.event_id for x in letters],
            "modality": [x.modality for x in letters],
            "value": [x.value for x in letters],
        },
    )
