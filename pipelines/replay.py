"""An archive published to the topics in time order, events and labels."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.archive import read_labels, with_created_ms
from connectors.archive_labels import by_partition, iter_with_labels, usable_labels
from connectors.codec import encode_frame
from connectors.kafka import Producer
from connectors.records import Modality
from connectors.schemas import LABELS
from connectors.topics import event_topic
from pipelines.event_keys import EventKey, event_keys
from pipelines.operators.read import now_ms

#: Most rows of a frame, and the longest time whose events one holds at a given rate.
FRAME_ROWS, FRAME_S = 512, 0.02
#: A frame of several rows is split above this.
FRAME_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class Sent:
    """What a replay put on the topics.

    Attributes:
        events: rows by modality, every one sent.
        again: of events sent more than once, how many times more; rows without an id
            are no event twice.
        labels: how many; no event is among them.
        labels_left_out: labels of the archive that were not sent, by reason.
    """

    events: Counter[str] = field(default_factory=Counter)
    again: Counter[EventKey] = field(default_factory=Counter)
    labels: int = 0
    labels_left_out: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Events of all modalities."""
        return sum(self.events.values())

    @property
    def repeated(self) -> int:
        """Rows whose event had been sent before."""
        return sum(self.again.values())


def replay(
    archive: Path,
    bootstrap: str,
    *,
    prefix: str = "",
    rate: float | None = None,
    frame_rows: int | None = None,
    labels: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Sent:
    """Publish every event once, in global event-time order, and labels in between.

    Before an event of time t is sent, the broker has every label with a label_time up
    to t: who reads all labels there are, and then the event, knows what was known then.
    Labels of one case are in one partition, so that a corrected one follows the one it
    corrects.

    Args:
        archive: folder of Parquet files.
        bootstrap: HOST:PORT of the broker.
        prefix: topic prefix of the run.
        rate: events per second, or None for as fast as the broker takes them.
        frame_rows: most rows of one Kafka value; None for `FRAME_ROWS`, or fewer where
            the rate gives fewer in `FRAME_S`.
        labels: publish the archive's labels too; those that say nothing are left out
            and counted.
        progress: told the number of events sent so far.
    """
    sent = Sent()
    due = LABELS.empty_table()
    known = read_labels(archive) if labels else None
    if known is not None:
        due, sent.labels_left_out = usable_labels(known)
    if frame_rows is None:
        frame_rows = FRAME_ROWS if rate is None else _rows_at(rate)
    seen: set[int] = set()
    began = time.monotonic()
    with Producer(bootstrap, linger_ms=5) as producer:
        for name, batch in iter_with_labels(archive, due, frame_rows=frame_rows):
            if name == "labels":
                _send_labels(producer, f"{prefix}labels", batch)
                sent.labels += batch.num_rows
                continue
            if rate is not None:
                ahead_s = sent.total / rate - (time.monotonic() - began)
                time.sleep(max(0.0, ahead_s))
            for part in _frames(batch):
                frame = encode_frame(with_created_ms(part, now_ms()))
                key = str(part.column("case_id")[0].as_py())
                producer.send(prefix + event_topic(name), frame, key=key)
            _count(sent, seen, name, batch)
            if progress is not None:
                progress(sent.total)
        producer.flush(timeout_s=300)
    return sent


def _rows_at(rate: float) -> int:
    return max(1, min(FRAME_ROWS, int(rate * FRAME_S)))


def _send_labels(producer: Producer, topic: str, labels: pa.RecordBatch) -> None:
    """Frames of labels, in the broker's hands when this returns."""
    for part in by_partition(labels, producer.partitions(topic)):
        # Kafka chooses the partition of the frame as it would for every case in it
        producer.send(topic, encode_frame(part), key=part.column("case_id")[0].as_py())
    producer.flush(timeout_s=300)


def _count(
    sent: Sent, seen: set[int], modality: Modality, batch: pa.RecordBatch
) -> None:
    sent.events[modality] += batch.num_rows
    cases, ids = (batch.column(name) for name in ("case_id", "event_id"))
    named = pc.and_(pc.is_valid(cases), pc.is_valid(ids))
    keys = event_keys(cases, modality, ids)[np.asarray(named)].tolist()
    fresh = set(keys)
    if len(fresh) == len(keys) and fresh.isdisjoint(seen):
        seen |= fresh
        return
    rows = np.flatnonzero(np.asarray(named)).tolist()
    for row, key in zip(rows, keys, strict=True):
        if key in seen:
            sent.again[(cases[row].as_py(), modality, ids[row].as_py())] += 1
        seen.add(key)


def _frames(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts that stay well below the size an event value may have."""
    if batch.num_rows > 1 and batch.nbytes > FRAME_BYTES:
        half = batch.num_rows // 2
        yield from _frames(batch.slice(0, half))
        yield from _frames(batch.slice(half))
    else:
        yield batch
