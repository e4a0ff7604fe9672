"""Records that cannot be used, through the real jobs."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from connectors.codec import encode_frame
from connectors.demo import DemoWorld, archive_of
from connectors.poison import POISON
from pipelines.operators.read import now_ms
from tests.integration.conftest import Run

pytestmark = pytest.mark.integration


def taskmanagers_mb(run: Run) -> float:
    pids = [p["pid"] for p in run.local.processes() if p["name"].startswith("tm-")]
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20


def send_cases(run: Run, count: int, part: int) -> None:
    world = DemoWorld(3)
    for case in world.live(count, now_ms() - 3_600_000, part=part):
        for event in case.events:
            run.send_event(event)


def send_frames(run: Run, count: int) -> None:
    """So many cases, each modality as one frame: encoders get their largest calls."""
    archive = archive_of(DemoWorld(3).live(count, now_ms() - 3_600_000, part=3))
    for modality, table in archive.tables.items():
        [batch] = table.combine_chunks().to_batches()
        run.send(f"events.{modality}", encode_frame(batch))
        run.sent += table.num_rows - 1


def test_every_kind_of_poison_is_set_aside_and_the_jobs_go_on(run: Run) -> None:
    rng = np.random.default_rng(1)
    send_cases(run, 150, part=1)
    send_frames(run, 200)
    for _ in range(4):  # to warm up: libraries load, the Java heaps reach their size
        for make in POISON.values():
            run.send(*make(rng))
        run.await_all()
    warm_mb = taskmanagers_mb(run)

    for _ in range(3):
        for make in POISON.values():
            run.send(*make(rng))
    send_cases(run, 50, part=2)
    run.await_all()

    balance = run.ledger.balance(run.sent)
    assert len(POISON) >= 25
    assert balance.dead_lettered == 7 * len(POISON)
    assert (balance.lost, balance.duplicated) == (0, 0)
    assert run.restarts == 0
    letters = run.ledger.dead_letters()
    assert all(letter["reason"] for letter in letters)
    places = {(x["topic"], x["partition"], x["offset"]) for x in letters}
    assert len(places) == 7 * len(POISON)
    grown_mb = taskmanagers_mb(run) - warm_mb
    print(f"memory of the nodes: {warm_mb:.0f} MB, then {grown_mb:+.0f} MB")
    assert grown_mb < 200


def test_a_dead_letter_holds_the_bytes_that_were_sent(run: Run) -> None:
    sent = [b"no json", b'{"event_id": "a"}', b"\xff\xfe", b"SLF\x09rest"]
    for value in sent:
        run.send("events.tabular", value)
    run.await_all()
    assert sorted(x["value"] for x in run.ledger.dead_letters()) == sorted(sent)
