"""What became of every event: the balance in = decided + dead + late + repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from connectors.codec import CodecError, decode_frame
from connectors.kafka import Reader
from connectors.records import MODALITIES
from connectors.topics import event_topic
from pipelines.decisions_seen import DecisionsSeen
from pipelines.event_keys import EventKey, key_of_event


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Counts of events sent; each has exactly one outcome.

    Attributes:
        events_in: events sent, repeated ones included.
        decided: events that made a decision revision.
        revised: of those, the ones that revised an earlier decision of their case.
        dead_lettered: events set aside with a reason.
        late: events too old for their entity's windows, set aside too.
        repeated: events passed over because their case had them already.
        lost: events that are nowhere; 0 unless something is broken.
        duplicated: decision records beyond the first of the same id and revision.
        differing: of those, the ones whose content differs from the first.
    """

    events_in: int
    decided: int
    revised: int
    dead_lettered: int
    late: int
    repeated: int = 0
    lost: int
    duplicated: int
    differing: int

    @property
    def accounted(self) -> int:
        """Events that have an outcome."""
        return self.events_in - self.lost

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    def __str__(self) -> str:
        repeated = f" + repeated {self.repeated}" if self.repeated else ""
        return (
            f"in {self.events_in} = decided {self.decided} + dead "
            f"{self.dead_lettered} + late {self.late}{repeated}; lost {self.lost}, "
            f"duplicated {self.duplicated}"
        )


class Ledger:
    """Reads what the jobs wrote and keeps account of it.

    Dead letters that are about no event of this run (a label, a model announcement)
    are kept, but do not count.

    Args:
        bootstrap: HOST:PORT of the broker.
        prefix: topic prefix of the run.
        from_end: count only what is written from now on.
    """

    def __init__(
        self, bootstrap: str, *, prefix: str = "", from_end: bool = False
    ) -> None:
        self._decisions_topic = prefix + "decisions"
        self._embeddings_topic = prefix + "embeddings"
        self._modality_of = {prefix + event_topic(m): m for m in MODALITIES}
        topics = [self._decisions_topic, prefix + "dead-letters"]
        self._reader = Reader(bootstrap, topics, from_end=from_end)
        self._seen = DecisionsSeen()
        self._letters: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._dead: Counter[EventKey] = Counter()
        self._refused: Counter[EventKey] = Counter()
        self._dead_rows = 0
        self._late = 0

    def poll(
        self, timeout_ms: int = 100
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """New decisions and new dead letters, records seen before left out."""
        frames, dead = self.read(timeout_ms)
        return [row for frame in frames for row in frame.to_pylist()], dead

    def read(
        self, timeout_ms: int = 100
    ) -> tuple[list[pa.RecordBatch], list[dict[str, Any]]]:
        """`poll` with the decisions as columns, which costs little for each."""
        frames: list[pa.RecordBatch] = []
        dead: list[dict[str, Any]] = []
        for value in self._reader.poll(timeout_ms):
            frame = decode_frame(value.value or b"")
            if value.place.topic == self._decisions_topic:
                frames.append(self._seen.add(frame))
            else:
                dead += [row for row in frame.to_pylist() if self._is_new_letter(row)]
        return frames, dead

    def _is_new_letter(self, row: dict[str, Any]) -> bool:
        key = tuple(row[name] for name in ("topic", "partition", "offset", "row"))
        if self._letters.setdefault(key, row) is not row:
            return False
        modality = self._modality_of.get(row["topic"])
        if row["topic"] == self._embeddings_topic:
            self._refused.update(_events_in(row["value"]) or ())
        elif modality is not None:
            # a letter about a whole value stands for every row of it
            events = _events_in(row["value"])
            self._dead.update((case, modality, i) for case, _, i in events or ())
            if row["kind"] == "late":
                self._late += 1
            else:
                self._dead_rows += 1 if events is None else len(events)
        return True

    @property
    def accounted(self) -> int:
        """Distinct events that have an outcome so far."""
        return self.balance(0).accounted

    @property
    def decided_tabular(self) -> int:
        """Distinct tabular events that made a decision."""
        return self._seen.tabular

    @property
    def differing_columns(self) -> Counter[str]:
        """How often each column of a repeated decision differed from the first."""
        return self._seen.differing_columns

    def decisions(self) -> pa.Table:
        """Every decision once, in the order they were made."""
        return self._seen.table()

    def dead_letters(self) -> list[dict[str, Any]]:
        """Every dead letter once."""
        return [*self._letters.values()]

    def balance(
        self, events_in: int, again: Mapping[EventKey, int] | None = None
    ) -> Balance:
        """The account of `events_in` events sent.

        Args:
            events_in: rows sent.
            again: of events sent more than once, how many times more. A decided event
                needs no further outcome: its rows that are in no dead letter are
                repeated. While outcomes still arrive they may yet become dead letters.
        """
        again = again or {}
        refused = sum(self._refused_rows(event, again) for event in self._refused)
        repeated = sum(
            max(0, more - self._dead[event] - self._refused_rows(event, again))
            for event, more in again.items()
            if self._is_decided(event)
        )
        dead = self._dead_rows + refused
        outcomes = len(self._seen.events) + dead + self._late + repeated
        return Balance(
            events_in=events_in,
            decided=len(self._seen.events),
            revised=self._seen.revised,
            dead_lettered=dead,
            late=self._late,
            repeated=repeated,
            lost=events_in - outcomes,
            duplicated=self._seen.duplicated,
            differing=self._seen.differing,
        )

    def _is_decided(self, event: EventKey) -> bool:
        return key_of_event(event) in self._seen.events

    def _refused_rows(self, event: EventKey, again: Mapping[EventKey, int]) -> int:
        """Rows of an event whose embedding was refused.

        A restarted job may write an embedding twice, at two places: an event has no
        more outcomes than it was sent times.
        """
        sent = 1 + again.get(event, 0)
        others = self._dead[event] + self._is_decided(event)
        return max(0, min(self._refused[event], sent - others))

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()


def _events_in(value: bytes) -> list[EventKey] | None:
    """The events in the frame of a dead letter; None when it is no readable frame."""
    try:
        batch = decode_frame(value)
    except CodecError:
        return None
    case, modality, event_id = (
        _texts(batch, name) for name in ("case_id", "modality", "event_id")
    )
    return list(zip(case, modality, event_id, strict=True))


def _texts(batch: pa.RecordBatch, name: str) -> list[str | None]:
    if name not in batch.schema.names or batch.column(name).type != pa.string():
        return [None] * batch.num_rows
    texts: list[str | None] = batch.column(name).to_pylist()
    return texts
