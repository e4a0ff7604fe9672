"""A small detached process that holds the stack's processes and outlives none of them.

It reads what should run from `HOME/wanted/NAME.json` (argv, env, rank), starts what is
missing, restarts what died, ends what is no longer wanted, and writes what it holds to
`HOME/stack.json`. On Linux the kernel ends its children when it dies, however it dies.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

TICK_S = 0.2
RESTART_DELAY_S = 0.5
SHORT_LIFE_S = 5.0
SHORT_LIVES_ALLOWED = 5
TERM_WAIT_S = 8.0
RELEASE = b"keep\n"
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(slots=True)
class Child:
    """One wanted process and its present life."""

    name: str
    spec: dict[str, Any]
    process: subprocess.Popen[bytes]
    started_s: float
    restarts: int = 0
    short_lives: int = 0
    died_s: float | None = None

    def entry(self) -> dict[str, Any]:
        """What `stack.json` tells about this process."""
        return {
            "name": self.name,
            "pid": self.process.pid,
            "created": _created(self.process.pid),
            "restarts": self.restarts,
        }


class Keeper:
    """Keeps `HOME/wanted` and the running processes equal until told to end."""

    def __init__(self, home: Path, owner_pid: int | None) -> None:
        self.home = home
        self.children: dict[str, Child] = {}
        self.ending: str | None = None
        self.failed = False
        self._owner = psutil.Process(owner_pid) if owner_pid else None
        self._starter_holds = True
        self._written = ""

    def run(self) -> int:
        """Keep until told to end; 1 when a child will not live, else 0."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            while self.ending is None:
                self._reconcile()
                self._write_state()
                self._wait()
                self._check_owner()
        finally:
            self._end_all()
        return 1 if self.failed else 0

    def _on_signal(self, number: int, _frame: object) -> None:
        self.ending = f"signal {number}"

    def _wait(self) -> None:
        """One tick; ends the stack when its starter went away before it was ready."""
        if not self._starter_holds:
            time.sleep(TICK_S)
        elif select.select([0], [], [], TICK_S)[0]:
            if os.read(0, len(RELEASE)) != RELEASE:
                self.ending = "the starting command ended before the stack was ready"
            self._starter_holds = False

    def _check_owner(self) -> None:
        owner = self._owner
        if owner is None or self.ending:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            if owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE:
                return
        self.ending = f"owner {owner.pid} ended"

    def _reconcile(self) -> None:
        wanted = {p.stem: p for p in (self.home / "wanted").glob("*.json")}
        gone = [child for name, child in self.children.items() if name not in wanted]
        if gone:
            end_processes(gone)
            for child in gone:
                del self.children[child.name]
        for name, path in sorted(wanted.items()):
            if name not in self.children:
                spec = json.loads(path.read_text(encoding="utf-8"))
                self.children[name] = self._launch(name, spec)
            elif self.children[name].process.poll() is not None:
                self._revive(self.children[name])

    def _revive(self, child: Child) -> None:
        now_s = time.monotonic()
        if child.died_s is None:
            child.died_s = now_s
            _signal_group(child, signal.SIGKILL)
            lived_s = now_s - child.started_s
            child.short_lives = child.short_lives + 1 if lived_s < SHORT_LIFE_S else 0
            print(f"{child.name} ended with {child.process.returncode}", flush=True)
        if child.short_lives >= SHORT_LIVES_ALLOWED:
            self.failed = True
            self.ending = (
                f"{child.name} ended {child.short_lives} times right after its start"
            )
        elif now_s - child.died_s >= RESTART_DELAY_S:
            fresh = self._launch(child.name, child.spec)
            fresh.restarts, fresh.short_lives = child.restarts + 1, child.short_lives
            self.children[child.name] = fresh

    def _launch(self, name: str, spec: dict[str, Any]) -> Child:
        log = self.home / "logs" / f"{name}.out"
        with log.open("ab") as output:
            process = subprocess.Popen(
                spec["argv"],
                env={**os.environ, **spec["env"]},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        return Child(name, spec, process, time.monotonic())

    def _write_state(self) -> None:
        children = [self.children[name].entry() for name in sorted(self.children)]
        state = json.loads((self.home / "endpoints.json").read_text(encoding="utf-8"))
        state |= {
            "keeper": {"pid": os.getpid(), "created": _created(os.getpid())},
            "state": "ending" if self.ending else "up",
            "reason": self.ending,
            "processes": children,
        }
        text = json.dumps(state, indent=2)
        if text != self._written:
            write_whole(self.home / "stack.json", text)
            self._written = text

    def _end_all(self) -> None:
        print(f"ending: {self.ending}", flush=True)
        self._write_state()
        ranks = sorted({c.spec["rank"] for c in self.children.values()}, reverse=True)
        for rank in ranks:
            end_processes([c for c in self.children.values() if c.spec["rank"] == rank])
        if not self.failed:
            (self.home / "stack.json").unlink(missing_ok=True)


def end_processes(children: list[Child]) -> None:
    """Ask all of them to end, then make those that have not within a few seconds."""
    for child in children:
        _signal_group(child, signal.SIGTERM)
    deadline_s = time.monotonic() + TERM_WAIT_S
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline_s - time.monotonic()))
    for child in children:
        _signal_group(child, signal.SIGKILL)
        child.process.wait()


def _signal_group(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, number)


def _created(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def die_with_parent() -> Callable[[], None]:
    """A `preexec_fn` that ties the child's life to this process (Linux only)."""
    return functools.partial(tie_to, os.getpid())


def tie_to(parent_pid: int) -> None:
    """End this process when its parent does, kill -9 included (Linux only)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def write_whole(path: Path, text: str) -> None:
    """Write so that a reader sees the old text or the new, never a part."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


@contextlib.contextmanager
def hold_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold an exclusive lock on `path` for the block; yields whether it was got."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def is_kept(home: Path) -> bool:
    """Whether a keeper holds this home now (its lock cannot outlive it)."""
    if not (home / "keeper.lock").exists():
        return False
    with hold_lock(home / "keeper.lock", wait=False) as free:
        return not free


def main() -> int:
    """`python -m pipelines.keeper HOME [--owner-pid PID] [--detach]`."""
    parser = argparse.ArgumentParser(prog="pipelines.keeper")
    parser.add_argument("home", type=Path)
    parser.add_argument("--owner-pid", type=int)
    parser.add_argument("--detach", action="store_true", help="go on as an orphan")
    args = parser.parse_args()
    if args.detach and os.fork():
        os._exit(0)
    for _ in range(10):
        with hold_lock(args.home / "keeper.lock", wait=False) as got:
            if got:
                return Keeper(args.home, args.owner_pid).run()
        time.sleep(TICK_S)
    print("another keeper holds this home", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
