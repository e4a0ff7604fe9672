"""The local broker and cluster: start, find, scale, stop."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from pipelines import jars, stack_files
from pipelines.keeper import RELEASE, hold_lock, is_kept, write_whole
from pipelines.stack_ready import (
    await_flink,
    await_ready,
    broker_answers,
    overview,
    tail,
)
from pipelines.stack_record import (
    StackError,
    end,
    is_alive,
    read_record,
    sweep,
    until,
    with_memory,
)
from pipelines.stack_settings import HOST, Ports

__all__ = ["Stack", "StackError", "attach", "find", "scale", "set_nodes"]
__all__ += ["settled", "start", "status", "stop"]

STOP_DEADLINE_S = 40.0
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """A running stack: where to reach it. Made by `start`, `find` and `attach`."""

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
        found: list[dict[str, Any]] = read_record(self.home).get("processes", [])
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
        sweep(home)
        return _start_new(home, nodes, owner_pid, usual_ports, cache, say)


def find(home: Path) -> Stack | None:
    """The stack that runs in `home`, or None."""
    home = home.resolve()
    record = read_record(home) if is_kept(home) else {}
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


def attach(home: Path, *, bootstrap: str, flink_url: str) -> Stack:
    """A handle on a broker and a cluster that others run, such as docker compose.

    `home` takes the client's Flink configuration and logs; `start`, `stop` and
    `scale` have no part in it.
    """
    home = home.resolve()
    stack_files.write_client_files(home, flink_url, jars.fetch())
    return Stack(
        home=home,
        bootstrap=bootstrap,
        flink_url=flink_url,
        nodes=(overview(flink_url) or {}).get("taskmanagers", 0),
        keeper_pid=0,
        versions=stack_files.versions(),
        started_at="",
    )


def stop(home: Path) -> bool:
    """End the stack of `home` and wait until nothing of it runs; False if none ran.

    Raises:
        StackError: A process could not be ended.
    """
    home = home.resolve()
    record = read_record(home)
    ran = is_kept(home)
    keeper = record.get("keeper", {"pid": 0, "created": 0.0})
    end(keeper, signal.SIGTERM)
    if not until(lambda: not is_kept(home), STOP_DEADLINE_S):
        end(keeper, signal.SIGKILL)
    until(lambda: not is_alive(keeper), STOP_DEADLINE_S)
    sweep(home)
    return ran


def status(home: Path) -> dict[str, Any]:
    """What runs in `home`: `running`, endpoints, and one entry per process."""
    home = home.resolve()
    record = read_record(home)
    if not is_kept(home) or not record:
        reason = record.get("reason")
        return {"running": False, "home": str(home), "reason": reason, "processes": []}
    live = [with_memory(p) for p in [record["keeper"], *record["processes"]]]
    live[0] = {"name": "keeper", **live[0]}
    cluster = overview(record["flink_url"]) or {}
    return {
        "running": record["state"] == "up",
        "home": str(home),
        **{k: record[k] for k in ("bootstrap", "flink_url", "versions", "started_at")},
        "broker_answers": broker_answers(record["bootstrap"]),
        "nodes": len(_wanted_nodes(home)),
        "nodes_ready": cluster.get("taskmanagers", 0),
        "slots_free": cluster.get("slots-available", 0),
        "jobs_running": cluster.get("jobs-running", 0),
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
    return settled(stack)


def settled(stack: Stack) -> Stack:
    """The same stack with the TaskManagers last asked for, the others gone.

    Until then Flink may count slots of nodes that are being ended as free. A cluster
    that was not started here is taken as it is.

    Raises:
        StackError: they did not register in time.
    """
    nodes = len(_wanted_nodes(stack.home))
    if not nodes:
        return stack
    await_flink(stack.home, stack.flink_url, nodes)
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


def _start_new(
    home: Path,
    nodes: int,
    owner_pid: int | None,
    usual_ports: bool,
    cache: Path | None,
    say: Say,
) -> Stack:
    found = jars.fetch(cache, say=say)
    ports = Ports.choose(usual=usual_ports)
    stack_files.write_files(home, ports, found)
    bootstrap = f"{HOST}:{ports.broker}"
    url = f"http://{HOST}:{ports.rest}"
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
    starter = _launch_keeper(home, owner_pid)
    try:
        _format(home, found)
        _want(home, "broker", stack_files.broker_command(home, found))
        await_ready(home, lambda: broker_answers(bootstrap), "broker", "the broker")
        await_flink(home, url, nodes)
        starter.write(RELEASE)
        starter.close()
    except BaseException:
        starter.close()
        stop(home)
        raise
    stack = find(home)
    if stack is None:
        msg = f"start: the stack ended right after it was ready; see {home / 'logs'}"
        raise StackError(msg)
    return stack


def _launch_keeper(home: Path, owner_pid: int | None) -> IO[bytes]:
    """Start the keeper; it ends when this pipe closes before `RELEASE` went in."""
    argv = [sys.executable, "-m", "pipelines.keeper", "--detach", str(home)]
    argv += ["--owner-pid", str(owner_pid)] if owner_pid else []
    with (home / "logs" / "keeper.out").open("wb") as output:
        keeper = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    keeper.wait()
    if keeper.returncode or keeper.stdin is None:
        msg = f"start the keeper failed\n{tail(home, 'keeper')}"
        raise StackError(msg)
    return keeper.stdin


def _format(home: Path, found: jars.Jars) -> None:
    try:
        stack_files.format_storage(home, found)
    except subprocess.CalledProcessError as error:
        msg = f"format the broker's storage failed\n{tail(home, 'format')}"
        raise StackError(msg) from error


def _want(home: Path, name: str, spec: dict[str, Any]) -> None:
    write_whole(home / "wanted" / f"{name}.json", json.dumps(spec))


def _wanted_nodes(home: Path) -> list[Path]:
    return sorted((home / "wanted").glob("tm-*.json"))
