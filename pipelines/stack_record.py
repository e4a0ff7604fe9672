"""What a home's `stack.json` says, and whether the processes it names still live."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

POLL_S = 0.1


class StackError(Exception):
    """The stack cannot start, or is not there; the message says what to do next."""


def read_record(home: Path) -> dict[str, Any]:
    """The keeper's last words on `home`; empty when it left none."""
    try:
        text = (home / "stack.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    found: dict[str, Any] = json.loads(text)
    return found


def sweep(home: Path) -> None:
    """End what a killed keeper may have left (only where the kernel did not)."""
    left = read_record(home).get("processes", [])
    for entry in left:
        end(entry, signal.SIGKILL)
    gone = until(lambda: not any(is_alive(entry) for entry in left), 10.0)
    if not gone:
        pids = [entry["pid"] for entry in left if is_alive(entry)]
        msg = f"stop: still running: {pids}; end them by pid"
        raise StackError(msg)


def is_alive(entry: dict[str, Any]) -> bool:
    """Whether the very process of this entry runs (its number may be reused)."""
    try:
        process = psutil.Process(entry["pid"])
        same = abs(process.create_time() - entry["created"]) < 0.5
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(entry: dict[str, Any], number: signal.Signals) -> None:
    """Signal the process of this entry, if it still runs."""
    if is_alive(entry):
        os.kill(entry["pid"], number)


#: In the command line of a process that decodes.
DECODES = "pipelines.decode_child"


def with_memory(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with `rss_mb`, 0 when the process is gone, and `decode_mb`.

    The latter is of the processes that decode for a node that encodes.
    """
    decode = 0
    try:
        process = psutil.Process(entry["pid"])
        rss = process.memory_info().rss
        for child in process.children(recursive=True):
            if DECODES in child.cmdline():
                decode += child.memory_info().rss
    except psutil.NoSuchProcess:
        rss = 0
    return {**entry, "rss_mb": round(rss / 1e6), "decode_mb": round(decode / 1e6)}


def until(done: Callable[[], bool], deadline_s: float) -> bool:
    """Poll until `done()`; False when it was not within `deadline_s`."""
    end_s = time.monotonic() + deadline_s
    while not done():
        if time.monotonic() > end_s:
            return False
        time.sleep(POLL_S)
    return True
