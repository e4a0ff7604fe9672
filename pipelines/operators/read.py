"""Kafka values in, valid event rows out, by shard; dead letters aside."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from pyflink.common import Row
from pyflink.datastream import ProcessFunction, RuntimeContext

from connectors.events import EventReader
from connectors.feature_rows import FeatureReader
from connectors.flink import ASIDE, out_row, place_and_value
from connectors.records import DeadLetter
from connectors.rows import EventRows
from connectors.schemas import dead_letters_frame

#: Marks a topic that carries rows of features instead of events.
FEATURES = "features"


def now_ms() -> int:
    """This machine's clock, milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def shard_of(key: str, shards: int) -> int:
    """The shard of a key; the same in every process and version."""
    return zlib.crc32(key.encode()) % shards


def by_shard(
    rows: EventRows, keys: list[str], shards: int
) -> Iterator[tuple[int, EventRows]]:
    """The rows of each shard, in their order."""
    if len(keys) == 1:
        yield shard_of(keys[0], shards), rows
        return
    groups: dict[int, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(shard_of(key, shards), []).append(i)
    for shard, members in groups.items():
        yield shard, rows.take(members)


def letters_out(topic: str, letters: list[DeadLetter]) -> Iterator[Row]:
    """Kafka records that bring dead letters to their topic, whole."""
    for letter in letters:
        frame = dead_letters_frame([letter])
        yield out_row(topic, letter.modality or letter.kind, frame)


def letters_aside(topic: str, letters: list[DeadLetter]) -> Iterator[Any]:
    """`letters_out` past the operators that follow."""
    for row in letters_out(topic, letters):
        yield ASIDE, row


class ReadEvents(ProcessFunction):
    """Source rows to `SHARDED` event rows; anything unreadable to dead letters.

    Args:
        columns: columns and kinds a tabular event must have.
        topics: full topic name to modality, or to `FEATURES`.
        key: the column whose value chooses the shard; `case_id` or an entity column.
        shards: number of shards.
        dead_letters: full name of the dead-letter topic.
    """

    def __init__(
        self,
        *,
        columns: Mapping[str, str],
        topics: Mapping[str, str],
        key: str,
        shards: int,
        dead_letters: str,
    ) -> None:
        self._columns = dict(columns)
        self._topics = dict(topics)
        self._key = key
        self._shards = shards
        self._dead_letters = dead_letters

    def open(self, runtime_context: RuntimeContext) -> None:
        """Make one reader per topic."""
        self._readers: dict[str, EventReader | FeatureReader] = {
            topic: FeatureReader()
            if modality == FEATURES
            else EventReader(modality, columns=self._columns, now_ms=now_ms)
            for topic, modality in self._topics.items()
        }

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Any:
        """One Kafka value."""
        place, raw = place_and_value(value)
        rows, letters = self._readers[place.topic].read(raw, place)
        yield from letters_aside(self._dead_letters, letters)
        if rows is not None:
            keys = rows.case_id
            if self._key != "case_id":
                keys = rows.columns[self._key].tolist()
            for shard, part in by_shard(rows, keys, self._shards):
                yield Row(shard, part)
