"""Vectors frames into the index: what fits is stored, the rest counted and logged."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.codec import CodecError, decode_frame
from connectors.records import Place
from connectors.schemas import frame_of, vectors_schema
from connectors.vector_index import FingerprintError, VectorError, VectorIndex

logger = logging.getLogger(__name__)

_REQUIRED = ("event_id", "case_id", "modality", "fingerprint", "vector")
_LAGS_KEPT = 10_000


class FrameError(Exception):
    """A value on `vectors` that is not a frame of vectors."""


class IndexWriter:
    """Applies vectors frames to an index and keeps count."""

    def __init__(self, index: VectorIndex, *, now_ms: Callable[[], int]) -> None:
        self._index = index
        self._now_ms = now_ms
        self._lags_ms: deque[int] = deque(maxlen=_LAGS_KEPT)
        self._newest_created_ms: int | None = None
        self._bad_frames = 0
        self._bad_rows = 0
        self._foreign: dict[str, int] = defaultdict(int)

    def apply(self, place: Place, value: bytes) -> None:
        """Store a frame's vectors; what cannot be stored is counted and logged."""
        try:
            columns = read_vectors(decode_frame(value), self._index.width)
        except (FrameError, CodecError) as error:
            self._bad_frames += 1
            logger.warning("index %s: %s; frame left out", place, error)
            return
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, key in enumerate(
            zip(columns["modality"], columns["fingerprint"], strict=True)
        ):
            groups[key].append(row)
        for (modality, fingerprint), rows in groups.items():
            self._store(place, columns, modality, fingerprint, rows)

    def _store(
        self,
        place: Place,
        columns: Mapping[str, Any],
        modality: str,
        fingerprint: str,
        rows: list[int],
    ) -> None:
        try:
            self._index.upsert(
                [columns["event_id"][row] for row in rows],
                [columns["case_id"][row] for row in rows],
                modality,
                columns["vector"][rows],
                fingerprint=fingerprint,
            )
        except FingerprintError as error:
            if fingerprint not in self._foreign:
                logger.warning("index %s: %s; left out", place, error)
            self._foreign[fingerprint] += len(rows)
        except VectorError as error:
            if len(rows) > 1:
                for row in rows:
                    self._store(place, columns, modality, fingerprint, [row])
                return
            self._bad_rows += 1
            logger.warning("index %s row %d: %s; left out", place, rows[0], error)
        else:
            self._note_created([columns["created_ms"][row] for row in rows])

    def _note_created(self, created_ms: Sequence[int | None]) -> None:
        known = [ms for ms in created_ms if ms]
        if known:
            now_ms = self._now_ms()
            self._lags_ms.extend(now_ms - ms for ms in known)
            newest = max(known)
            if self._newest_created_ms is None or newest > self._newest_created_ms:
                self._newest_created_ms = newest

    def stats(self) -> dict[str, Any]:
        """Counts by modality, what was left out, and the lag until searchable."""
        lags = np.array(self._lags_ms.copy(), dtype=np.float64)
        p50, p99 = np.percentile(lags, [50, 99]).tolist() if lags.size else (None, None)
        return {
            "vectors": self._index.counts(),
            "fingerprints": self._index.fingerprints,
            "newest_created_ms": self._newest_created_ms,
            "lag_ms": {"p50": p50, "p99": p99, "of": int(lags.size)},
            "bad_frames": self._bad_frames,
            "bad_rows": self._bad_rows,
            "other_model": dict(self._foreign),
        }


def read_vectors(batch: pa.RecordBatch, width: int) -> dict[str, Any]:
    """The columns of a vectors frame: lists, and `vector` as float32 (N, D).

    `created_ms` is None or 0 where the producer did not say.

    Raises:
        FrameError: a column is missing, of another type, or has nulls.
    """
    held = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name in _REQUIRED:
        if name not in held:
            msg = f"read a vectors frame: column '{name}' is missing"
            raise FrameError(msg)
        wanted = pa.list_(pa.float32(), width) if name == "vector" else pa.string()
        if not _is_like(held[name].type, wanted) or held[name].null_count:
            msg = (
                f"read a vectors frame: column '{name}' is {held[name].type} with "
                f"{held[name].null_count} nulls, not {wanted} without"
            )
            raise FrameError(msg)
    columns: dict[str, Any] = {n: held[n].to_pylist() for n in _REQUIRED[:-1]}
    flat = held["vector"].flatten().to_numpy(zero_copy_only=False)
    columns["vector"] = flat.reshape(-1, width)
    created = held.get("created_ms")
    if created is not None and pa.types.is_integer(created.type):
        columns["created_ms"] = created.to_pylist()
    else:
        columns["created_ms"] = [None] * len(batch)
    return columns


def warm_up(width: int) -> None:
    """Read an empty frame, so that the first real one does not wait for imports.

    The first conversion between Arrow and numpy imports pandas, which takes seconds
    on a busy machine.
    """
    schema = vectors_schema(width)
    empty: dict[str, Any] = {field.name: [] for field in schema} | {
        "vector": np.empty((0, width))
    }
    read_vectors(decode_frame(frame_of(schema, empty)), width)


def _is_like(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Equal, whatever the inner field of a list is called."""
    if not pa.types.is_fixed_size_list(found) or found == wanted:
        return bool(found == wanted)
    return bool(pa.list_(found.value_type, found.list_size) == wanted)
