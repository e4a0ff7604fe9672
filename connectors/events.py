"""Kafka values to valid event rows, or dead letters that say why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

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
from connectors.records import CONTENT_COLUMN, DeadLetter, Place
from connectors.rows import EventRows, Origins

SCHEMA_VERSION = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventReader:
    """Reads events of one modality from Kafka values.

    Args:
        modality: which content an event must carry.
        columns: for tabular events, the columns that must be there and their kind:
            `number`, `string`, `bool` or `id` (text or integer, read as text).
        limits: what an event may look like.
        now_ms: the clock that says how far ahead an event time is.
    """

    def __init__(
        self,
        modality: str,
        *,
        columns: Mapping[str, str] | None = None,
        limits: EventLimits | None = None,
        now_ms: Callable[[], int],
    ) -> None:
        self._modality = modality
        self._limits = limits or EventLimits()
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
        return self.read_objects([(place, value)])

    def read_objects(
        self, values: Sequence[tuple[Place, bytes | None]]
    ) -> tuple[EventRows | None, list[DeadLetter]]:
        """Valid rows of many Kafka values of one JSON event each, in their order."""
        good: list[tuple[Any, ...]] = []
        origins: list[tuple[Place, bytes | None]] = []
        letters: list[DeadLetter] = []
        for place, value in values:
            event_id = ""
            try:
                if not value:
                    refuse("empty value: an event is a JSON object or a frame")
                self._check_size(value)
                found = _parse_json(value)
                known = found.get("event_id")
                event_id = known if isinstance(known, str) else ""
                good.append(self._read_object(found))
                origins.append((place, value))
            except RefusedError as refused:
                letters.append(self._letter(place, -1, refused, event_id, value or b""))
        if not good:
            return None, letters
        return self._rows(good, Origins.of_objects(origins)), letters

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
        time_ms = self._time(_event_time(found))
        created = found.get("created_ms") or 0
        if not is_integer(created) or not 0 <= created < 2**62:
            refuse(f"created_ms: expected milliseconds, got {show(created)}")
        cells = []
        for name, kind in self._columns.items():
            if name not in found:
                refuse(f"field {name!r} is missing")
            cells.append(READ_CELL[kind](name, found[name], self._limits))
        return (*ids, time_ms, created, *cells)

    def _rows(self, cells: list[tuple[Any, ...]], origins: Origins) -> EventRows:
        event_id, case_id, times, created, *columns = zip(*cells, strict=True)
        return EventRows(
            modality=self._modality,
            event_id=[*event_id],
            case_id=[*case_id],
            event_time_ms=np.array(times, dtype=np.int64),
            created_ms=np.array(created, dtype=np.int64),
            origins=origins,
            columns={
                name: _column(values, kind)
                for (name, kind), values in zip(
                    self._columns.items(), columns, strict=True
                )
            },
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
        missing = [n for n in needed if n not in batch.schema.names]
        if missing:
            refuse(f"frame has no column {missing[0]!r}; it has {batch.schema.names}")
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
                event_id = found.get("event_id")
                known = event_id if isinstance(event_id, str) else ""
                original = encode_frame(batch.slice(row, 1))
                letters.append(self._letter(place, row, refused, known, original))
        if not good:
            return None, letters
        origins = Origins.of_frame(place, np.array(kept, dtype=np.int32))
        return self._rows(good, origins), letters


def _column(values: Sequence[Any], kind: str) -> npt.NDArray[Any]:
    if kind in ("number", "bool"):
        return np.array(values, dtype=np.float64)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _parse_json(value: bytes) -> dict[str, Any]:
    def no_constant(name: str) -> NoReturn:
        refuse(f"{name} is not a JSON number")

    try:
        found = json.loads(value.decode("utf-8"), parse_constant=no_constant)
    except UnicodeDecodeError as error:
        refuse(f"neither a frame nor UTF-8 text: {error.reason} at {error.start}")
    except RecursionError:
        refuse("JSON is nested too deeply")
    except ValueError as error:
        refuse(f"not JSON: {error}")
    if not isinstance(found, dict):
        refuse(f"expected one JSON object, got {show(found)}")
    return found


def _event_time(found: dict[str, Any]) -> int:
    if "event_time_ms" in found:
        value = found["event_time_ms"]
        if not is_integer(value):
            refuse(f"event_time_ms: expected milliseconds, got {show(value)}")
        return int(value)
    value = found.get("event_time")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            refuse(f"event_time: {show(value)} is not an ISO 8601 time")
    if not isinstance(value, datetime):
        refuse("field 'event_time_ms' (or ISO 'event_time') is missing")
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - _EPOCH) // timedelta(milliseconds=1)
