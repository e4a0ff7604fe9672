"""Ids and texts as 64-bit keys: what windows compare instead of texts.

Two different texts share a key with probability 2**-64; among a million of them that
is less than one in ten million. The same text gives the same key in every process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit, uint64

Keys = npt.NDArray[np.uint64]

_PRIME = uint64(0x9E3779B97F4A7C15)
_MIX = uint64(0xFF51AFD7ED558CCD)
_MIX2 = uint64(0xC4CEB9FE1A85EC53)
#: No text has this key: it stands for a text that is missing.
MISSING = np.uint64(0)


def text_keys(texts: pa.Array | pa.ChunkedArray, seed: int = 0) -> Keys:
    """Gives uint64 (B,), one key for each text; `MISSING` where there is none.

    Integers are compared as text: 5 and "5" have one key.

    Args:
        texts: B texts or integers.
        seed: of 64 bits; every seed gives other keys.

    Raises:
        TypeError: neither texts nor integers.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    if pa.types.is_integer(texts.type) or pa.types.is_large_string(texts.type):
        texts = pc.cast(texts, pa.string())
    if not pa.types.is_string(texts.type):
        msg = f"keys of {texts.type}: expected texts or integers"
        raise TypeError(msg)
    _, offsets, text = texts.buffers()
    keys = np.empty(len(texts), dtype=np.uint64)
    if len(texts):
        at = np.frombuffer(offsets, dtype=np.int32)[texts.offset :]
        raw = np.frombuffer(text, np.uint8) if text else np.empty(0, np.uint8)
        _hash_texts(raw, at, np.uint64(seed), keys)
    if texts.null_count:
        keys[np.asarray(pc.is_null(texts))] = MISSING
    return keys


def key_of(text: Any) -> np.uint64:
    """Gives the key of one text or integer."""
    key: np.uint64 = text_keys(pa.array([str(text)], pa.string()))[0]
    return key


def groups(
    keys: Keys, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Gives positions of keys by `key % count`, in order, and where each group starts.

    Group g is `positions[starts[g] : starts[g + 1]]`.
    """
    positions = np.empty(len(keys), dtype=np.int64)
    starts = np.zeros(count + 1, dtype=np.int64)
    _group(keys, np.uint64(count), positions, starts)
    return positions, starts


@njit(cache=True)
def _group(keys, count, positions, starts):  # type: ignore[no-untyped-def]
    for key in keys:
        starts[key % count + uint64(1)] += 1
    for group in range(1, len(starts)):
        starts[group] += starts[group - 1]
    at = starts.copy()
    for i in range(len(keys)):
        group = keys[i] % count
        positions[at[group]] = i
        at[group] += 1


@njit(cache=True)
def _hash_texts(raw, at, seed, keys):  # type: ignore[no-untyped-def]
    """Eight bytes at a time: multiply, rotate, and mix well at the end."""
    for i in range(len(keys)):
        start, stop = at[i], at[i + 1]
        found = (uint64(stop - start) * _PRIME) ^ seed
        word = uint64(0)
        shift = uint64(0)
        for j in range(start, stop):
            word |= uint64(raw[j]) << shift
            shift += uint64(8)
            if shift == uint64(64):
                found = _round(found, word)
                word = uint64(0)
                shift = uint64(0)
        found = _round(found, word)
        found ^= found >> uint64(33)
        found *= _MIX
        found ^= found >> uint64(33)
        found *= _MIX2
        found ^= found >> uint64(33)
        keys[i] = found if found != uint64(0) else uint64(1)


@njit(cache=True, inline="always")
def _round(found, word):  # type: ignore[no-untyped-def]
    found ^= word
    found *= _MIX
    found = (found << uint64(27)) | (found >> uint64(37))
    return found * uint64(5) + _PRIME
