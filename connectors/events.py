"""Kafka values to valid event rows, or dead letters that say why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.cells import (
    READ_CELL,
    EventLimits,
    RefusedError,
    encodable,
    is_integer,
    refuse,
    show,
)
from connectors.codec import CodecError, decode_frame, encode_frame, is_frame
from connectors.frame_rows import clean_rows, objects_of_frame
from connectors.json_events import event_time, parse_json, plain_cells, plain_object
from connectors.origins import Origins
from connectors.packing import Column
from connectors.records import CONTENT_COLUMN, DeadLetter, Place
from connectors.rows import EventRows

SCHEMA_VERSION = 1


class EventReader:
    """Reads events of one modality from Kafka values.

    Args:
        modality: which content an event must carry.
        columns: for tabular events, the columns that must be there and their kind:
            `number`, `string`, `bool` or `id` (text or integer, read as text).
        limits: what an event may look like.
        number_limits: least and greatest value of a column of numbers, by its name.
        now_ms: the clock that says how far ahead an event time is.
    """

    def __init__(
        self,
        modality: str,
        *,
        columns: Mapping[str, str] | None = None,
        limits: EventLimits | None = None,
        number_limits: Mapping[str, tuple[float, float]] | None = None,
        now_ms: Callable[[], int],
    ) -> None:
        self._modality = modality
        limits = limits or EventLimits()
        self._limits = replace(limits, numbers=number_limits or limits.numbers)
        self._now_ms = now_ms
        content = CONTENT_COLUMN.get(modality)
        if content is None:
            self._columns = dict(columns or {})
        else:
            self._columns = {content: "text" if modality == "text" else "bytes"}
        bools = (name for name, kind in self._columns.items() if kind == "bool")
        self._bools = tuple(bools)

    def read(
        self, value: bytes | None, place: Place
    ) -> tuple[EventRows | None, list[DeadLetter]]:
        """Valid rows of one Kafka value, and a dead letter for everything else."""
        if value and is_frame(value):
            try:
                self._check_size(value)
                return self._read_frame(value, place)
            except RefusedError as refused:
                return None, [self._letter(place, -1, refused, "", value)]
        source = (place.topic, place.partition)
        return self.read_objects(source, [place.offset], [value])

    def read_objects(
        self,
        source: tuple[str, int],
        offsets: Sequence[int],
        values: Sequence[bytes | None],
    ) -> tuple[EventRows | None, list[DeadLetter]]:
        """Valid rows of many Kafka values of one JSON event each, in their order.

        Args:
            source: the topic and partition of all of them.
            offsets: of each value.
            values: JSON, or what should have been.
        """
        cells = self._plain(values)
        if cells is not None:
            raw = [value or b"" for value in values]
            return self._rows(cells, Origins.of_objects(source, offsets, raw)), []
        return self._read_one_by_one(source, offsets, values)

    def _plain(self, values: Sequence[bytes | None]) -> list[Column] | None:
        """Cells of all events, column by column, if every one is plainly written."""
        if not all(values):
            return None
        raw = [value for value in values if value is not None]
        if max(map(len, raw), default=0) > self._limits.max_value_bytes:
            return None
        return plain_cells(
            [plain_object(value) for value in raw],
            self._columns,
            version=SCHEMA_VERSION,
            limits=self._limits,
            latest_ms=self._latest_ms(),
        )

    def _read_one_by_one(
        self,
        source: tuple[str, int],
        offsets: Sequence[int],
        values: Sequence[bytes | None],
    ) -> tuple[EventRows | None, list[DeadLetter]]:
        good: list[tuple[Any, ...]] = []
        kept: list[tuple[int, bytes]] = []
        letters: list[DeadLetter] = []
        topic, partition = source
        for offset, value in zip(offsets, values, strict=True):
            found: dict[str, Any] = {}
            try:
                if not value:
                    refuse("empty value: an event is a JSON object or a frame")
                self._check_size(value)
                try:
                    good.append(self._read_object(plain_object(value) or {}))
                except RefusedError:  # again, to the letter, and with the reason
                    found = parse_json(value)
                    good.append(self._read_object(found))
                kept.append((offset, value))
            except RefusedError as refused:
                place = Place(topic=topic, partition=partition, offset=offset)
                event_id = _known_id(found)
                letters.append(self._letter(place, -1, refused, event_id, value or b""))
        if not good:
            return None, letters
        origins = Origins.of_objects(source, *zip(*kept, strict=True))
        return self._rows(self._by_column(good), origins), letters

    def _check_size(self, value: bytes) -> None:
        most = self._limits.max_value_bytes
        if len(value) > most:
            over = f"value of {len(value)} bytes is over the limit of {most}"
            refuse(over, kind="limits")

    def _letter(
        self, place: Place, row: int, refused: RefusedError, event_id: str, value: bytes
    ) -> DeadLetter:
        return DeadLetter(
            place=place,
            row=row,
            kind=refused.kind,
            reason=str(refused),
            event_id=event_id.encode("utf-8", "replace").decode(),
            modality=self._modality,
            value=value,
        )

    def _read_object(self, found: dict[str, Any]) -> tuple[Any, ...]:
        """Checked cells: ids, event time, creation, then one for each column."""
        version = found.get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            refuse(f"unknown schema version {version!r}; known: {SCHEMA_VERSION}")
        ids = [self._id(name, found.get(name)) for name in ("event_id", "case_id")]
        time_ms = self._time(event_time(found))
        created = found.get("created_ms") or 0
        if not is_integer(created) or not 0 <= created < 2**62:
            refuse(f"created_ms: expected milliseconds, got {show(created)}")
        cells = []
        for name, kind in self._columns.items():
            if name not in found:
                refuse(f"field {name!r} is missing")
            cells.append(READ_CELL[kind](name, found[name], self._limits))
        return (*ids, time_ms, created, *cells)

    def _by_column(self, cells: list[tuple[Any, ...]]) -> list[Column]:
        """The cells of many events as columns: ids, times, creation, content."""
        kinds = ["id", "id", "time", "time", *self._columns.values()]
        return [
            _column(values, kind)
            for kind, values in zip(kinds, zip(*cells, strict=True), strict=True)
        ]

    def _rows(self, cells: list[Column], origins: Origins) -> EventRows:
        event_id, case_id, times, created, *content = cells
        return EventRows(
            modality=self._modality,
            event_id=event_id,
            case_id=case_id,
            event_time_ms=times,
            created_ms=created,
            origins=origins,
            columns=dict(zip(self._columns, content, strict=True)),
            bools=self._bools,
        )

    def _id(self, name: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            refuse(f"{name}: expected non-empty text, got {show(value)}")
        if len(value) > self._limits.max_id_chars:
            refuse(f"{name}: {len(value)} characters is over the limit", kind="limits")
        return encodable(name, value)

    def _time(self, time_ms: int) -> int:
        latest = self._latest_ms()
        if not self._limits.min_time_ms <= time_ms <= latest:
            refuse(
                f"event time {time_ms} ms is outside "
                f"{self._limits.min_time_ms}..{latest}",
                kind="limits",
            )
        return time_ms

    def _latest_ms(self) -> int:
        return self._now_ms() + self._limits.max_ahead_ms

    def _read_frame(
        self, value: bytes, place: Place
    ) -> tuple[EventRows | None, list[DeadLetter]]:
        try:
            batch = decode_frame(value)
        except CodecError as error:
            raise RefusedError(str(error)) from error
        needed = ["event_id", "case_id", "event_time", *self._columns]
        names = batch.schema.names
        missing = [name for name in needed if name not in names]
        if missing:
            refuse(f"frame has no column {missing[0]!r}; it has {names}")
        if not batch.num_rows:
            refuse("frame has no rows")
        whole = clean_rows(
            batch,
            place,
            modality=self._modality,
            columns=self._columns,
            limits=self._limits,
            latest_ms=self._latest_ms(),
        )
        if whole is not None:
            return whole, []
        good: list[tuple[Any, ...]] = []
        kept: list[int] = []
        letters: list[DeadLetter] = []
        for row, found in enumerate(objects_of_frame(batch, self._columns)):
            try:
                good.append(self._read_object(found))
                kept.append(row)
            except RefusedError as refused:
                original = encode_frame(batch.slice(row, 1))
                known = _known_id(found)
                letters.append(self._letter(place, row, refused, known, original))
        if not good:
            return None, letters
        origins = Origins.of_frame(place, np.array(kept, dtype=np.int32))
        return self._rows(self._by_column(good), origins), letters


#: Of a cell's kind, how Arrow keeps it; of any other it is a number.
_ARROW = {
    "string": pa.string(),
    "id": pa.string(),
    "text": pa.string(),
    "bytes": pa.binary(),
}


def _column(values: Sequence[Any], kind: str) -> Column:
    if kind in _ARROW:
        return pa.array(values, _ARROW[kind])
    return np.array(values, dtype=np.int64 if kind == "time" else np.float64)


def _known_id(found: Mapping[str, Any]) -> str:
    event_id = found.get("event_id")
    return event_id if isinstance(event_id, str) else ""
