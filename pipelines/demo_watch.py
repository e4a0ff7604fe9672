"""What the demo sees come back: latency, gates, alerts, model versions, memory."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipelines.account import Ledger
from pipelines.operators.read import now_ms

RATE_WINDOW_S = 5.0


@dataclass(slots=True)
class Watched:
    """Figures gathered while decisions come back.

    Attributes:
        latencies_ms: created to read back, first decisions of tabular events.
        versions: model versions in the order they were first seen.
        alerts: the newest alerts, with their reasons.
        alert_cases: cases that were alerted.
        gates: mean gate by modality of recent decisions where it was present.
        last: newest decision by case: (revision, score).
        dead: the newest dead letters.
        first_alert_s: seconds from the start to the first alert.
        peak_rss_mb: most memory all processes held together.
    """

    latencies_ms: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    alerts: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=6))
    alert_cases: set[str] = field(default_factory=set)
    gates: dict[str, float] = field(default_factory=dict)
    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    dead: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=3))
    first_alert_s: float | None = None
    peak_rss_mb: float = 0.0


class Watch:
    """Follows one demo run.

    Args:
        ledger: the account of the run.
        home: of the stack whose processes are weighed.
        began: `time.monotonic()` of the start.
    """

    def __init__(self, ledger: Ledger, home: Path, began: float) -> None:
        self._ledger = ledger
        self._home = home
        self._began = began
        self._recent: deque[tuple[float, int]] = deque()
        self._weighed = 0.0
        self.seen = Watched()

    def poll(self) -> None:
        """Take in what has come back since the last call."""
        decisions, dead = self._ledger.poll(timeout_ms=50)
        now, clock_ms = time.monotonic(), now_ms()
        for row in decisions:
            self._take(row, now, clock_ms)
        self.seen.dead.extend(dead)
        self._recent.append((now, len(decisions) + len(dead)))
        while self._recent and self._recent[0][0] < now - RATE_WINDOW_S:
            self._recent.popleft()
        if now - self._weighed > 1.0:
            self._weighed = now
            self.seen.peak_rss_mb = max(self.seen.peak_rss_mb, rss_mb(self._home))

    def _take(self, row: dict[str, Any], now: float, clock_ms: int) -> None:
        seen = self.seen
        if row["modality"] == "tabular" and row["created_ms"]:
            seen.latencies_ms.append(clock_ms - row["created_ms"])
        if row["model_version"] not in seen.versions:
            seen.versions.append(row["model_version"])
        if row["revision"] >= seen.last.get(row["case_id"], (-1, 0.0))[0]:
            seen.last[row["case_id"]] = (row["revision"], row["score"])
        for modality in row["modalities"]:
            gate = row[f"gate_{modality}"]
            old = seen.gates.get(modality, gate)
            seen.gates[modality] = 0.98 * old + 0.02 * gate
        if row["alert"] and row["case_id"] not in seen.alert_cases:
            seen.alert_cases.add(row["case_id"])
            seen.alerts.append({**row, "reasons": json.loads(row["reasons"])})
            if seen.first_alert_s is None:
                seen.first_alert_s = now - self._began

    @property
    def rate(self) -> float:
        """Events per second that found their outcome lately."""
        return sum(count for _, count in self._recent) / RATE_WINDOW_S

    def latency_ms(self, *, last: int | None = None) -> tuple[float, float]:
        """p50 and p99 of tabular decisions, of the newest `last` or of all."""
        found = self.seen.latencies_ms[-last:] if last else self.seen.latencies_ms
        if not found:
            return float("nan"), float("nan")
        p50, p99 = np.percentile(found, [50, 99])
        return float(p50), float(p99)

    @property
    def balance_so_far(self) -> str:
        """Events with an outcome so far."""
        return f"{self._ledger.accounted} events accounted for"

    def scores(self, labels: dict[str, int]) -> tuple[list[int], list[float]]:
        """Labels and last scores of the cases that have both."""
        both = [case for case in self.seen.last if case in labels]
        return [labels[c] for c in both], [self.seen.last[c][1] for c in both]


def rss_mb(home: Path) -> float:
    """Resident memory of this process, the stack's keeper and all they started."""
    from pipelines import stack

    roots = [psutil.Process()]
    local = stack.find(home)
    if local is not None and psutil.pid_exists(local.keeper_pid):
        roots.append(psutil.Process(local.keeper_pid))
    total = 0
    for root in {p.pid: p for r in roots for p in _family(r)}.values():
        try:
            total += root.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it ended between the two looks
    return total / 2**20


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
