"""Media payloads to embeddings, in micro-batches bounded by size and time."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ListStateDescriptor

from connectors.feature_rows import VALUES
from connectors.flink import out_row
from connectors.records import CONTENT_COLUMN, MEDIA, DeadLetter
from connectors.rows import EventRows, concat_rows
from connectors.schemas import frame_of, vectors_schema
from connectors.topics import TOPICS
from encoders.base import Encoder, LimitError, PayloadError
from pipelines.operators.read import letters_out
from pipelines.operators.shards import by_shard

#: Frames a batch is split into at most: what is of one case must keep its order.
LANES = TOPICS["embeddings"].partitions


class EncodeMedia(KeyedProcessFunction):
    """Rows of media events to `embeddings` and `vectors` frames, features to `vectors`.

    A batch is encoded when `batch_rows` payloads wait or the first of them has waited
    `batch_wait_ms`. Waiting payloads are in Flink state, so a restart encodes them
    again. Equal payloads are encoded once while they are among the last
    `cached_vectors`.

    Args:
        config: the job's settings, as a plain dict of `JobConfig`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the encoders and open the list of waiting rows."""
        import torch

        from encoders.store import load_encoders

        torch.set_num_threads(1)
        folder = Path(self._config["model_folder"]) / "encoders"
        self._encoders: dict[str, Encoder] = load_encoders(folder)
        self._cache = VectorCache(self._config["cached_vectors"])
        self._waiting = runtime_context.get_list_state(
            ListStateDescriptor("waiting", Types.PICKLED_BYTE_ARRAY())
        )
        self._waits: dict[int, int] = {}

    def process_element(
        self, value: EventRows, ctx: KeyedProcessFunction.Context
    ) -> Any:
        """Rows of one batch key."""
        key, rows = ctx.get_current_key(), value
        if key not in self._waits:
            restored = list(self._waiting.get() or ())
            self._waits[key] = sum(len(part) for part in restored)
        if not self._waits[key]:
            timers = ctx.timer_service()
            now = timers.current_processing_time()
            timers.register_processing_time_timer(now + self._config["batch_wait_ms"])
        self._waiting.add(rows)
        self._waits[key] += len(rows)
        if self._waits[key] >= self._config["batch_rows"]:
            yield from self._flush(key)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """The first waiting payload has waited long enough."""
        yield from self._flush(ctx.get_current_key())

    def _flush(self, key: int) -> Iterator[Any]:
        parts: dict[str, list[EventRows]] = {}
        for part in self._waiting.get() or ():
            parts.setdefault(part.modality, []).append(part)
        self._waiting.clear()
        self._waits[key] = 0
        for modality, found in parts.items():
            rows = concat_rows(found)
            encoder = self._encoders.get(modality)
            if encoder is None:
                reason = f"the model takes no {modality}"
                letters = [
                    rows.dead_letter(i, kind="mismatch", reason=reason)
                    for i in range(len(rows))
                ]
                yield from letters_out(self._topic("dead-letters"), letters)
                continue
            for start in range(0, len(rows), self._config["batch_rows"]):
                stop = min(start + self._config["batch_rows"], len(rows))
                batch = rows.take(np.arange(start, stop))
                yield from self._encode(encoder, batch)

    def _encode(self, encoder: Encoder, rows: EventRows) -> Iterator[Any]:
        content = rows.columns[CONTENT_COLUMN.get(rows.modality, VALUES)]
        payloads = content if isinstance(content, np.ndarray) else content.to_pylist()
        vectors: list[NDArray[np.float32] | None] = []
        fresh: dict[bytes, Any] = {}
        letters: list[DeadLetter] = []
        digests = [self._cache.digest(rows.modality, p) for p in payloads]
        for i, digest in enumerate(digests):
            known = self._cache.get(digest)
            if known is None and digest not in fresh:
                try:
                    fresh[digest] = encoder.decode(payloads[i])
                except PayloadError as error:
                    over = isinstance(error, LimitError)
                    kind = "limits" if over else "unreadable"
                    letters.append(rows.dead_letter(i, kind=kind, reason=str(error)))
            vectors.append(known)
        encoded = encoder.encode(list(fresh.values()))
        for digest, vector in zip(fresh, encoded, strict=True):
            self._cache.put(digest, vector)
        made = dict(zip(fresh, encoded, strict=True))
        yield from letters_out(self._topic("dead-letters"), letters)
        kept = []
        for i, digest in enumerate(digests):
            if vectors[i] is None:
                vectors[i] = made.get(digest)
            if vectors[i] is not None:
                kept.append(i)
        if not kept:
            return
        good = rows.take(kept)
        lanes = by_shard(good.keys("case_id"), LANES)
        good.columns = {"vector": np.stack([v for v in vectors if v is not None])}
        for lane, members in lanes.items():
            frame = self._frame(encoder, good.take(members))
            if rows.modality in MEDIA:  # the score job makes its own of features
                yield out_row(self._topic("embeddings"), str(lane), frame)
            yield out_row(self._topic("vectors"), str(lane), frame)

    def _frame(self, encoder: Encoder, rows: EventRows) -> bytes:
        return frame_of(
            vectors_schema(encoder.width),
            {
                "event_id": rows.event_id,
                "case_id": rows.case_id,
                "modality": [rows.modality] * len(rows),
                "event_time": rows.event_time_ms,
                "created_ms": rows.created_ms,
                "fingerprint": [encoder.fingerprint] * len(rows),
                "vector": rows.columns["vector"],
            },
        )

    def _topic(self, name: str) -> str:
        return str(self._config["prefix"]) + name


class VectorCache:
    """The vectors of the payloads seen last, by content.

    Args:
        size: vectors kept; the one unused longest goes first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    @staticmethod
    def digest(modality: str, payload: str | bytes | NDArray[np.float64]) -> bytes:
        """Name of a payload by its content."""
        raw = payload.encode() if isinstance(payload, str) else bytes(payload)
        return hashlib.blake2b(raw, digest_size=16, key=modality.encode()).digest()

    def get(self, digest: bytes) -> NDArray[np.float32] | None:
        """The vector of a payload, or None when it is not kept."""
        vector = self._vectors.get(digest)
        if vector is not None:
            self._vectors.move_to_end(digest)
        return vector

    def put(self, digest: bytes, vector: NDArray[np.float32]) -> None:
        """Keep a vector, and let the oldest go when there are too many."""
        self._vectors[digest] = vector
        if len(self._vectors) > self._size:
            self._vectors.popitem(last=False)
