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

    def submit(self, config: JobConfig) -> dict[str, str]:
        """Submit the jobs and wait until they run; gives name to job id.

        Raises:
            JobError: the client failed, or a job does not run; the message says why.
        """
        write_whole(self._settings, config.to_json())
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
        await_running(self._cluster, [*found.values()])
        return found


def submit(cluster: Stack, names: Sequence[str], config: JobConfig) -> dict[str, str]:
    """Submit jobs with one client and wait until they run; gives name to job id.

    Raises:
        JobError: the client failed, or a job does not run; the message says why.
    """
    with Client(cluster, names, prefix=config.prefix) as client:
        return client.submit(config)


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


def running_jobs(stack: Stack) -> dict[str, str]:
    """Name to id of the jobs that have not ended."""
    jobs = _get(stack, "/jobs/overview")["jobs"]
    ended = ("FINISHED", "CANCELED", "FAILED")
    return {job["name"]: job["jid"] for job in jobs if job["state"] not in ended}


def free_slots(stack: Stack) -> int:
    """Task slots no job uses."""
    return int(_get(stack, "/overview")["slots-available"])


def cancel(stack: Stack, job_id: str, timeout_s: float = 30.0) -> None:
    """End a job and wait until its slots are free."""
    request = urllib.request.Request(
        f"{stack.flink_url}/jobs/{job_id}?mode=cancel", method="PATCH"
    )
    with urllib.request.urlopen(request, timeout=10):
        pass
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if job_state(stack, job_id) in ("CANCELED", "FAILED", "FINISHED"):
            return
        time.sleep(0.2)
    state = job_state(stack, job_id)
    msg = f"job {job_id} is still {state} {timeout_s:.0f} s after cancel"
    raise JobError(msg)


def _get(stack: Stack, path: str) -> Any:
    try:
        with urllib.request.urlopen(stack.flink_url + path, timeout=10) as answer:
            return json.load(answer)
    except (urllib.error.URLError, TimeoutError) as error:
        msg = f"ask Flink at {stack.flink_url}{path}: {error}"
        raise JobError(msg) from error
