"""One field of an event: what it may hold, from JSON or from an Arrow column."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True, slots=True)
class EventLimits:
    """What an event may look like before anything is decoded.

    Attributes:
        max_value_bytes: largest Kafka value read as an event.
        max_id_chars: longest event_id or case_id.
        min_time_ms: earliest event time (2000-01-01); older is a broken clock.
        max_ahead_ms: how far event time may run ahead of this machine's clock.
        max_number: largest magnitude of a tabular number.
    """

    max_value_bytes: int = 16 * 1024 * 1024
    max_id_chars: int = 256
    min_time_ms: int = 946_684_800_000
    max_ahead_ms: int = 86_400_000
    max_number: float = 1e12


class RefusedError(Exception):
    """One event cannot be used; carries what is known of it."""

    def __init__(self, reason: str, *, kind: str = "unreadable") -> None:
        super().__init__(reason)
        self.kind = kind


def refuse(reason: str, *, kind: str = "unreadable") -> NoReturn:
    """Stop reading this event, for the given reason."""
    raise RefusedError(reason, kind=kind)


def is_integer(value: object) -> bool:
    """Whether `value` is a whole number (booleans are not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def show(value: object) -> str:
    """`value` with its type, short enough for a message."""
    kind = type(value).__name__
    try:
        text = repr(value)
    except ValueError:  # an integer too long to print
        text = "too long to show"
    return f"{kind} {text[:60]}"


def encodable(name: str, text: str) -> str:
    """`text` itself when it can be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        refuse(f"{name}: text holds half a surrogate pair, which is no character")
    return text


def _number(name: str, value: object, limits: EventLimits) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        refuse(f"{name}: expected a number, got {show(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        refuse(f"{name}: {show(value)} is not a finite number")
    if abs(number) > limits.max_number:
        reason = f"{name}: {number:g} is over the limit of {limits.max_number:g}"
        refuse(reason, kind="limits")
    return number


def _text(name: str, value: object, limits: EventLimits) -> str:
    if not isinstance(value, str):
        refuse(f"{name}: expected text, got {show(value)}")
    return encodable(name, value)


def _key(name: str, value: object, limits: EventLimits) -> str:
    text = str(value) if is_integer(value) else _text(name, value, limits)
    if not text or len(text) > limits.max_id_chars:
        refuse(f"{name}: expected 1..{limits.max_id_chars} characters")
    return text


def _bool(name: str, value: object, limits: EventLimits) -> float:
    if not isinstance(value, bool):
        refuse(f"{name}: expected true or false, got {show(value)}")
    return float(value)


def _bytes(name: str, value: object, limits: EventLimits) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        refuse(f"{name}: expected base64 text, got {show(value)}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        refuse(f"{name}: not base64: {error}")


READ_CELL: dict[str, Callable[[str, object, EventLimits], object]] = {
    "number": _number,
    "string": _text,
    "id": _key,
    "bool": _bool,
    "text": _text,
    "bytes": _bytes,
}


def _clean_number(
    column: pa.Array, limits: EventLimits
) -> npt.NDArray[np.float64] | None:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return values if bool((np.abs(values) <= limits.max_number).all()) else None


def _clean_text(
    column: pa.Array, limits: EventLimits
) -> npt.NDArray[np.object_] | None:
    if not pa.types.is_string(column.type):
        return None
    return np.array(column.to_pylist(), dtype=object)


def _clean_key(column: pa.Array, limits: EventLimits) -> npt.NDArray[np.object_] | None:
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if not pa.types.is_string(column.type):
        return None
    chars = pc.min_max(pc.utf8_length(column))
    if not 0 < chars["min"].as_py() <= chars["max"].as_py() <= limits.max_id_chars:
        return None
    return np.array(column.to_pylist(), dtype=object)


def _clean_bool(
    column: pa.Array, limits: EventLimits
) -> npt.NDArray[np.float64] | None:
    if not pa.types.is_boolean(column.type):
        return None
    return np.array(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _clean_bytes(
    column: pa.Array, limits: EventLimits
) -> npt.NDArray[np.object_] | None:
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return None
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values


CLEAN_COLUMN: dict[str, Callable[[pa.Array, EventLimits], npt.NDArray[Any] | None]] = {
    "number": _clean_number,
    "string": _clean_text,
    "id": _clean_key,
    "bool": _clean_bool,
    "text": _clean_text,
    "bytes": _clean_bytes,
}
