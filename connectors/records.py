"""The records that cross room borders: what an event, a decision or a label is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Modality = Literal["tabular", "text", "image", "audio"]

#: Order is contract: it is the column order of masks, gates and fused inputs.
MODALITIES: tuple[Modality, ...] = ("tabular", "text", "image", "audio")
MEDIA: tuple[Modality, ...] = ("text", "image", "audio")

#: The column that carries the content of a media event.
CONTENT_COLUMN: dict[str, str] = {
    "text": "text",
    "image": "payload",
    "audio": "payload",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a Kafka value was read: enough to fetch it again."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A record that could not be used, whole, with its place and the reason.

    Attributes:
        place: topic, partition and offset it was read at.
        row: its row inside the frame, or -1 when the whole value is meant.
        kind: `unreadable` (cannot be decoded), `limits` (decodes, out of limits),
            `decoder` (its decoder crashed, hung or took too much memory), `late`
            (behind the stream by more than the horizon) or `mismatch` (made for
            another model).
        reason: one sentence a person can act on.
        event_id: the id of the event when it could be read, else "".
        modality: the modality of the event when known, else "".
        value: the original bytes (of the one row, for a row of a frame).
    """

    place: Place
    row: int
    kind: str
    reason: str
    event_id: str
    modality: str
    value: bytes
