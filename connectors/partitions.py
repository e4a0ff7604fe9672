"""Which partition Kafka's producers choose for a key, for many keys at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_SEED, _MIX, _SHIFT = np.uint32(0x9747B28C), np.uint32(0x5BD1E995), np.uint32(24)


def partitions_of(keys: list[str], partitions: int) -> npt.NDArray[np.int64]:
    """The partition (B,) of each key: murmur2 of its UTF-8 bytes, as clients agreed.

    >>> partitions_of(["a", "b", "card"], 5).tolist()
    [4, 1, 2]
    """
    raw = [key.encode() for key in keys]
    sizes = np.fromiter(map(len, raw), dtype=np.int64, count=len(raw))
    if not len(sizes):
        return sizes
    width = (int(sizes.max()) // 4 + 1) * 4
    padded = b"".join(one.ljust(width, b"\0") for one in raw)
    words = np.frombuffer(padded, dtype="<u4").reshape(len(raw), width // 4)
    found = _SEED ^ sizes.astype(np.uint32)
    for at in range(width // 4):
        word = words[:, at] * _MIX
        word = (word ^ (word >> _SHIFT)) * _MIX
        found = np.where(sizes // 4 > at, (found * _MIX) ^ word, found)
    rest = words[np.arange(len(raw)), sizes // 4]
    found = np.where(sizes % 4 > 0, (found ^ rest) * _MIX, found)
    found = (found ^ (found >> np.uint32(13))) * _MIX
    found ^= found >> np.uint32(15)
    return (found & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions
