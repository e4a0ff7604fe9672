"""The figures of a run as a table for people; the same numbers as its JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def table(found: dict[str, Any]) -> str:
    """Lines of what was measured, nothing of what was not."""
    return "\n".join(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['cores']} cores of {found['cpu']}, broker and driver on them too"
    settings = found.get("settings", {})
    shown = [f"{n} {v}" for n, v in settings.items() if n != "versions"]
    yield "settings: " + ", ".join(shown)
    for form in ("frames", "json"):
        if form in found:
            yield from _held(form, found[form])
    for name, run in found.get("latency_ms", {}).items():
        yield f"latency {name:>10}/s   " + _row(run, " ms")
    yield from _loops(found)
    yield from _state(found.get("state", {}))
    yield f"decisions missing: {found['missing']}, took {found['seconds']:.0f} s"


def _held(form: str, run: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{form:<8}{run['events_per_s']:>10,} events/s held for {run['held_s']:.0f} s; "
        f"drained {run['drained_events_per_s']:,}"
    )
    yield (
        f"{'':8}{1e6 * run['cpu_s_per_event']:>10.2f} us of CPU an event: "
        + ", ".join(f"{name} {us:.2f}" for name, us in run["cpu_us_per_event"].items())
    )


def _row(run: dict[str, Any], unit: str) -> str:
    cells = [f"{n} {v}{unit}" for n, v in run.items() if n != "missing"]
    return "  ".join(cells)


def _loops(found: dict[str, Any]) -> Iterator[str]:
    loops = found.get("loops")
    if not loops:
        return
    names = {
        "a": "features and trees alone",
        "b": "by hand, confluent-kafka",
        "c": "by hand, kafka-python",
    }
    for name, what in names.items():
        run = loops[name]
        yield (
            f"loop {name}: {what:<26}{run['events_per_s']:>10,} events/s, "
            f"{run['cpu_us_per_event']} us of CPU an event, {run['events']:,} events"
        )
    alone = loops["kafka_alone"]
    yield f"Kafka alone, frames in and out: {alone['cpu_us_per_event']} us an event"
    yield f"bound on two cores: {found['bound_events_per_s']:,} events/s"
    for name in ("share_of_bound", "json_share_of_loop"):
        if name in found:
            yield f"{name}: {found[name]}"
    yield loops["note"]


def _state(state: dict[str, Any]) -> Iterator[str]:
    for entities, sizes in state.items():
        if entities == "growth":
            grown = {n: v for n, v in sizes.items() if n != "samples"}
            events = sizes["samples"][-1]["events"]
            yield f"state over {events:,} events, once full: " + _row(grown, "")
        else:
            yield "state: " + _row(sizes, "")
