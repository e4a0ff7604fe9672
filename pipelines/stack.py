"""The local broker and cluster: start, find, scale, stop; every listener on loopback."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from pipelines import jars, stack_files
from pipelines.keeper import RELEASE, hold_lock, is_kept, write_whole

READY_DEADLINE_S = 90.0
STOP_DEADLINE_S = 40.0
POLL_S = 0.1
Say = Callable[[str], None]


class StackError(Exception):
    """The stack cannot start, or is not there; the message says what to do next."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """A running local stack: where to reach it. Made by `start` and `find`."""

    home: Path
    bootstrap: str
    flink_url: str
    nodes: int
    keeper_pid: int
    versions: dict[str, str]
    started_at: str
    reused: bool = False

    def flink_env(self) -> dict[str, str]:
        """Environment variables a job-submitting process adds to its own."""
        return stack_files.flink_env(self.home)

    def flink_script(self) -> Path:
        """The `flink` command of the installed apache-flink package."""
        return stack_files.flink_wheel() / "bin" / "flink"

    @property
    def job_manager(self) -> str:
        """`host:port` of Flink's REST, as `flink run -m` takes it."""
        return self.flink_url.removeprefix("http://")

    def processes(self) -> list[dict[str, Any]]:
        """Name, pid and restarts of every process held, keeper aside."""
        found: list[dict[str, Any]] = _record(self.home).get("processes", [])
        return found

    def add_service(
        self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        """Let the keeper hold one more process (restarted when it dies, ended first).

        Its output goes to `HOME/logs/NAME.out`; adding a held name changes nothing
        until `remove_service`.
        """
        rank = stack_files.RANKS["service"]
        _want(self.home, name, {"argv": [*argv], "env": {**(env or {})}, "rank": rank})

    def remove_service(self, name: str) -> None:
        """Let the keeper end a process that `add_service` brought."""
        (self.home / "wanted" / f"{name}.json").unlink(missing_ok=True)


def start(
    home: Path,
    *,
    nodes: int = 2,
    owner_pid: int | None = None,
    usual_ports: bool = True,
    cache: Path | None = None,
    say: Say | None = None,
) -> Stack:
    """A ready stack in `home`: the live one (`reused`, with nodes added) or a new one.

    Args:
        home: Folder of its state, logs and pids; made when missing.
        nodes: TaskManagers of one slot each; a live stack never loses any here.
        owner_pid: The stack ends when this process does; None leaves it running.
        usual_ports: Try 9092 and 8081 first; False takes any free ports at once.
        cache: Folder of the jars, shared by homes.
        say: Told one line per step.

    Raises:
        StackError: It did not become ready; nothing of it is left running.
        jars.JarsError: Java, Maven or a jar is missing.
    """
    say = say or (lambda line: None)
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    with hold_lock(home / "start.lock", wait=True):
        live = find(home)
        if live is not None:
            say(f"using the stack that runs in {home}")
            if nodes > live.nodes:
                live = scale(live, nodes, say=say)
            return dataclasses.replace(live, reused=True)
        _sweep(home)
        return _start_new(home, nodes, owner_pid, usual_ports, cache, say)


def find(home: Path) -> Stack | None:
    """The stack that runs in `home`, or None."""
    home = home.resolve()
    record = _record(home) if is_kept(home) else {}
    if record.get("state") != "up":
        return None
    return Stack(
        home=home,
        bootstrap=record["bootstrap"],
        flink_url=record["flink_url"],
        nodes=len(_wanted_nodes(home)),
        keeper_pid=record["keeper"]["pid"],
        versions=record["versions"],
        started_at=record["started_at"],
    )


def stop(home: Path) -> bool:
    """End the stack of `home` and wait until nothing of it runs; False if none ran.

    Raises:
        StackError: A process could not be ended.
    """
    home = home.resolve()
    record = _record(home)
    ran = is_kept(home)
    if ran and record:
        _end(record["keeper"], signal.SIGTERM)
        if not _until(lambda: not is_kept(home), STOP_DEADLINE_S):
            _end(record["keeper"], signal.SIGKILL)
    _sweep(home)
    return ran


def status(home: Path) -> dict[str, Any]:
    """What runs in `home`: `running`, endpoints, and one entry per process."""
    home = home.resolve()
    record = _record(home)
    if not is_kept(home) or not record:
        reason = record.get("reason")
        return {"running": False, "home": str(home), "reason": reason, "processes": []}
    live = [_with_memory(p) for p in [record["keeper"], *record["processes"]]]
    live[0] = {"name": "keeper", **live[0]}
    overview = _overview(record["flink_url"]) or {}
    return {
        "running": record["state"] == "up",
        "home": str(home),
        **{k: record[k] for k in ("bootstrap", "flink_url", "versions", "started_at")},
        "broker_answers": broker_answers(record["bootstrap"]),
        "nodes": len(_wanted_nodes(home)),
        "nodes_ready": overview.get("taskmanagers", 0),
        "slots_free": overview.get("slots-available", 0),
        "jobs_running": overview.get("jobs-running", 0),
        "processes": live,
    }


def scale(stack: Stack, nodes: int, *, say: Say | None = None) -> Stack:
    """The same stack with `nodes` TaskManagers, all registered.

    Raises:
        StackError: They did not register in time.
    """
    set_nodes(stack.home, nodes)
    if say is not None:
        say(f"{nodes} TaskManagers")
    _await_flink(stack.home, stack.flink_url, nodes)
    return dataclasses.replace(stack, nodes=nodes)


def set_nodes(home: Path, nodes: int) -> None:
    """Ask for `nodes` TaskManagers, named tm-1 to tm-N; the keeper follows at once."""
    if nodes < 1:
        msg = f"set nodes: {nodes} asked for; at least 1 is needed"
        raise StackError(msg)
    names = {f"tm-{i + 1}" for i in range(nodes)}
    for path in _wanted_nodes(home):
        if path.stem not in names:
            path.unlink()
    for name in sorted(names - {path.stem for path in _wanted_nodes(home)}):
        _want(home, name, stack_files.taskmanager_command(home, name))


def broker_answers(bootstrap: str) -> bool:
    """Whether the broker's own metadata lists a live broker (one raw request)."""
    host, port = bootstrap.rsplit(":", 1)
    client = b"sluice"
    head = struct.pack(">hhih", 3, 1, 7, len(client)) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection((host, int(port)), timeout=2) as link:
            link.sendall(struct.pack(">i", len(head)) + head)
            answer = link.makefile("rb").read(12)
    except OSError:
        return False
    return len(answer) == 12 and struct.unpack(">iii", answer)[2] >= 1


def _start_new(
    home: Path,
    nodes: int,
    owner_pid: int | None,
    usual_ports: bool,
    cache: Path | None,
    say: Say,
) -> Stack:
    found = jars.fetch(cache, say=say)
    ports = stack_files.Ports.choose(usual=usual_ports)
    stack_files.write_files(home, ports, found)
    bootstrap = f"{stack_files.HOST}:{ports.broker}"
    url = f"http://{stack_files.HOST}:{ports.rest}"
    record = {
        "bootstrap": bootstrap,
        "flink_url": url,
        "ports": dataclasses.asdict(ports),
        "nodes": nodes,
        "versions": stack_files.versions(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_whole(home / "endpoints.json", json.dumps(record))
    (home / "stack.json").unlink(missing_ok=True)
    say(f"starting a broker on {bootstrap} and Flink on {url}, {nodes} node(s)")
    _want(home, "jobmanager", stack_files.jobmanager_command(home))
    set_nodes(home, nodes)
    keeper = _launch_keeper(home, owner_pid)
    try:
        _format(home, found)
        _want(home, "broker", stack_files.broker_command(home, found))
        _await(home, lambda: broker_answers(bootstrap), "broker", "the broker")
        _await_flink(home, url, nodes)
        _release(keeper)
    except BaseException:
        keeper.terminate()
        keeper.wait()
        _sweep(home)
        raise
    stack = find(home)
    if stack is None:
        msg = f"start: the stack ended right after it was ready; see {home / 'logs'}"
        raise StackError(msg)
    return stack


def _launch_keeper(home: Path, owner_pid: int | None) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "pipelines.keeper", str(home)]
    argv += ["--owner-pid", str(owner_pid)] if owner_pid else []
    with (home / "logs" / "keeper.out").open("wb") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _release(keeper: subprocess.Popen[bytes]) -> None:
    """Tell the keeper the stack is ready: from here on it outlives this process."""
    if keeper.stdin is not None:
        keeper.stdin.write(RELEASE)
        keeper.stdin.close()


def _format(home: Path, found: jars.Jars) -> None:
    try:
        stack_files.format_storage(home, found)
    except subprocess.CalledProcessError as error:
        msg = f"format the broker's storage failed\n{_tail(home, 'format')}"
        raise StackError(msg) from error


def _await_flink(home: Path, url: str, nodes: int) -> None:
    def ready() -> bool:
        return (_overview(url) or {}).get("taskmanagers") == nodes

    newest = f"tm-{nodes}"
    what = f"Flink with {nodes} TaskManager(s)"
    _await(home, ready, newest if _overview(url) else "jobmanager", what)


def _await(home: Path, ready: Callable[[], bool], log: str, what: str) -> None:
    state: dict[str, Any] = {}

    def settled() -> bool:
        state.update(_record(home))
        return ready() or state.get("state") == "ending"

    if _until(settled, READY_DEADLINE_S) and state.get("state") != "ending":
        return
    why = state.get("reason") or f"not ready after {READY_DEADLINE_S:.0f} s"
    log = str(why).split()[0] if (home / "logs" / f"{why.split()[0]}.out").exists() else log
    msg = f"start {what}: {why}; logs in {home / 'logs'}\n{_tail(home, log)}"
    raise StackError(msg)


def _tail(home: Path, name: str, lines: int = 12) -> str:
    """The last lines a process printed or logged."""
    kept: list[str] = []
    for path in (home / "logs" / f"{name}.log", home / "logs" / f"{name}.out"):
        if path.exists():
            kept += path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(kept[-lines:])


def _overview(url: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"{url}/overview", timeout=2) as answer:
            found: dict[str, Any] = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError):
        return None
    return found


def _record(home: Path) -> dict[str, Any]:
    try:
        text = (home / "stack.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    found: dict[str, Any] = json.loads(text)
    return found


def _want(home: Path, name: str, spec: dict[str, Any]) -> None:
    write_whole(home / "wanted" / f"{name}.json", json.dumps(spec))


def _wanted_nodes(home: Path) -> list[Path]:
    return sorted((home / "wanted").glob("tm-*.json"))


def _sweep(home: Path) -> None:
    """End what a killed keeper may have left (only where the kernel did not)."""
    left = _record(home).get("processes", [])
    for entry in left:
        _end(entry, signal.SIGKILL)
    gone = _until(lambda: not any(_alive(entry) for entry in left), 10.0)
    if not gone:
        msg = f"stop: still running: {[e for e in left if _alive(e)]}; end them by pid"
        raise StackError(msg)


def _alive(entry: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(entry["pid"])
        same = abs(process.create_time() - entry["created"]) < 0.5
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(entry: dict[str, Any], number: signal.Signals) -> None:
    if _alive(entry):
        os.kill(entry["pid"], number)


def _with_memory(entry: dict[str, Any]) -> dict[str, Any]:
    try:
        rss = psutil.Process(entry["pid"]).memory_info().rss
    except psutil.NoSuchProcess:
        rss = 0
    return {**entry, "rss_mb": round(rss / 1e6)}


def _until(done: Callable[[], bool], deadline_s: float) -> bool:
    end_s = time.monotonic() + deadline_s
    while not done():
        if time.monotonic() > end_s:
            return False
        time.sleep(POLL_S)
    return True
