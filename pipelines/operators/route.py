"""Embeddings to the node of their case; model announcements to every node."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from pyflink.common import Row
from pyflink.datastream import ProcessFunction, RuntimeContext

from connectors.codec import CodecError, decode_frame
from connectors.flink import place_and_value
from connectors.frame_rows import rows_of_frame, texts_of
from connectors.records import DeadLetter, Place
from connectors.rows import EventRows
from connectors.schemas import rows_of_list
from pipelines.operators.read import keyed, letters_aside, to_nodes
from pipelines.operators.shards import Shards

#: What a value of other content than ours makes the reading below raise.
_UNREADABLE = (
    CodecError,
    pa.ArrowException,
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)


class RouteToCases(ProcessFunction):
    """Source rows of `embeddings` and `models` to `KEYED` rows, by case.

    An announcement goes to every node as a plain dict, in order with its rows.

    Args:
        models: full name of the topic of announcements.
        shards: number of shards.
        nodes: the job's parallelism.
        dead_letters: full name of the dead-letter topic.
    """

    def __init__(
        self, *, models: str, shards: int, nodes: int, dead_letters: str
    ) -> None:
        self._models = models
        self._layout = (shards, nodes)
        self._dead_letters = dead_letters

    def open(self, runtime_context: RuntimeContext) -> None:
        """Learn which node has which shard."""
        self._shards = Shards(*self._layout)

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Any:
        """One Kafka value."""
        _, record = value
        place, raw = place_and_value(record)
        try:
            if place.topic == self._models:
                announced = _announcement(raw, place)
                for node in self._shards.every_node() if announced else ():
                    yield Row(node, announced)
            else:
                rows = _embeddings(raw or b"", place)
                yield from to_nodes(self._shards, rows, "case_id")
        except _UNREADABLE as error:
            letter = DeadLetter(
                place=place,
                row=-1,
                kind="unreadable",
                reason=f"read {place}: {type(error).__name__}: {error}",
                event_id="",
                modality="",
                value=raw or b"",
            )
            yield from letters_aside(self._dead_letters, [letter])


def _announcement(raw: bytes | None, place: Place) -> dict[str, Any] | None:
    if raw is None:  # a tombstone: the name is no longer announced
        return None
    found = json.loads(raw)
    return {
        "name": str(found["name"]),
        "version": int(found["version"]),
        "folder": str(found["folder"]),
        "place": asdict(place),
    }


def _embeddings(raw: bytes, place: Place) -> EventRows:
    batch = decode_frame(raw)
    vectors = rows_of_list(batch.column("vector")).astype(np.float32)
    if batch.column("vector").null_count or not np.isfinite(vectors).all():
        msg = "vectors hold missing or non-finite values"
        raise ValueError(msg)
    columns = {
        "modality": texts_of(batch, "modality"),
        "fingerprint": texts_of(batch, "fingerprint"),
        "vector": vectors,
    }
    rows = rows_of_frame(batch, place, modality="embedding", columns=columns)
    return keyed(rows)
