"""The demo's live view: a panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from connectors.records import MODALITIES
from pipelines.commands.progress import say
from pipelines.demo_watch import Watch

LINE_EVERY_S = 5.0


class View:
    """Shows a watch on stderr until it is left.

    Args:
        watch: what to show.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._live: Live | None = None
        self._told = 0.0

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            console = Console(stderr=True)
            self._live = Live(console=console, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.update(self._panel())
            self._live.__exit__(kind, error, trace)

    def show(self) -> None:
        """Bring the view up to date."""
        if self._live is not None:
            self._live.update(self._panel())
        elif time.monotonic() - self._told > LINE_EVERY_S:
            self._told = time.monotonic()
            say(self._line())

    def _line(self) -> str:
        seen = self._watch.seen
        p50, p99 = self._watch.latency_ms(last=500)
        versions = ", ".join(f"v{v}" for v in seen.versions) or "none yet"
        return (
            f"{self._watch.balance_so_far}, {self._watch.rate:.0f}/s, "
            f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, {len(seen.alert_cases)} alerts, "
            f"models {versions}"
        )

    def _panel(self) -> Group:
        seen = self._watch.seen
        p50, p99 = self._watch.latency_ms(last=500)
        figures = Table.grid(padding=(0, 3))
        figures.add_row("events", self._watch.balance_so_far, _dim("rate"), _rate(self))
        figures.add_row(
            "latency",
            f"p50 {p50:.0f} ms  p99 {p99:.0f} ms",
            _dim("model"),
            _models(seen),
        )
        gates = "  ".join(
            f"{m} {seen.gates[m]:.2f}" for m in MODALITIES if m in seen.gates
        )
        figures.add_row("gates", gates, _dim("memory"), f"{seen.peak_rss_mb:.0f} MB")
        alerts = Table(title="newest alerts", title_justify="left", expand=True)
        for name in ("case", "score", "rev", "model", "why"):
            alerts.add_column(name, no_wrap=name != "why")
        for alert in seen.alerts:
            alerts.add_row(
                alert["case_id"],
                f"{alert['score']:.3f}",
                str(alert["revision"]),
                f"v{alert['model_version']}",
                why(alert["reasons"]),
            )
        dead = [
            Text(f"{d['topic']}@{d['offset']}  {d['reason'][:90]}", style="dim")
            for d in seen.dead
        ]
        return Group(figures, alerts, Text("newest dead letters"), *dead)


def why(reasons: list[dict[str, Any]]) -> str:
    """The reasons of an alert in one line."""
    parts = []
    for reason in reasons:
        value = "" if reason["value"] is None else f" = {reason['value']:g}"
        parts.append(f"{reason['name']}{value} (+{reason['effect']:.1f})")
    return ", ".join(parts)


def _dim(word: str) -> Text:
    return Text(word, style="dim")


def _rate(view: View) -> str:
    return f"{view._watch.rate:.0f} events/s"


def _models(seen: Any) -> str:
    return " -> ".join(f"v{v}" for v in seen.versions) or "none yet"
