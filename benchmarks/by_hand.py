"""The loop a user would write by hand: deques per entity, plain Python, one model call.

It computes the fourteen features exactly, one event after the other. It has no
recovery: what it knows is lost with its process, and it says nothing of bad input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.payments import DAY_MS, LABEL_DELAY_MS

WINDOWS_MS = tuple(days * DAY_MS for days in (1, 7, 30))
_HOUR_MS = 3_600_000
#: 1970-01-01 was a Thursday; Monday is 0.
_FIRST_WEEKDAY = 3


class _Customer:
    """Counts and sums of one customer's payments in each window."""

    __slots__ = ("counts", "rows", "sums")

    def __init__(self) -> None:
        self.rows: list[deque[tuple[int, int]]] = [deque() for _ in WINDOWS_MS]
        self.counts = [0] * len(WINDOWS_MS)
        self.sums = [0] * len(WINDOWS_MS)

    def add(self, at_ms: int, cents: int) -> list[float]:
        """The counts and the means, this payment included."""
        for i, window_ms in enumerate(WINDOWS_MS):
            rows = self.rows[i]
            rows.append((at_ms, cents))
            self.counts[i] += 1
            self.sums[i] += cents
            while rows[0][0] <= at_ms - window_ms:
                self.sums[i] -= rows.popleft()[1]
                self.counts[i] -= 1
        means = [s / c / 100.0 for s, c in zip(self.sums, self.counts, strict=True)]
        return [*self.counts, *means]


class _Terminal:
    """Counts and frauds of one terminal's payments in each window, a week late."""

    __slots__ = ("counts", "frauds", "rows", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, str]] = deque()
        self.rows: list[deque[tuple[int, int]]] = [deque() for _ in WINDOWS_MS]
        self.counts = [0] * len(WINDOWS_MS)
        self.frauds = [0] * len(WINDOWS_MS)

    def add(self, at_ms: int, case_id: str, labels: dict[str, int]) -> list[float]:
        """The counts and the shares of frauds; this payment counts in a week."""
        self.waiting.append((at_ms, case_id))
        until = at_ms - LABEL_DELAY_MS
        while self.waiting[0][0] <= until:
            then_ms, case = self.waiting.popleft()
            fraud = labels.pop(case, 0)
            for i in range(len(WINDOWS_MS)):
                self.rows[i].append((then_ms, fraud))
                self.counts[i] += 1
                self.frauds[i] += fraud
        for i, window_ms in enumerate(WINDOWS_MS):
            rows = self.rows[i]
            while rows and rows[0][0] <= until - window_ms:
                self.frauds[i] -= rows.popleft()[1]
                self.counts[i] -= 1
        shares = [
            f / c if c else 0.0 for f, c in zip(self.frauds, self.counts, strict=True)
        ]
        return [*self.counts, *shares]


class FeaturesByHand:
    """Rows of the features of `payments_task`, in its order.

    Attributes:
        labels: label by case id; read before the event that may count it.
    """

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self._customers: dict[str, _Customer] = {}
        self._terminals: dict[str, _Terminal] = {}

    def rows(self, events: Sequence[Mapping[str, Any]]) -> list[list[float]]:
        """One row of features an event, in the order of arrival."""
        found = []
        for event in events:
            at_ms, amount = event["event_time_ms"], event["amount"]
            customer = self._customers.get(event["customer"])
            if customer is None:
                customer = self._customers[event["customer"]] = _Customer()
            terminal = self._terminals.get(event["terminal"])
            if terminal is None:
                terminal = self._terminals[event["terminal"]] = _Terminal()
            weekend = (at_ms // DAY_MS + _FIRST_WEEKDAY) % 7 >= 5
            night = at_ms // _HOUR_MS % 24 <= 6
            found.append(
                [
                    amount,
                    float(weekend),
                    float(night),
                    *customer.add(at_ms, round(amount * 100)),
                    *terminal.add(at_ms, event["case_id"], self.labels),
                ]
            )
        return found
