"""Flink jobs of this project on a cluster: submit, look at, cancel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.config import JobConfig
from pipelines.keeper import die_with_parent, write_whole
from pipelines.stack import Stack

JOBS = ("encode", "score")
SUBMIT_TIMEOUT_S = 120
#: What a client prints once it waits for its settings.
READY = "ready for settings"
ENDED = ("FINISHED", "CANCELED", "FAILED")
_SUBMITTED = re.compile(r"^submitted (\w+) ([0-9a-f]{32})$", re.MULTILINE)


class JobError(Exception):
    """A job could not be submitted or has failed; the message shows Flink's reason."""


class Client:
    """A client process that submits jobs once it is told their settings.

    It takes seconds to start, and TaskManagers take some to import what the jobs need:
    started early, both are ready when the settings are.

    Args:
        cluster: where to.
        names: of the jobs.
        prefix: of the run, in the names of its files.
        warm_nodes: how many TaskManagers import the jobs' packages meanwhile.
    """

    def __init__(
        self,
        cluster: Stack,
        names: Sequence[str],
        *,
        prefix: str = "",
        warm_nodes: int = 0,
    ) -> None:
        self._cluster = cluster
        self._names = [*names]
        folder = cluster.home / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        self._run = prefix + "-".join(names)
        self._settings = folder / f"{self._run}.json"
        self._settings.unlink(missing_ok=True)
        self._log = folder / f"{self._run}.log"
        script = Path(__file__).with_name("submit_jobs.py")
        command = [str(cluster.flink_script()), "run", "-d"]
        command += ["-m", cluster.job_manager, "-py", str(script)]
        command += ["--config", str(self._settings), "--warm-nodes", str(warm_nodes)]
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, *names],
                env={**os.environ, **cluster.flink_env()},
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent(),
            )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def await_ready(self, timeout_s: float = SUBMIT_TIMEOUT_S) -> None:
        """Wait until settings would be taken at once, or the client has ended."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._process.poll() is None:
            if READY in self._log.read_text(errors="replace"):
                return
            time.sleep(0.1)

    def submit(self, config: JobConfig) -> dict[str, str]:
        """Submit the jobs and wait until they run; gives name to job id.

        Raises:
            JobError: the client failed, or a job does not run; the message says why.
        """
        self.start(config)
        return self.await_started(config)

    def start(self, config: JobConfig) -> None:
        """Let the client submit the jobs; `await_started` says what came of it."""
        write_whole(self._settings, config.to_json())

    def await_started(self, config: JobConfig) -> dict[str, str]:
        """What `submit` gives, of jobs that were given to `start`."""
        try:
            failed = self._process.wait(SUBMIT_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            waited = f"no answer in {SUBMIT_TIMEOUT_S} s"
            msg = f"submit {self._run}: {waited}; log: {self._log}"
            raise JobError(msg) from error
        text = self._log.read_text(errors="replace")
        found = dict(_SUBMITTED.findall(text))
        if failed or set(found) != set(self._names):
            tail = "\n".join(text.strip().splitlines()[-15:])
            msg = f"submit {self._run} failed ({failed}); log: {self._log}\n{tail}"
            raise JobError(msg)
        for job_id in found.values():
            write_whole(_settings_file(self._cluster, job_id), config.to_json())
        await_running(self._cluster, [*found.values()])
        return found


def submit(cluster: Stack, names: Sequence[str], config: JobConfig) -> dict[str, str]:
    """Submit jobs with one client and wait until they run; gives name to job id.

    Raises:
        JobError: the client failed, or a job does not run; the message says why.
    """
    with Client(cluster, names, prefix=config.prefix) as client:
        return client.submit(config)


def settings_of(stack: Stack, job_id: str) -> JobConfig:
    """What a job of this home was submitted with.

    Raises:
        ConfigError: it was submitted from elsewhere; the message names the file.
    """
    return JobConfig.read(_settings_file(stack, job_id))


def job_state(stack: Stack, job_id: str) -> str:
    """Flink's word for how the job is: RUNNING, RESTARTING, FAILED, ..."""
    return str(_get(stack, f"/jobs/{job_id}/status")["status"])


def await_running(stack: Stack, job_ids: list[str], timeout_s: float = 90.0) -> None:
    """Wait until every task of the jobs runs.

    Raises:
        JobError: a job failed, or waits for more TaskManagers than there are.
    """
    deadline = time.monotonic() + timeout_s
    waiting = list(job_ids)
    while waiting:
        found = _get(stack, f"/jobs/{waiting[0]}")
        states = {vertex["status"] for vertex in found["vertices"]}
        if states == {"RUNNING"}:
            waiting.pop(0)
            continue
        if found["state"] in ("FAILED", "CANCELED"):
            msg = (
                f"job {found['name']} is {found['state']}: {failure(stack, waiting[0])}"
            )
            raise JobError(msg)
        if time.monotonic() > deadline:
            msg = (
                f"job {found['name']} is {found['state']} with tasks {sorted(states)} "
                f"after {timeout_s:.0f} s; free slots: {free_slots(stack)}; "
                f"{failure(stack, waiting[0])}"
            )
            raise JobError(msg)
        time.sleep(0.2)


def failure(stack: Stack, job_id: str) -> str:
    """The root of the last failure of a job, or that there is none."""
    found = _get(stack, f"/jobs/{job_id}/exceptions")
    entries = found.get("exceptionHistory", {}).get("entries", [])
    return entries[0]["stacktrace"][:2000] if entries else "no failure recorded"


def restarts(stack: Stack, job_id: str) -> int:
    """How often the job was restarted after a failure."""
    found = _get(stack, f"/jobs/{job_id}/metrics?get=numRestarts")
    counted = int(found[0]["value"]) if found else 0
    # the metric is some seconds old; the history is not, but it keeps 16 entries
    history = _get(stack, f"/jobs/{job_id}/exceptions").get("exceptionHistory", {})
    return max(counted, len(history.get("entries", [])))


def counter(stack: Stack, job_id: str, operator: str, name: str) -> int:
    """The sum of a counter of an operator over its subtasks, some seconds old."""
    for vertex in _get(stack, f"/jobs/{job_id}")["vertices"]:
        if operator in vertex["name"].split(" -> "):
            where = f"/jobs/{job_id}/vertices/{vertex['id']}/subtasks/metrics"
            found = _get(stack, f"{where}?get={operator}.{name}&agg=sum")
            return int(found[0]["sum"]) if found else 0
    msg = f"count {name}: job {job_id} has no operator {operator}"
    raise JobError(msg)


def running_jobs(stack: Stack) -> dict[str, str]:
    """Name to id of the jobs that have not ended."""
    jobs = _get(stack, "/jobs/overview")["jobs"]
    return {job["name"]: job["jid"] for job in jobs if job["state"] not in ENDED}


def free_slots(stack: Stack) -> int:
    """Task slots no job uses."""
    return int(_get(stack, "/overview")["slots-available"])


def free_nodes(stack: Stack) -> set[str]:
    """Names of the TaskManagers that work for no job."""
    nodes = _get(stack, "/taskmanagers")["taskmanagers"]
    return {one["id"] for one in nodes if one["freeSlots"] == one["slotsNumber"]}


def cancel(stack: Stack, job_id: str, timeout_s: float = 30.0) -> None:
    """End a job and wait until its slots are free."""
    _ask(stack, f"/jobs/{job_id}?mode=cancel", method="PATCH")
    _await_ended(stack, job_id, "cancel", timeout_s)


def stop_with_savepoint(stack: Stack, job_id: str, timeout_s: float = 120.0) -> str:
    """End a job between two records, all its state kept; gives the savepoint's path.

    What the job had read is processed and written; a job started from the savepoint
    goes on with the next record. Every task must run.

    Raises:
        JobError: there is no savepoint; the job runs on, or is restarted by Flink.
    """
    await_running(stack, [job_id])
    folder = (stack.home / "savepoints").as_uri()
    wanted = {"drain": False, "targetDirectory": folder}
    asked = _ask(stack, f"/jobs/{job_id}/stop", method="POST", body=wanted)
    where = f"/jobs/{job_id}/savepoints/{asked['request-id']}"
    deadline = time.monotonic() + timeout_s
    while (found := _get(stack, where))["status"]["id"] != "COMPLETED":
        if time.monotonic() > deadline:
            msg = f"stop job {job_id}: no savepoint in {folder} in {timeout_s:.0f} s"
            raise JobError(msg)
        time.sleep(0.1)
    if "location" not in found["operation"]:
        cause = found["operation"]["failure-cause"]["stack-trace"][:1500]
        msg = f"stop job {job_id} with a savepoint in {folder}: {cause}"
        raise JobError(msg)
    _await_ended(stack, job_id, "stop", timeout_s)
    return str(found["operation"]["location"])


def _await_ended(stack: Stack, job_id: str, done: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (state := job_state(stack, job_id)) not in ENDED:
        if time.monotonic() > deadline:
            msg = f"job {job_id} is still {state} {timeout_s:.0f} s after {done}"
            raise JobError(msg)
        time.sleep(0.1)


def _settings_file(stack: Stack, job_id: str) -> Path:
    return stack.home / "jobs" / f"{job_id}.json"


def _get(stack: Stack, path: str) -> Any:
    return _ask(stack, path, method="GET")


def _ask(
    stack: Stack, path: str, *, method: str, body: dict[str, Any] | None = None
) -> Any:
    """Flink's answer, None when it is empty."""
    request = urllib.request.Request(
        stack.flink_url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")
    except (urllib.error.URLError, TimeoutError) as error:
        msg = f"ask Flink at {stack.flink_url}{path}: {error}"
        raise JobError(msg) from error
