"""Whether the broker and the cluster answer, and waiting until they do."""

from __future__ import annotations

import json
import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.keeper import is_kept
from pipelines.stack_record import StackError, read_record, until

READY_DEADLINE_S = 120.0


def broker_answers(bootstrap: str) -> bool:
    """Whether the broker's own metadata lists a live broker (one raw request)."""
    host, port = bootstrap.rsplit(":", 1)
    client = b"sluice"
    head = struct.pack(">hhih", 3, 1, 7, len(client)) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection((host, int(port)), timeout=2) as link:
            link.sendall(struct.pack(">i", len(head)) + head)
            with link.makefile("rb") as reader:
                answer = reader.read(12)
    except OSError:
        return False
    return len(answer) == 12 and struct.unpack(">iii", answer)[2] >= 1


def await_flink(home: Path, url: str, nodes: int) -> None:
    """Wait until exactly `nodes` TaskManagers and their slots are registered.

    Raises:
        StackError: they were not in time.
    """

    def ready() -> bool:
        found = overview(url) or {}
        # a node's slot is known a moment after the node
        return found.get("taskmanagers") == found.get("slots-total") == nodes

    newest = f"tm-{nodes}"
    what = f"Flink with {nodes} TaskManager(s)"
    await_ready(home, ready, newest if overview(url) else "jobmanager", what)


def await_ready(home: Path, ready: Callable[[], bool], log: str, what: str) -> None:
    """Wait until `ready()`; a `StackError` with the end of a log when that fails."""
    seen: dict[str, Any] = {}

    def settled() -> bool:
        seen.update(read_record(home))
        return ready() or _has_ended(home, seen)

    if until(settled, READY_DEADLINE_S) and not _has_ended(home, seen):
        return
    why = str(seen.get("reason") or f"not ready within {READY_DEADLINE_S:.0f} s")
    culprit = why.split()[0]
    if (home / "logs" / f"{culprit}.out").exists():
        log = culprit
    msg = f"start {what}: {why}; logs in {home / 'logs'}\n{tail(home, log)}"
    raise StackError(msg)


def _has_ended(home: Path, seen: dict[str, Any]) -> bool:
    """Whether the keeper was there and is ending or gone."""
    return bool(seen) and (seen["state"] == "ending" or not is_kept(home))


def tail(home: Path, name: str, lines: int = 12) -> str:
    """The last lines a process printed or logged."""
    kept: list[str] = []
    for path in (home / "logs" / f"{name}.log", home / "logs" / f"{name}.out"):
        if path.exists():
            kept += path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(kept[-lines:])


def overview(url: str) -> dict[str, Any] | None:
    """Flink's own count of TaskManagers, slots and jobs; None when it is silent."""
    try:
        with urllib.request.urlopen(f"{url}/overview", timeout=2) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return None
    except (OSError, ValueError):
        return None
    return found
