"""JSON events: many at once where each is plainly written, or one to the letter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from connectors.cells import (
    READ_CELL,
    EventLimits,
    RefusedError,
    ids_fit,
    is_integer,
    numbers_fit,
    refuse,
    show,
)
from connectors.packing import Column

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_json(value: bytes) -> dict[str, Any]:
    """One JSON object, read to the letter.

    Raises:
        RefusedError: it is none; the message says why.
    """

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


def plain_object(value: bytes) -> dict[str, Any] | None:
    """A JSON object, read fast; None when it takes `parse_json` to judge.

    A whole number of more than 64 bits comes as a float, so what is refused for the
    type of a cell must be read again.
    """
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def event_time(found: Mapping[str, Any]) -> int:
    """The event time of one object, in milliseconds.

    Raises:
        RefusedError: it has none, or none that can be read.
    """
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


def plain_cells(
    objects: Sequence[dict[str, Any] | None],
    columns: Mapping[str, str],
    *,
    version: int,
    limits: EventLimits,
    latest_ms: int,
) -> list[Column] | None:
    """The cells of all objects, column by column; None when one is not plainly good.

    Args:
        objects: at least one; None for a value that was no plain object.
        columns: name to kind, as an `EventReader` takes them.
        version: the one schema version known.
        limits: what an event may look like.
        latest_ms: the last event time allowed.

    Returns: event ids, case ids, event times, creation, then the columns.
    """
    found = [one for one in objects if one is not None]
    if not found or len(found) < len(objects):
        return None
    cells = itemgetter("event_id", "case_id", *columns)
    try:
        event_id, case_id, *content = zip(*map(cells, found), strict=True)
        times = _times(found)
        created = _whole([one.get("created_ms") or 0 for one in found])
        versions = [one.get("schema_version", version) for one in found]
        out = [_ids(event_id, limits), _ids(case_id, limits), times, created]
        for (name, kind), values in zip(columns.items(), content, strict=True):
            out.append(_PLAIN[kind](name, values, limits))
    except (KeyError, OverflowError, RefusedError):
        return None
    if any(column is None for column in out) or versions.count(version) < len(found):
        return None
    if times.min() < limits.min_time_ms or times.max() > latest_ms:
        return None
    if created.min() < 0 or created.max() >= 2**62:
        return None
    return out


def _whole(values: Sequence[Any]) -> npt.NDArray[np.int64]:
    if {*map(type, values)} != {int}:
        refuse("not all are whole numbers")
    return np.array(values, dtype=np.int64)


def _times(found: Sequence[dict[str, Any]]) -> npt.NDArray[np.int64]:
    try:
        return _whole([one["event_time_ms"] for one in found])
    except KeyError:
        return np.array([event_time(one) for one in found], dtype=np.int64)


def _ids(values: Sequence[Any], limits: EventLimits) -> pa.Array | None:
    if {*map(type, values)} != {str}:
        return None
    texts = pa.array(values, pa.string())
    return texts if ids_fit(texts, limits, blank=False) else None


def _numbers(name: str, values: Sequence[Any], limits: EventLimits) -> Column | None:
    if not {*map(type, values)} <= {float, int}:
        return None
    numbers = np.array(values, dtype=np.float64)
    return numbers if numbers_fit(name, numbers, limits) else None


def _texts(name: str, values: Sequence[Any], limits: EventLimits) -> Column | None:
    return pa.array(values, pa.string()) if {*map(type, values)} == {str} else None


def _keys(name: str, values: Sequence[Any], limits: EventLimits) -> Column | None:
    kinds = {*map(type, values)}
    if int in kinds and kinds <= {int, str}:
        values = [str(value) for value in values]
    elif kinds != {str}:
        return None
    texts = pa.array(values, pa.string())
    return texts if ids_fit(texts, limits) else None


def _bools(name: str, values: Sequence[Any], limits: EventLimits) -> Column | None:
    if {*map(type, values)} != {bool}:
        return None
    return np.array(values, dtype=np.float64)


def _bytes(name: str, values: Sequence[Any], limits: EventLimits) -> Column | None:
    read = READ_CELL["bytes"]
    return pa.array([read(name, value, limits) for value in values], pa.binary())


_PLAIN = {
    "number": _numbers,
    "string": _texts,
    "id": _keys,
    "bool": _bools,
    "text": _texts,
    "bytes": _bytes,
}
