"""Running jobs on another number of nodes, their state and their place kept."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pipelines import jobs, stack
from pipelines.config import ConfigError, JobConfig
from pipelines.jobs import JobError
from pipelines.keeper import write_whole
from pipelines.stack import Stack

#: The job that lets new TaskManagers import, and how long it may hold the move up.
WARM_UP, WARM_UP_S = "warm-up", 60.0
#: How long a stopped job may take to leave its slots.
FREE_S = 5.0
#: Told one line per step.
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """A job that runs on another number of nodes now.

    Attributes:
        name: of the job.
        job_id: its new id.
        nodes_before: how many it had; None when it had been left stopped.
        nodes: how many it has.
    """

    name: str
    job_id: str
    nodes_before: int | None
    nodes: int


def stopped_jobs(local: Stack, prefix: str | None = None) -> dict[str, JobConfig]:
    """Jobs that were stopped and did not start again: name to what they go on with."""
    found = (JobConfig.read(path) for path in sorted(_stopped(local).glob("*.json")))
    names = [path.stem for path in sorted(_stopped(local).glob("*.json"))]
    both = zip(names, found, strict=True)
    return {n: config for n, config in both if prefix in (None, config.prefix)}


def forget_stopped(local: Stack, prefix: str) -> None:
    """Give up the stopped jobs of a run, whose topics go too."""
    for name in stopped_jobs(local, prefix):
        (_stopped(local) / f"{name}.json").unlink()


def rescale(
    local: Stack, nodes: int, *, prefix: str | None = None, say: Say | None = None
) -> list[Moved]:
    """Stop every job with a savepoint and start it from there on `nodes` nodes.

    Nothing is lost or done twice in between. TaskManagers are added when slots are
    short, and free ones nobody needs are ended. A job left stopped by an earlier,
    failed call is started too. The number of shards of a job stays.

    Args:
        local: the running stack.
        nodes: of each job.
        prefix: only the jobs of the run with this topic prefix; None for all.
        say: told one line per step.

    Raises:
        ConfigError: a job has fewer shards than `nodes`; nothing was stopped.
        JobError: a job could not be stopped, or not started; the message says which,
            where its savepoint is, and how to go on.
    """
    say = say or (lambda line: None)
    local = stack.settled(local)
    running = _running(local, prefix)
    wanted = {
        name: dataclasses.replace(config, nodes=nodes)
        for name, (_, config) in running.items()
    }
    for name, config in stopped_jobs(local, prefix).items():
        if name in running:  # it was started some other way: what was left is of before
            (_stopped(local) / f"{name}.json").unlink()
        else:
            # the broker of this home may have another port than it had then
            wanted[name] = dataclasses.replace(
                config, nodes=nodes, bootstrap=local.bootstrap
            )
    if not wanted:
        msg = "no encode or score job runs here; start one with: sluice run score"
        raise JobError(msg)
    moving = sum(config.nodes for _, config in running.values())
    others = local.nodes - jobs.free_slots(local) - moving
    needed = max(1, others + nodes * len(wanted))
    added = max(0, needed - local.nodes)
    if added:
        local = stack.scale(local, needed, say=say)
    problems: list[str] = []
    moved: list[Moved] = []
    with ExitStack() as opened:
        clients = _clients(local, wanted, added, opened)
        for name, (job_id, _) in running.items():
            try:
                savepoint = jobs.stop_with_savepoint(local, job_id)
            except JobError as error:
                problems.append(f"{name} was not moved: {error}")
                del wanted[name]
                continue
            wanted[name] = dataclasses.replace(wanted[name], savepoint=savepoint)
            write_whole(_stopped(local) / f"{name}.json", wanted[name].to_json())
            say(f"{name}: stopped with savepoint {savepoint}")
        if needed < local.nodes:
            local = _without_free(local, needed, say)
        for name, config in wanted.items():
            clients[name].start(config)
        for name, config in wanted.items():
            try:
                (new_id,) = clients[name].await_started(config).values()
            except JobError as error:
                problems.append(_not_started(local, name, config, error))
                continue
            (_stopped(local) / f"{name}.json").unlink(missing_ok=True)
            before = running[name][1].nodes if name in running else None
            moved.append(
                Moved(name=name, job_id=new_id, nodes_before=before, nodes=nodes)
            )
            say(f"{name}: runs on {nodes} node(s) as job {new_id}")
    if problems:
        raise JobError("\n".join(problems))
    return moved


def _running(local: Stack, prefix: str | None) -> dict[str, tuple[str, JobConfig]]:
    """The jobs whose settings this home knows: name to id and settings."""
    found: dict[str, tuple[str, JobConfig]] = {}
    for name, job_id in sorted(jobs.running_jobs(local).items()):
        try:
            config = jobs.settings_of(local, job_id)
        except ConfigError:
            if name in jobs.JOBS:
                raise
            continue
        if prefix in (None, config.prefix):
            found[name] = (job_id, config)
    return found


def _clients(
    local: Stack, wanted: Mapping[str, JobConfig], added: int, opened: ExitStack
) -> dict[str, jobs.Client]:
    """One client for each job, ready to submit; new nodes have their imports done.

    So the jobs stand still no longer than their state takes.
    """
    clients: dict[str, jobs.Client] = {}
    for name, config in wanted.items():
        warm_nodes = 0 if clients else added
        clients[name] = opened.enter_context(
            jobs.Client(
                local,
                [_kind(name, config)],
                prefix=config.prefix,
                warm_nodes=warm_nodes,
            )
        )
    for client in clients.values():
        client.await_ready()
    deadline = time.monotonic() + WARM_UP_S
    while added and WARM_UP in jobs.running_jobs(local):
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return clients


def _kind(name: str, config: JobConfig) -> str:
    return name.removeprefix(config.prefix)


def _without_free(local: Stack, needed: int, say: Say) -> Stack:
    """End the last TaskManagers down to `needed`, but none that works for a job."""
    unneeded = {f"tm-{number}" for number in range(needed + 1, local.nodes + 1)}
    deadline = time.monotonic() + FREE_S  # slots of a stopped job are free soon after
    while not unneeded <= (free := jobs.free_nodes(local)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    nodes = local.nodes
    while nodes > needed and f"tm-{nodes}" in free:
        nodes -= 1
    return stack.scale(local, nodes, say=say) if nodes < local.nodes else local


def _not_started(local: Stack, name: str, config: JobConfig, error: JobError) -> str:
    return (
        f"{name} is stopped, its state is in {config.savepoint}, and it did not start "
        f"on {config.nodes} node(s) from there: {error}\n"
        f"mend what the reason names, then run: sluice scale {config.nodes}\n"
        f"to give the state up instead, delete {_stopped(local) / (name + '.json')}"
    )


def _stopped(local: Stack) -> Path:
    folder = local.home / "jobs" / "stopped"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
