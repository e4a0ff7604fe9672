"""One field of an event: what it may hold, from JSON or from an Arrow column."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectors.packing import Column


@dataclass(frozen=True, kw_only=True, slots=True)
class EventLimits:
    """What an event may look like before anything is decoded.

    Attributes:
        max_value_bytes: largest Kafka value read as an event.
        max_id_chars: longest event_id or case_id.
        min_time_ms: earliest event time (2000-01-01); older is a broken clock.
        max_ahead_ms: how far event time may run ahead of this machine's clock.
        max_number: largest magnitude of a tabular number.
        numbers: least and greatest value of the numbers of a column, by its name.
    """

    max_value_bytes: int = 16 * 1024 * 1024
    max_id_chars: int = 256
    min_time_ms: int = 946_684_800_000
    max_ahead_ms: int = 86_400_000
    max_number: float = 1e12
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def bounds(self, name: str) -> tuple[float, float]:
        """Least and greatest value of a column of numbers."""
        least, most = self.numbers.get(name, (-self.max_number, self.max_number))
        return max(least, -self.max_number), min(most, self.max_number)


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
    least, most = limits.bounds(name)
    if not least <= number <= most:
        side, limit = ("over", most) if number > most else ("under", least)
        reason = f"{name}: {number:.12g} is {side} the limit of {limit:.12g}"
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


def as_texts(column: pa.Array) -> pa.Array | None:
    """A column of texts as one of type string, or None when it holds no texts."""
    if pa.types.is_large_string(column.type):
        return column.cast(pa.string())
    return column if pa.types.is_string(column.type) else None


def _clean_number(
    name: str, column: pa.Array, limits: EventLimits
) -> npt.NDArray[np.float64] | None:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return values if numbers_fit(name, values, limits) else None


def numbers_fit(
    name: str, values: npt.NDArray[np.float64], limits: EventLimits
) -> bool:
    """Whether all numbers of a column, at least one, are finite and in its limits."""
    least, most = limits.bounds(name)
    # a NaN is the least and the greatest of all, and compares as false
    return bool(
        np.minimum.reduce(values) >= least and np.maximum.reduce(values) <= most
    )


def _clean_text(name: str, column: pa.Array, limits: EventLimits) -> pa.Array | None:
    return as_texts(column)


def _clean_key(name: str, column: pa.Array, limits: EventLimits) -> pa.Array | None:
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    texts = as_texts(column)
    return texts if texts is not None and ids_fit(texts, limits) else None


def ids_fit(texts: pa.Array, limits: EventLimits, *, blank: bool = True) -> bool:
    """Whether all ids, at least one, are there and not too long.

    Args:
        texts: of type string, none missing.
        limits: say how long.
        blank: whether an id may be of spaces alone.
    """
    at = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, 4 * texts.offset)
    sizes = at[1:] - at[:-1]
    if np.minimum.reduce(sizes) < 1:
        return False
    # a character is a byte or more: few bytes are few characters
    longest = np.maximum.reduce(sizes)
    if longest > limits.max_id_chars:
        longest = pc.max(pc.utf8_length(texts)).as_py()
    if longest > limits.max_id_chars:
        return False
    return blank or _starts_visible(texts, at) or not _any_blank(texts)


#: The first and the last character of one byte that is seen.
_VISIBLE = np.array([ord("!"), ord("~")], dtype=np.uint8)


def _starts_visible(texts: pa.Array, at: npt.NDArray[np.int32]) -> bool:
    """Whether every text begins with a character that is seen, of one byte."""
    first = np.frombuffer(texts.buffers()[2], np.uint8)[at[:-1]]
    # unsigned: what is less than the first of them comes out large
    return bool(np.maximum.reduce(first - _VISIBLE[0]) <= _VISIBLE[1] - _VISIBLE[0])


def _any_blank(texts: pa.Array) -> bool:
    return not all(text.strip() for text in texts.to_pylist())


def _clean_bool(
    name: str, column: pa.Array, limits: EventLimits
) -> npt.NDArray[np.float64] | None:
    if not pa.types.is_boolean(column.type):
        return None
    return np.array(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _clean_bytes(name: str, column: pa.Array, limits: EventLimits) -> pa.Array | None:
    if pa.types.is_large_binary(column.type):
        return column.cast(pa.binary())
    return column if pa.types.is_binary(column.type) else None


#: A column that holds no null, or None when a cell of it has to be looked at alone.
CLEAN_COLUMN: dict[str, Callable[[str, pa.Array, EventLimits], Column | None]] = {
    "number": _clean_number,
    "string": _clean_text,
    "id": _clean_key,
    "bool": _clean_bool,
    "text": _clean_text,
    "bytes": _clean_bytes,
}
