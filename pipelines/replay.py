"""An archive published to the topics in time order, events and labels."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from connectors.archive import read_labels, with_created_ms
from connectors.archive_labels import iter_with_labels, usable_labels
from connectors.codec import encode_frame
from connectors.kafka import Producer
from connectors.records import Modality
from connectors.schemas import LABELS
from connectors.topics import event_topic
from pipelines.account import EventKey
from pipelines.operators.read import now_ms

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
    frame_rows: int = 64,
    labels: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Sent:
    """Publish every event once, in global event-time order, and labels in between.

    Labels go one to a value under their own case, so that a corrected one follows the
    one it corrects.

    Args:
        archive: folder of Parquet files.
        bootstrap: HOST:PORT of the broker.
        prefix: topic prefix of the run.
        rate: events per second, or None for as fast as the broker takes them.
        frame_rows: most rows of one Kafka value.
        labels: publish the archive's labels too, each after the events up to its
            label_time; those that say nothing are left out and counted.
        progress: told the number of events sent so far.
    """
    sent = Sent()
    due = LABELS.empty_table()
    known = read_labels(archive) if labels else None
    if known is not None:
        due, sent.labels_left_out = usable_labels(known)
    seen: set[EventKey] = set()
    began = time.monotonic()
    with Producer(bootstrap, linger_ms=5) as producer:
        for name, batch in iter_with_labels(archive, due, frame_rows=frame_rows):
            if name == "labels":
                for row in _rows(batch):
                    key = row.column("case_id")[0].as_py()
                    producer.send(f"{prefix}labels", encode_frame(row), key=key)
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


def _count(
    sent: Sent, seen: set[EventKey], modality: Modality, batch: pa.RecordBatch
) -> None:
    sent.events[modality] += batch.num_rows
    cases, ids = (batch.column(name) for name in ("case_id", "event_id"))
    for case_id, event_id in zip(cases.to_pylist(), ids.to_pylist(), strict=True):
        if case_id is None or event_id is None:
            continue
        event = (case_id, modality, event_id)
        if event in seen:
            sent.again[event] += 1
        seen.add(event)


def _rows(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    return (batch.slice(row, 1) for row in range(batch.num_rows))


def _frames(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts that stay well below the size an event value may have."""
    if batch.num_rows > 1 and batch.nbytes > FRAME_BYTES:
        half = batch.num_rows // 2
        yield from _frames(batch.slice(0, half))
        yield from _frames(batch.slice(half))
    else:
        yield batch
