"""A table from 64-bit keys to row numbers, read and filled a batch at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

Keys = npt.NDArray[np.uint64]
RowNumbers = npt.NDArray[np.int64]

_SPREAD = uint64(0x9E3779B97F4A7C15)


class KeyTable:
    """Gives each key a row number, in the order in which the keys came: 0, 1, ...

    It never grows, so no call takes longer than another: who fills it begins a new one.
    Keys are well mixed 64-bit hashes and never 0. Legend: `B` keys.

    Args:
        capacity: how many keys it takes.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        # at most half full; zeros cost no time before they are touched
        slots = 1 << max(1, (2 * capacity - 1).bit_length())
        self._keys = np.zeros(slots, dtype=np.uint64)
        self._rows = np.zeros(slots, dtype=np.int32)

    def find(self, keys: Keys, rows: RowNumbers) -> int:
        """Puts the row numbers of known keys into int64 (B,) `rows`, where it holds -1.

        Other places stay as they are.

        Returns: how many were put.
        """
        return int(_find(self._keys, self._rows, keys, rows)) if self.count else 0

    def add(self, keys: Keys, rows: RowNumbers) -> npt.NDArray[np.bool_]:
        """Gives keys their rows where int64 (B,) `rows` holds -1, in the given order.

        Returns: bool (B,), which keys got a new row; a key that comes twice gets it at
            its first place, and the same at its second.

        Raises:
            OverflowError: there may be no room for so many keys.
        """
        if self.count + len(keys) > self.capacity:
            msg = f"key table of {self.capacity}: {self.count} and {len(keys)} more"
            raise OverflowError(msg)
        fresh = np.zeros(len(keys), dtype=np.bool_)
        self.count = _add(self._keys, self._rows, self.count, keys, rows, fresh)
        return fresh


@njit(cache=True)
def _find(slot_keys, slot_rows, keys, rows):  # type: ignore[no-untyped-def]
    last = uint64(len(slot_keys) - 1)
    found = 0
    for i in range(len(keys)):
        if rows[i] >= 0:
            continue
        key = keys[i]
        at = (key * _SPREAD) >> uint64(20) & last
        while slot_keys[at] != key and slot_keys[at] != uint64(0):
            at = (at + uint64(1)) & last
        if slot_keys[at] == key:
            rows[i] = slot_rows[at]
            found += 1
    return found


@njit(cache=True)
def _add(slot_keys, slot_rows, count, keys, rows, fresh):  # type: ignore[no-untyped-def]
    last = uint64(len(slot_keys) - 1)
    for i in range(len(keys)):
        if rows[i] >= 0:
            continue
        key = keys[i]
        at = (key * _SPREAD) >> uint64(20) & last
        while slot_keys[at] != key and slot_keys[at] != uint64(0):
            at = (at + uint64(1)) & last
        if slot_keys[at] != key:
            slot_keys[at] = key
            slot_rows[at] = count
            fresh[i] = True
            count += 1
        rows[i] = slot_rows[at]
    return count
