"""What became of every event: the balance in = decided + dead + late."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from connectors.codec import decode_frame
from connectors.kafka import Reader
from connectors.schemas import DECISIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Counts of events; each event sent ends in exactly one of the last three.

    Attributes:
        events_in: events sent.
        decided: events that made a decision revision.
        revised: of those, the ones that revised an earlier decision of their case.
        dead_lettered: events set aside with a reason.
        late: events too old for their entity's windows, set aside too.
        lost: events that are nowhere; 0 unless something is broken.
        duplicated: decision records beyond the first of the same id and revision.
        differing: of those, the ones whose content differs from the first.
    """

    events_in: int
    decided: int
    revised: int
    dead_lettered: int
    late: int
    lost: int
    duplicated: int
    differing: int

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"in {self.events_in} = decided {self.decided} + dead "
            f"{self.dead_lettered} + late {self.late}; lost {self.lost}, "
            f"duplicated {self.duplicated}"
        )


class Ledger:
    """Reads what the jobs wrote and keeps account of it.

    Args:
        bootstrap: HOST:PORT of the broker.
        prefix: topic prefix of the run.
        from_end: count only what is written from now on.
    """

    def __init__(
        self, bootstrap: str, *, prefix: str = "", from_end: bool = False
    ) -> None:
        self._decisions_topic = prefix + "decisions"
        topics = [self._decisions_topic, prefix + "dead-letters"]
        self._reader = Reader(bootstrap, topics, from_end=from_end)
        self._decisions: dict[tuple[str, int], dict[str, Any]] = {}
        self._dead: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._events: set[tuple[str, str]] = set()
        self._duplicated = 0
        self._differing = 0

    def poll(
        self, timeout_ms: int = 100
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """New decisions and new dead letters, records seen before left out."""
        decisions: list[dict[str, Any]] = []
        dead: list[dict[str, Any]] = []
        for value in self._reader.poll(timeout_ms):
            rows = decode_frame(value.value or b"").to_pylist()
            if value.place.topic == self._decisions_topic:
                decisions += [row for row in rows if self._is_new(row)]
            else:
                dead += [row for row in rows if self._is_new_letter(row)]
        return decisions, dead

    def _is_new(self, row: dict[str, Any]) -> bool:
        first = self._decisions.setdefault((row["decision_id"], row["revision"]), row)
        if first is row:
            self._events.add((row["modality"], row["event_id"]))
            return True
        self._duplicated += 1
        self._differing += any(
            first[name] != row[name] for name in row if name != "decided_at"
        )
        return False

    def _is_new_letter(self, row: dict[str, Any]) -> bool:
        key = tuple(row[name] for name in ("topic", "partition", "offset", "row"))
        return self._dead.setdefault(key, row) is row

    @property
    def accounted(self) -> int:
        """Distinct events that have an outcome so far."""
        return len(self._events) + len(self._dead)

    def decisions(self) -> pa.Table:
        """Every decision once, in the order they were made."""
        return pa.Table.from_pylist([*self._decisions.values()], schema=DECISIONS)

    def dead_letters(self) -> list[dict[str, Any]]:
        """Every dead letter once."""
        return [*self._dead.values()]

    def balance(self, events_in: int) -> Balance:
        """The account of `events_in` distinct events sent."""
        late = sum(row["kind"] == "late" for row in self._dead.values())
        return Balance(
            events_in=events_in,
            decided=len(self._events),
            revised=sum(revision > 0 for _, revision in self._decisions),
            dead_lettered=len(self._dead) - late,
            late=late,
            lost=events_in - self.accounted,
            duplicated=self._duplicated,
            differing=self._differing,
        )

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()
