"""A killed TaskManager: everything goes on and nothing is lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from connectors.demo import DemoCases, DemoWorld
from pipelines.operators.read import now_ms
from tests.integration.conftest import Run

pytestmark = pytest.mark.integration


def cases() -> DemoCases:
    return DemoWorld(3).live(220, now_ms() - 36_000_000, part=7)


def send_slowly(run: Run, found: DemoCases, *, kill: str | None) -> float | None:
    """Send the cases in about 10 s; kill -9 one node half way."""
    killed_at = None
    for number, case in enumerate(found):
        if kill and number == len(found) // 2:
            pid = next(p["pid"] for p in run.local.processes() if p["name"] == kill)
            os.kill(pid, signal.SIGKILL)
            killed_at = time.monotonic()
        for event in case.events:
            run.send_event(event)
        run.decisions += run.ledger.poll(timeout_ms=20)[0]
    return killed_at


def expected(found: DemoCases) -> set[tuple[str, int]]:
    """Every landed event makes one revision, so the set is known beforehand."""
    return {(c.case_id, r) for c in found for r in range(len(c.events))}


@pytest.mark.parametrize("node", ["tm-1", "tm-2"])
def test_kill_9_of_a_node_changes_no_set_of_revisions(run: Run, node: str) -> None:
    found = cases()
    killed_at = send_slowly(run, found, kill=node)
    assert killed_at is not None
    run.await_all(timeout_s=60 - (time.monotonic() - killed_at))

    balance = run.ledger.balance(run.sent)
    assert (balance.lost, balance.dead_lettered) == (0, 0)
    assert not run.ledger.differing_columns
    assert {(d["case_id"], d["revision"]) for d in run.decisions} == expected(found)
    assert run.restarts >= 1
