"""The keeper with small real processes: it restarts, ends, and outlives nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.keeper import RELEASE, is_kept, write_whole

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)",
]


def until(done: Callable[[], bool], deadline_s: float = 15.0) -> bool:
    end_s = time.monotonic() + deadline_s
    while not done() and time.monotonic() < end_s:
        time.sleep(0.02)
    return done()


def want(home: Path, name: str, argv: list[str], rank: int = 10) -> None:
    spec = {"argv": argv, "env": {"KEPT": name}, "rank": rank}
    write_whole(home / "wanted" / f"{name}.json", json.dumps(spec))


def entries(home: Path) -> dict[str, dict[str, int]]:
    path = home / "stack.json"
    if not path.exists():
        return {}
    return {p["name"]: p for p in json.loads(path.read_text())["processes"]}


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("wanted", "logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "endpoints.json").write_text("{}")
    return tmp_path


@pytest.fixture
def launch(home: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started = []

    def start(*options: str, release: bool = True) -> subprocess.Popen[bytes]:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "pipelines.keeper", str(home), *options],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(keeper)
        if release:
            assert keeper.stdin
            keeper.stdin.write(RELEASE)
            keeper.stdin.close()
        return keeper

    yield start
    for keeper in started:
        keeper.terminate()
        try:
            keeper.wait(15)
        except subprocess.TimeoutExpired:
            keeper.kill()


def test_a_killed_process_comes_back_and_the_restart_is_counted(home, launch):
    want(home, "one", SLEEP)
    launch()
    assert until(lambda: "one" in entries(home))
    first = entries(home)["one"]["pid"]
    os.kill(first, signal.SIGKILL)
    assert until(lambda: entries(home)["one"]["pid"] != first, 3.0)
    assert entries(home)["one"]["restarts"] == 1


def test_a_process_no_longer_wanted_ends_and_a_new_one_starts(home, launch):
    want(home, "one", SLEEP)
    launch()
    assert until(lambda: "one" in entries(home))
    pid = entries(home)["one"]["pid"]
    (home / "wanted" / "one.json").unlink()
    want(home, "two", SLEEP)
    assert until(lambda: list(entries(home)) == ["two"])
    assert not lives(pid)


def test_a_told_end_leaves_nothing_and_frees_the_home(home, launch):
    want(home, "one", SLEEP)
    want(home, "two", SLEEP, rank=20)
    keeper = launch()
    assert until(lambda: len(entries(home)) == 2)
    pids = [entry["pid"] for entry in entries(home).values()]
    assert is_kept(home)
    keeper.terminate()
    assert keeper.wait(10) == 0
    assert not any(lives(pid) for pid in pids)
    assert not is_kept(home)
    assert entries(home) == {}


def test_a_process_deaf_to_sigterm_is_killed(home, launch, monkeypatch):
    want(home, "deaf", STUBBORN)
    keeper = launch()
    assert until(lambda: "deaf" in entries(home))
    pid = entries(home)["deaf"]["pid"]
    time.sleep(0.3)
    keeper.terminate()
    assert keeper.wait(15) == 0
    assert not lives(pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses prctl")
def test_the_kernel_ends_the_processes_of_a_killed_keeper(home, launch):
    want(home, "deaf", STUBBORN)
    keeper = launch()
    assert until(lambda: "deaf" in entries(home))
    pid = entries(home)["deaf"]["pid"]
    keeper.kill()
    assert until(lambda: not lives(pid), 3.0)
    assert not is_kept(home)


def test_a_starter_that_dies_before_it_is_ready_takes_all_along(home, launch):
    want(home, "one", SLEEP)
    keeper = launch(release=False)
    assert until(lambda: "one" in entries(home))
    pid = entries(home)["one"]["pid"]
    keeper.stdin.close()
    assert keeper.wait(10) == 0
    assert not lives(pid)


def test_the_end_of_the_owner_is_the_end_of_the_stack(home, launch):
    with subprocess.Popen(SLEEP) as owner:
        want(home, "one", SLEEP)
        keeper = launch("--owner-pid", str(owner.pid))
        assert until(lambda: "one" in entries(home))
        pid = entries(home)["one"]["pid"]
        owner.kill()
    assert keeper.wait(10) == 0
    assert not lives(pid)


def test_a_process_that_cannot_live_ends_the_stack_with_its_name(home, launch):
    want(home, "broken", [sys.executable, "-c", "raise SystemExit(3)"])
    keeper = launch()
    assert keeper.wait(20) == 1
    reason = json.loads((home / "stack.json").read_text())["reason"]
    assert reason == "broken ended 5 times right after its start"


def test_a_second_keeper_of_the_same_home_is_refused(home, launch):
    want(home, "one", SLEEP)
    launch()
    assert until(lambda: "one" in entries(home))
    assert launch().wait(10) == 2
    assert lives(entries(home)["one"]["pid"])
