"""Kafka values in, valid rows out, to the node of their key; dead letters aside."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyflink.common import Row
from pyflink.datastream import ProcessFunction, RuntimeContext

from automl.keys import text_keys
from connectors.events import EventReader
from connectors.feature_rows import FeatureReader
from connectors.flink import ASIDE, out_row, place_and_value
from connectors.records import DeadLetter
from connectors.rows import CASE_KEY, EventRows
from connectors.schemas import dead_letters_frame
from pipelines.operators.shards import Shards

#: Marks a topic that carries rows of features instead of events.
FEATURES = "features"
TABULAR = "tabular"


def now_ms() -> int:
    """This machine's clock, milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def keyed(rows: EventRows) -> EventRows:
    """The rows with the key of each case id; of payments, of all other ids and texts.

    What is compared by key needs no text any more, and the bytes a payment was read
    from are needed no longer once it was found good: neither travels on.
    """
    rows.columns[CASE_KEY] = text_keys(rows.case_id)
    if rows.modality == TABULAR:
        rows.origins.values = None
        for name, cells in rows.columns.items():
            if isinstance(cells, pa.Array):
                rows.columns[name] = text_keys(cells)
    return rows


def to_nodes(shards: Shards, rows: EventRows, key: str) -> Iterator[Row]:
    """`KEYED` rows that bring each event to the node of its `case_id` or column."""
    for node, members in shards.by_node(rows.keys(key)):
        yield Row(node, rows.only(members))


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
    """Source rows to `KEYED` event rows, by case; anything unreadable to dead letters.

    Args:
        topics: full topic name to modality, or to `FEATURES`.
        shards: number of shards.
        nodes: the job's parallelism.
        dead_letters: full name of the dead-letter topic.
    """

    def __init__(
        self, *, topics: Mapping[str, str], shards: int, nodes: int, dead_letters: str
    ) -> None:
        self._topics = dict(topics)
        self._layout = (shards, nodes)
        self._dead_letters = dead_letters

    def open(self, runtime_context: RuntimeContext) -> None:
        """Make one reader per topic."""
        self._shards = Shards(*self._layout)
        self._readers: dict[str, EventReader | FeatureReader] = {
            topic: FeatureReader()
            if modality == FEATURES
            else EventReader(modality, now_ms=now_ms)
            for topic, modality in self._topics.items()
        }

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Any:
        """One Kafka value."""
        _, record = value
        place, raw = place_and_value(record)
        rows, letters = self._readers[place.topic].read(raw, place)
        yield from letters_aside(self._dead_letters, letters)
        if rows is not None:
            yield from to_nodes(self._shards, keyed(rows), "case_id")
