"""How long payloads wait for others to be encoded with them."""

from __future__ import annotations

#: Share of the newest gap in the mean of gaps.
NEWEST = 0.25


class Pace:
    """Whether another payload is likely to come within the longest wait.

    Where they come further apart than that, one that waits gains nothing by it.

    Args:
        most_ms: longest wait.

    Example:
        >>> pace = Pace(20)
        >>> pace.arrived(1000), pace.arrived(1010)
        (20, 20)
        >>> [pace.arrived(1010 + 500 * n) for n in (1, 2, 3)]
        [20, 0, 0]
    """

    def __init__(self, most_ms: int) -> None:
        self._most_ms = most_ms
        self._last_ms: int | None = None
        self._gap_ms = 0.0

    def arrived(self, now_ms: int) -> int:
        """Take note of an arrival; gives how many milliseconds it may wait."""
        if self._last_ms is not None:
            gap = min(max(0, now_ms - self._last_ms), 3 * self._most_ms)
            self._gap_ms += NEWEST * (gap - self._gap_ms)
        self._last_ms = now_ms
        return self._most_ms if self._gap_ms <= self._most_ms else 0
