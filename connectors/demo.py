"""Seeded synthetic cases of all four modalities, with their labels and task file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import pyarrow as pa

from connectors.archive import Archive, media_schema
from connectors.demo_plan import CaseFacts, DemoConfig, Population, plan
from connectors.demo_task import demo_task
from connectors.drawing import identity_card, receipt
from connectors.records import MODALITIES, Modality
from connectors.schemas import LABELS, TIME
from connectors.voice import spoken_amount
from connectors.wording import message

__all__ = [
    "DemoCase",
    "DemoCases",
    "DemoConfig",
    "DemoEvent",
    "DemoWorld",
    "archive_of",
    "demo_task",
    "events_in_order",
    "events_table",
]

_PAST, _LIVE = 1, 2
_SHORT = {"tabular": "tab", "text": "txt", "image": "img", "audio": "aud"}
#: Latest arrival of a medium after its payment, in ms of event time.
_LAG_MS = {"tabular": 1, "text": 1500, "image": 2500, "audio": 4000}

TABULAR_SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string()),
        pa.field("case_id", pa.string()),
        pa.field("event_time", TIME),
        pa.field("amount", pa.float64()),
        pa.field("customer", pa.string()),
        pa.field("terminal", pa.string()),
        pa.field("device", pa.string()),
        pa.field("device_type", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("category", pa.string()),
        pa.field("country", pa.string()),
        pa.field("foreign", pa.bool_()),
        pa.field("merchant_risk", pa.float64()),
        pa.field("device_age_days", pa.float64()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoEvent:
    """One event: its modality and its fields, `payload` as bytes."""

    modality: Modality
    event_id: str
    case_id: str
    event_time_ms: int
    content: dict[str, Any]

    def to_json(self, created_ms: int | None = None) -> dict[str, Any]:
        """The plain JSON form of the event; a payload becomes base64 text."""
        out: dict[str, Any] = {
            "event_id": self.event_id,
            "case_id": self.case_id,
            "event_time_ms": self.event_time_ms,
        }
        if created_ms is not None:
            out["created_ms"] = created_ms
        for name, value in self.content.items():
            is_bytes = isinstance(value, bytes)
            out[name] = base64.b64encode(value).decode() if is_bytes else value
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoCase:
    """One case: up to four events in time order, and the label that follows.

    Attributes:
        facts: how it truly is; for checking, never an input.
    """

    case_id: str
    events: tuple[DemoEvent, ...]
    label: int
    label_time_ms: int
    facts: CaseFacts

    def event(self, modality: Modality) -> DemoEvent | None:
        """The event of one modality, or None when the case lacks it."""
        return next((e for e in self.events if e.modality == modality), None)

    def label_json(self) -> dict[str, Any]:
        """The plain JSON form of the label."""
        return {
            "case_id": self.case_id,
            "label_time_ms": self.label_time_ms,
            "label": self.label,
        }


class DemoCases(Sequence[DemoCase]):
    """Cases in time order; media are drawn and spoken when a case is asked for."""

    def __init__(
        self, facts: list[CaseFacts], key: list[int], world: DemoWorld
    ) -> None:
        self._facts = facts
        self._key = key
        self._world = world

    def __len__(self) -> int:
        return len(self._facts)

    @overload
    def __getitem__(self, index: int) -> DemoCase: ...
    @overload
    def __getitem__(self, index: slice) -> DemoCases: ...
    def __getitem__(self, index: int | slice) -> DemoCase | DemoCases:
        if isinstance(index, slice):
            return DemoCases(self._facts[index], self._key, self._world)
        return self._world.render(self._facts[index], self._key)

    def __iter__(self) -> Iterator[DemoCase]:
        return (self._world.render(facts, self._key) for facts in self._facts)


class DemoWorld:
    """Everything the demo shows, decided by one seed.

    >>> world = DemoWorld(seed=7)
    >>> [len(world.live(20, start_ms=1_700_000_000_000)), world.config.customers]
    [20, 600]
    """

    def __init__(self, seed: int = 0, *, config: DemoConfig | None = None) -> None:
        self.seed = seed
        self.config = config or DemoConfig()
        self._population = Population(seed, self.config)

    def past(self, n_cases: int, end_ms: int) -> Archive:
        """History that ends at `end_ms`, with labels; without the new pattern."""
        start_ms = end_ms - int(1000 * n_cases / self.config.rate)
        return archive_of(self._cases("past", n_cases, start_ms, self.config.rate))

    def live(
        self, n_cases: int, start_ms: int, rate: float | None = None, *, part: int = 0
    ) -> DemoCases:
        """Cases from `start_ms` on, with a kind of fraud that the past never saw.

        Args:
            n_cases: how many.
            start_ms: event time of the first. To end about now at the natural pace,
                give `now_ms - 1000 * n_cases / config.rate`.
            rate: cases per second of event time; the pace of the past unless given.
                A faster one makes every customer pay more often than in the past.
            part: another number gives other cases with other ids of the same world.
        """
        return self._cases("live", n_cases, start_ms, rate or self.config.rate, part)

    def _cases(
        self, stream: str, n_cases: int, start_ms: int, rate: float, part: int = 0
    ) -> DemoCases:
        key = [self.seed, _LIVE if stream == "live" else _PAST, part]
        facts = plan(
            self._population,
            np.random.default_rng(key),
            cases=n_cases,
            start_ms=start_ms,
            rate=rate,
            live=stream == "live",
        )
        prefix = f"{stream}-{self.seed}-{part}"
        named = [replace(f, case_id=f"{prefix}-{i:06d}") for i, f in enumerate(facts)]
        return DemoCases(named, key, self)

    def render(self, facts: CaseFacts, key: Sequence[int]) -> DemoCase:
        """The case with its media; equal facts and key give equal bytes."""
        number = int(facts.case_id.rpartition("-")[2])
        rng = np.random.default_rng([*key, number])
        absent = rng.random(len(MODALITIES)) < self.config.missing
        absent[0] = rng.random() < self.config.missing_tabular
        if absent.all():
            absent[0] = False
        events = [
            DemoEvent(
                modality=modality,
                event_id=f"{facts.case_id}.{_SHORT[modality]}",
                case_id=facts.case_id,
                event_time_ms=facts.event_time_ms
                + int(rng.integers(_LAG_MS[modality])),
                content=_content(modality, facts, rng),
            )
            for modality, gone in zip(MODALITIES, absent, strict=True)
            if not gone
        ]
        events.sort(key=lambda event: event.event_time_ms)
        return DemoCase(
            case_id=facts.case_id,
            events=tuple(events),
            label=int(bool(facts.kind)),
            label_time_ms=facts.event_time_ms + self.config.label_delay_ms,
            facts=facts,
        )


def _content(
    modality: Modality, facts: CaseFacts, rng: np.random.Generator
) -> dict[str, Any]:
    amount = float(facts.row["amount"])
    if modality == "tabular":
        return dict(facts.row)
    if modality == "text":
        scam = "scam_text" in facts.signs
        return {"text": message(rng, merchant=facts.merchant, scam=scam)}
    if modality == "audio":
        spoken = _other(amount, rng) if "voice_mismatch" in facts.signs else amount
        robotic = "robotic_voice" in facts.signs
        clip = spoken_amount(
            rng, amount=spoken, pitch_hz=facts.pitch_hz, robotic=robotic
        )
        return {"payload": clip}
    printed = _other(amount, rng) if "receipt_mismatch" in facts.signs else amount
    tampered = "tampered_image" in facts.signs
    if printed == amount and rng.random() < 0.15:
        number = str(facts.row["customer"]).upper()
        return {"payload": identity_card(rng, number=number, tampered=tampered)}
    return {
        "payload": receipt(
            rng, merchant=facts.merchant, amount=printed, tampered=tampered
        )
    }


def _other(amount: float, rng: np.random.Generator) -> float:
    """An amount that is at least four times as large, or as small."""
    factor = float(rng.uniform(4, 9))
    larger = amount < 40 or (amount < 1000 and rng.random() < 0.5)
    return round(amount * factor if larger else amount / factor, 2)


def archive_of(cases: Iterable[DemoCase]) -> Archive:
    """The cases' events and labels in the archive's schemas, sorted by time."""
    rows: dict[Modality, list[DemoEvent]] = {m: [] for m in MODALITIES}
    labels: list[tuple[str, int, int]] = []
    for case in cases:
        labels.append((case.case_id, case.label_time_ms, case.label))
        for event in case.events:
            rows[event.modality].append(event)
    tables = {m: events_table(m, found) for m, found in rows.items() if found}
    columns: Sequence[Any] = list(zip(*labels, strict=True)) or [[], [], []]
    arrays = [
        pa.array(values, type=pa.int64()).cast(TIME)
        if field.type == TIME
        else pa.array(values, type=field.type)
        for values, field in zip(columns, LABELS, strict=True)
    ]
    table = pa.Table.from_arrays(arrays, schema=LABELS)
    return Archive(tables=tables, labels=table.sort_by("label_time"))


def events_table(modality: Modality, events: Sequence[DemoEvent]) -> pa.Table:
    """Events of one modality as a table, sorted by event_time, then event_id."""
    schema = TABULAR_SCHEMA if modality == "tabular" else media_schema(modality)
    arrays = [
        pa.array([e.event_id for e in events], type=pa.string()),
        pa.array([e.case_id for e in events], type=pa.string()),
        pa.array([e.event_time_ms for e in events], type=pa.int64()).cast(TIME),
        *(
            pa.array([e.content[field.name] for e in events], type=field.type)
            for field in list(schema)[3:]
        ),
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    return table.sort_by([("event_time", "ascending"), ("event_id", "ascending")])


def events_in_order(cases: Iterable[DemoCase]) -> Iterator[DemoEvent]:
    """Every event of the cases; a case's later media may overtake the next case's."""
    for case in cases:
        yield from case.events
