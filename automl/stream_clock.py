"""The time a stream has reached, which no single event can move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Events whose median may move the clock.
BLOCK = 256
_UNKNOWN = -(2**62)


class StreamClock:
    """How far event time has come, as a function of the order of arrival alone.

    After every `BLOCK` events the clock moves on to their median event time, and never
    back. So an event far in the future, or a few of them, move nothing for others, a
    gap in the data is passed once events lie behind it, and how events were put into
    frames makes no difference. Legend: `B` rows.
    """

    def __init__(self) -> None:
        self.now_ms = _UNKNOWN
        self._block = np.empty(0, dtype=np.int64)

    def observe(self, times_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Takes event times in order of arrival; gives the clock at each: int64 (B,).

        Before the first `BLOCK` events the clock is far in the past.
        """
        out = np.empty(len(times_ms), dtype=np.int64)
        at = 0
        while at < len(times_ms):
            stop = min(len(times_ms), at + BLOCK - len(self._block))
            out[at:stop] = self.now_ms
            self._block = np.concatenate([self._block, times_ms[at:stop]])
            at = stop
            if len(self._block) == BLOCK:
                median = int(np.partition(self._block, BLOCK // 2)[BLOCK // 2])
                self.now_ms = max(self.now_ms, median)
                self._block = self._block[:0]
        return out

    def to_bytes(self) -> bytes:
        """The clock as `from_bytes` takes it: what a checkpoint keeps."""
        return np.append(self._block, np.int64(self.now_ms)).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, raw: bytes) -> StreamClock:
        """A clock that goes on where `to_bytes` left off."""
        found = cls()
        values = np.frombuffer(raw, dtype="<i8").astype(np.int64)
        found._block, found.now_ms = values[:-1], int(values[-1])
        return found
