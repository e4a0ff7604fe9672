"""An archive published to the topics, in event-time order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from connectors.archive import iter_slices, with_created_ms
from connectors.codec import encode_frame
from connectors.kafka import Producer
from connectors.topics import event_topic
from pipelines.operators.read import now_ms

#: A frame of several rows is split above this.
FRAME_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class Sent:
    """What a replay put on the topics.

    Attributes:
        events: distinct events by modality; a row without an id counts by itself.
        repeated: rows whose event_id its modality had sent before.
    """

    events: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    @property
    def total(self) -> int:
        """Distinct events of all modalities."""
        return sum(self.events.values())


def replay(
    archive: Path,
    bootstrap: str,
    *,
    prefix: str = "",
    rate: float | None = None,
    frame_rows: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Sent:
    """Publish every row once, in global event-time order.

    Args:
        archive: folder of Parquet files.
        bootstrap: HOST:PORT of the broker.
        prefix: topic prefix of the run.
        rate: events per second, or None for as fast as the broker takes them.
        frame_rows: most rows of one Kafka value.
        progress: told the number of events sent so far.
    """
    sent = Sent()
    seen: dict[str, set[str]] = {}
    began = time.monotonic()
    with Producer(bootstrap, linger_ms=5) as producer:
        count = 0
        for modality, batch in iter_slices(archive, frame_rows=frame_rows):
            if rate is not None:
                ahead_s = count / rate - (time.monotonic() - began)
                time.sleep(max(0.0, ahead_s))
            for part in _small_enough(batch):
                frame = encode_frame(with_created_ms(part, now_ms()))
                key = str(part.column("case_id")[0].as_py())
                producer.send(prefix + event_topic(modality), frame, key=key)
            count += batch.num_rows
            known = seen.setdefault(modality, set())
            for event_id in batch.column("event_id").to_pylist():
                if event_id is not None and event_id in known:
                    sent.repeated += 1
                    continue
                if event_id is not None:
                    known.add(event_id)
                sent.events[modality] += 1
            if progress is not None:
                progress(count)
        producer.flush(timeout_s=300)
    return sent


def _small_enough(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts that stay well below the size an event value may have."""
    if batch.num_rows > 1 and batch.nbytes > FRAME_BYTES:
        half = batch.num_rows // 2
        yield from _small_enough(batch.slice(0, half))
        yield from _small_enough(batch.slice(half))
    else:
        yield batch
