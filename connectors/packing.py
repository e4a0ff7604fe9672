"""Arrays and texts as one run of bytes: cheap to pickle, and read back in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: A column of B cells: numbers in numpy, texts and bytes in Arrow, none of them null.
Column: TypeAlias = npt.NDArray[Any] | pa.Array
#: Of each column: how its cells look, how many there are, and how wide a row is; of
#: texts the number of bytes instead.
Layout = tuple[tuple[str, int, int], ...]

_TEXT, _BYTES = "text", "bytes"
_ARROW = {_TEXT: pa.string(), _BYTES: pa.binary()}
_PADS = [b"\0" * n for n in range(8)]


def pack(columns: Sequence[Column]) -> tuple[Layout, bytes]:
    """The columns as bytes, each at a multiple of eight, and how to read them again."""
    layout: list[tuple[str, int, int]] = []
    pieces: list[Any] = []
    for column in columns:
        if isinstance(column, np.ndarray):
            width = column.shape[1] if column.ndim > 1 else -1
            layout.append((column.dtype.char, len(column), width))
            pieces += _padded(np.ascontiguousarray(column), column.nbytes)
        else:
            kind = _TEXT if pa.types.is_string(column.type) else _BYTES
            offsets, data = _text(column)
            layout.append((kind, len(column), len(data)))
            pieces += _padded(offsets, offsets.nbytes)
            pieces += _padded(data, len(data))
    return tuple(layout), b"".join(pieces)


def unpack(layout: Layout, packed: bytes) -> Iterator[Column]:
    """The columns again: they share one piece of memory, and may be written to."""
    memory = bytearray(packed)
    buffer = pa.py_buffer(memory)
    at = 0
    for kind, count, width in layout:
        if kind in _ARROW:
            offset_bytes = 4 * (count + 1)
            offsets = buffer.slice(at, offset_bytes)
            at += offset_bytes + -offset_bytes % 8
            data = buffer.slice(at, width)
            at += width + -width % 8
            yield pa.Array.from_buffers(_ARROW[kind], count, [None, offsets, data])
            continue
        cells = count if width < 0 else count * width
        column = np.frombuffer(memory, dtype=kind, count=cells, offset=at)
        at += column.nbytes + -column.nbytes % 8
        yield column if width < 0 else column.reshape(count, width)


def _padded(piece: Any, size: int) -> list[Any]:
    return [piece, _PADS[-size % 8]] if size % 8 else [piece]


def _text(column: pa.Array) -> tuple[npt.NDArray[np.int32], memoryview]:
    """Offsets that begin at 0, and the bytes they point into."""
    if not len(column):
        return np.zeros(1, dtype=np.int32), memoryview(b"")
    _, offsets, data = column.buffers()
    at = np.frombuffer(offsets, np.int32, len(column) + 1, 4 * column.offset)
    start, stop = int(at[0]), int(at[-1])
    if start:
        at = at - np.int32(start)
    return at, memoryview(b"" if data is None else data)[start:stop]
