"""Kafka values to valid event rows, or dead letters that say why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectors.cells import (
    CLEAN_COLUMN,
    READ_CELL,
    EventLimits,
    RefusedError,
    encodable,
    is_integer,
    refuse,
    show,
)
from connectors.codec import CodecError, decode_frame, encode_frame, is_frame
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
        latest = self._now_ms() + self._limits.max_ahead_ms
        if not self._limits.min_time_ms <= time_ms <= latest:
            refuse(
                f"event time {time_ms} ms is outside "
                f"{self._limits.min_time_ms}..{latest}",
                kind="limits",
            )
        return time_ms

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
        whole = self._read_clean_frame(batch, place)
        if whole is not None:
            return whole, []
        good: list[tuple[Any, ...]] = []
        kept: list[int] = []
        letters: list[DeadLetter] = []
        for row, found in enumerate(_rows_of(batch, needed)):
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

    def _read_clean_frame(
        self, batch: pa.RecordBatch, place: Place
    ) -> EventRows | None:
        """All rows at once when every one is valid, else None (then row by row)."""
        if not batch.num_rows:
            refuse("frame has no rows")
        names = ["event_id", "case_id", "event_time", *self._columns]
        if any(batch.column(name).null_count for name in names):
            return None
        ids = [batch.column(name) for name in ("event_id", "case_id")]
        for column in ids:
            if not pa.types.is_string(column.type):
                return None
            chars = pc.min_max(pc.utf8_length(pc.utf8_trim_whitespace(column)))
            if not 0 < chars["min"].as_py() <= chars["max"].as_py():
                return None
            longest = pc.max(pc.utf8_length(column)).as_py()
            if longest > self._limits.max_id_chars:
                return None
        if not pa.types.is_timestamp(batch.column("event_time").type):
            return None
        if "schema_version" in batch.schema.names:
            return None
        times = _int64(batch.column("event_time").cast(pa.timestamp("ms"), safe=False))
        latest = self._now_ms() + self._limits.max_ahead_ms
        if times.min() < self._limits.min_time_ms or times.max() > latest:
            return None
        columns: dict[str, npt.NDArray[Any]] = {}
        for name, kind in self._columns.items():
            values = CLEAN_COLUMN[kind](batch.column(name), self._limits)
            if values is None:
                return None
            columns[name] = values
        created = np.zeros(batch.num_rows, dtype=np.int64)
        if "created_ms" in batch.schema.names:
            column = batch.column("created_ms")
            if column.null_count or not pa.types.is_int64(column.type):
                return None
            created = column.to_numpy(zero_copy_only=False)
            if created.min() < 0 or created.max() >= 2**62:
                return None
        return EventRows(
            modality=self._modality,
            event_id=ids[0].to_pylist(),
            case_id=ids[1].to_pylist(),
            event_time_ms=times,
            created_ms=created,
            origins=Origins.of_frame(place, np.arange(batch.num_rows, dtype=np.int32)),
            columns=columns,
            bools=self._bools,
        )


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


def _rows_of(batch: pa.RecordBatch, names: list[str]) -> list[dict[str, Any]]:
    times = batch.column("event_time")
    if pa.types.is_timestamp(times.type):
        # milliseconds as integers: years beyond 9999 do not fit a datetime
        times = times.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    known = {*names, "created_ms", "schema_version"} - {"event_time"}
    columns = {n: _cells(batch.column(n)) for n in batch.schema.names if n in known}
    columns["event_time_ms"] = _cells(times)
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def _cells(column: pa.Array) -> list[Any]:
    """The cells as Python values; in a type that no field may have, the type itself.

    Some cells of such types (far dates, unknown time zones) have no Python value.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if any(is_kind(kind) for is_kind in _CELL_TYPES):
        cells: list[Any] = column.to_pylist()
        return cells
    return [column.type] * len(column)


_CELL_TYPES = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)


def _int64(column: pa.Array) -> npt.NDArray[np.int64]:
    values: npt.NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return values
