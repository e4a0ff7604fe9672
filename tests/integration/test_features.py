"""Features as the stream serves them, bit for bit those of `sluice features`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from automl.registry import Registry
from connectors.archive import write_archive
from pipelines import jobs, stack
from pipelines.commands import features as backfill
from pipelines.feature_table import write_features
from pipelines.rescale import rescale
from pipelines.stream import Streamed, stream
from pipelines.train import TrainConfig, train
from tests.integration.payments import payments, payments_task

pytestmark = pytest.mark.integration

EVENTS = 6000
CHECKPOINT_MS = 2000
#: Events per second when something happens in mid-run.
RATE = 250.0


@dataclass(frozen=True, kw_only=True)
class Payments:
    """An archive, a model on its features, and the features of a backfill."""

    archive: Path
    model_folder: Path
    expected: bytes


@pytest.fixture(scope="module")
def made(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Payments:
    folder = tmp_path_factory.mktemp("payments")
    archive = payments(seed=11, events=EVENTS)
    write_archive(folder / "archive", archive)
    config = TrainConfig(align_budget_s=2.0, fusion_budget_s=1.0)
    version = train(archive, payments_task(), "payments", registry, config=config)
    (folder / "task.json").write_text(json.dumps(version.manifest.task))
    args = argparse.Namespace(
        archive=folder / "archive",
        task=folder / "task.json",
        out=folder / "expected.parquet",
        json=True,
    )
    assert backfill.run(args) == 0
    return Payments(
        archive=folder / "archive",
        model_folder=version.folder,
        expected=args.out.read_bytes(),
    )


def check(done: Streamed, made: Payments, file: Path) -> None:
    """Every event decided once, and its features as expected."""
    assert done.served is not None
    write_features(done.served.table, file)
    assert done.served.table.num_rows == EVENTS
    assert (done.balance.decided, done.balance.lost) == (EVENTS, 0)
    assert done.served.differing == 0
    assert done.balance.differing == 0
    assert file.read_bytes() == made.expected


@pytest.mark.parametrize(("nodes", "ready"), [(1, False), (2, False), (2, True)])
def test_the_stream_serves_what_a_backfill_gives(
    local: stack.Stack, made: Payments, tmp_path: Path, ready: bool, nodes: int
) -> None:
    done = stream(
        local, made.archive, made.model_folder, nodes=nodes, ready=ready, features=True
    )
    check(done, made, tmp_path / "served.parquet")
    assert done.restarts == 0
    assert done.served is not None
    assert done.served.repeated == 0


class MidRun:
    """Does something once, some seconds after the jobs run."""

    def __init__(self, after_s: float, what: Callable[[], None]) -> None:
        self._after_s = after_s
        self._what = what
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.errors: list[BaseException] = []

    def hold_up(self, sent: int) -> None:
        """Slow the replay down until it is done, so that events flow meanwhile."""
        if sent > EVENTS / 6 and self._thread.is_alive():
            time.sleep(0.4)

    def say(self, line: str) -> None:
        if line == "encode and score jobs run":
            self._thread.start()

    def check(self) -> None:
        self._thread.join(10.0)
        assert not self._thread.is_alive()
        assert self.errors == []

    def _run(self) -> None:
        time.sleep(self._after_s)
        try:
            self._what()
        except BaseException as error:
            self.errors.append(error)


def test_a_killed_node_changes_no_value(
    local: stack.Stack, made: Payments, tmp_path: Path
) -> None:
    def kill() -> None:
        for name in ("tm-1", "tm-2"):
            pid = next(p["pid"] for p in local.processes() if p["name"] == name)
            os.kill(pid, signal.SIGKILL)
            time.sleep(1.0)

    happens = MidRun(10.0, kill)
    done = stream(
        local,
        made.archive,
        made.model_folder,
        rate=RATE,
        features=True,
        checkpoint_ms=CHECKPOINT_MS,
        stall_s=300.0,
        progress=happens.hold_up,
        say=happens.say,
    )
    happens.check()
    check(done, made, tmp_path / "served.parquet")
    assert done.restarts >= 1
    assert done.served is not None
    assert done.served.repeated > 0


def test_a_rescaled_job_goes_on_with_every_value(
    local: stack.Stack, made: Payments, tmp_path: Path
) -> None:
    prefix = f"rescaled-{os.getpid()}."
    nodes: list[int] = []

    def rescale_twice() -> None:
        for wanted in (2, 1):
            now = stack.find(local.home)
            assert now is not None
            moved = rescale(now, wanted, prefix=prefix)
            assert {one.name for one in moved} == {prefix + n for n in jobs.JOBS}
            nodes.append(wanted)
            time.sleep(3.0)

    happens = MidRun(5.0, rescale_twice)
    done = stream(
        local,
        made.archive,
        made.model_folder,
        rate=RATE,
        features=True,
        prefix=prefix,
        checkpoint_ms=CHECKPOINT_MS,
        stall_s=300.0,
        progress=happens.hold_up,
        say=happens.say,
    )
    happens.check()
    assert nodes == [2, 1]
    check(done, made, tmp_path / "served.parquet")
    # the savepoint is exact: nothing is read twice
    assert (done.balance.duplicated, done.restarts) == (0, 0)
