"""Media payloads to embeddings, in micro-batches bounded by size and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ListStateDescriptor

from connectors.codec import encode_frame
from connectors.feature_rows import VALUES
from connectors.flink import out_row
from connectors.records import CONTENT_COLUMN, MEDIA
from connectors.rows import EventRows, concat_rows
from connectors.schemas import batch_of, vectors_schema
from connectors.topics import TOPICS
from pipelines.decode_child import Refused
from pipelines.operators.decode_apart import DecodeLimits, DecoderProcess
from pipelines.operators.pace import Pace
from pipelines.operators.payload_vectors import PayloadVectors
from pipelines.operators.read import letters_out
from pipelines.operators.shards import by_shard

#: Frames a batch is split into at most: what is of one case must keep its order.
LANES = TOPICS["embeddings"].partitions
#: What Flink shows of this operator: payloads, those of them that needed no encoding
#: since their outcome was known, and how often the process that decodes was restarted.
COUNTERS = ("payloads", "repeats", "decoder_restarts")
#: Batches of one frame whose vectors are written together at most.
MOST_BATCHES = 16


class EncodeMedia(KeyedProcessFunction):
    """Rows of media events to `embeddings` and `vectors` frames, features to `vectors`.

    A batch is encoded when `batch_rows` payloads wait or the first of them has waited
    `batch_wait_ms`; where payloads come further apart than that, at once. Waiting
    payloads are in Flink state, so a restart encodes them again; what fills a batch at
    once is never put there. Equal payloads are encoded once while they are among the
    last `cached_vectors`. Pictures and clips are decoded in a process apart: see
    `DecoderProcess`.

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
        config = self._config
        folder = Path(config["model_folder"]) / "encoders"
        limits = DecodeLimits(
            seconds=config["decode_limit_s"], memory_mb=config["decode_memory_mb"]
        )
        self._process = DecoderProcess(folder, limits)  # it starts meanwhile
        self._vectors = PayloadVectors(
            load_encoders(folder),
            self._process,
            batch_rows=config["batch_rows"],
            cached=config["cached_vectors"],
        )
        self._waiting = runtime_context.get_list_state(
            ListStateDescriptor("waiting", Types.PICKLED_BYTE_ARRAY())
        )
        self._waits: dict[int, int] = {}
        self._pace = Pace(config["batch_wait_ms"])
        group = runtime_context.get_metrics_group()
        self._counters = {name: group.counter(name) for name in COUNTERS}

    def close(self) -> None:
        """End the process that decodes."""
        self._process.close()

    def process_element(
        self, value: EventRows, ctx: KeyedProcessFunction.Context
    ) -> Any:
        """Rows of one batch key."""
        key, rows = ctx.get_current_key(), value
        if key not in self._waits:
            restored = list(self._waiting.get() or ())
            self._waits[key] = sum(len(part) for part in restored)
        waits = self._waits[key]
        timers = ctx.timer_service()
        now_ms = timers.current_processing_time()
        wait_ms = self._pace.arrived(now_ms)
        if not wait_ms or waits + len(rows) >= self._config["batch_rows"]:
            yield from self._flush(key, rows)
            return
        if not waits:
            timers.register_processing_time_timer(now_ms + wait_ms)
        self._waiting.add(rows)
        self._waits[key] = waits + len(rows)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """The first waiting payload has waited long enough."""
        yield from self._flush(ctx.get_current_key())

    def _take(self, key: int) -> list[EventRows]:
        """What waits, which waits no longer."""
        if self._waits.get(key) == 0:
            return []
        found = list(self._waiting.get() or ())
        self._waiting.clear()
        self._waits[key] = 0
        return found

    def _flush(self, key: int, *more: EventRows) -> Iterator[Any]:
        """Encode what waits under a key, and `more` behind it."""
        parts: dict[str, list[EventRows]] = {}
        for part in [*self._take(key), *more]:
            parts.setdefault(part.modality, []).append(part)
        for modality, of_it in parts.items():
            rows = concat_rows(of_it)
            if modality not in self._vectors.encoders:
                refused = Refused("mismatch", f"the model takes no {modality}")
                yield from self._letters(rows, dict.fromkeys(range(len(rows)), refused))
                continue
            most = MOST_BATCHES * self._config["batch_rows"]
            for start in range(0, len(rows), most):
                stop = min(start + most, len(rows))
                yield from self._encode(key, rows.only(np.arange(start, stop)))

    def _encode(self, key: int, rows: EventRows) -> Iterator[Any]:
        content = rows.columns[CONTENT_COLUMN.get(rows.modality, VALUES)]
        payloads = (
            list(content) if isinstance(content, np.ndarray) else content.to_pylist()
        )
        before = self._counts()
        made = self._vectors.of(rows.modality, payloads)
        for name, count in self._counts().items():
            if count > before[name]:
                self._counters[name].inc(count - before[name])
        refused = {i: one for i, one in enumerate(made) if isinstance(one, Refused)}
        yield from self._letters(rows, refused)
        vectors = [one for one in made if not isinstance(one, Refused)]
        if not vectors:
            return
        good = rows.only(np.delete(np.arange(len(rows)), list(refused)))
        told = self._told(good, np.stack(vectors))
        if rows.modality in MEDIA:  # the score job makes its own of features
            lanes = by_shard(good.keys("case_id"), LANES)
            for lane, members in lanes.items():
                frame = encode_frame(told.take(pa.array(members)))
                yield out_row(self._topic("embeddings"), str(lane), frame)
        yield out_row(self._topic("vectors"), str(key), encode_frame(told))

    def _counts(self) -> dict[str, int]:
        counts = self._vectors.seen, self._vectors.repeats, self._process.restarts
        return dict(zip(COUNTERS, counts, strict=True))

    def _letters(
        self, rows: EventRows, refused: Mapping[int, Refused]
    ) -> Iterator[Any]:
        letters = [
            rows.dead_letter(row, kind=why.kind, reason=why.reason)
            for row, why in refused.items()
        ]
        yield from letters_out(self._topic("dead-letters"), letters)

    def _told(self, rows: EventRows, vectors: NDArray[np.float32]) -> pa.RecordBatch:
        encoder = self._vectors.encoders[rows.modality]
        return batch_of(
            vectors_schema(encoder.width),
            {
                "event_id": rows.event_id,
                "case_id": rows.case_id,
                "modality": [rows.modality] * len(rows),
                "event_time": rows.event_time_ms,
                "created_ms": rows.created_ms,
                "fingerprint": [encoder.fingerprint] * len(rows),
                "vector": vectors,
            },
        )

    def _topic(self, name: str) -> str:
        return str(self._config["prefix"]) + name
