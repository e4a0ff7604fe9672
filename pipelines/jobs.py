"""Flink jobs of this project on a cluster: submit, look at, cancel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pipelines.config import JobConfig
from pipelines.stack import Stack

JOB_SCRIPTS = {"encode": "encode_job.py", "score": "score_job.py"}
SUBMIT_TIMEOUT_S = 120
_JOB_ID = re.compile(r"JobID ([0-9a-f]{32})")


class JobError(Exception):
    """A job could not be submitted or has failed; the message shows Flink's reason."""


def start_submit(stack: Stack, kind: str, config: JobConfig) -> Submission:
    """Begin to submit a job; several can be under way at once."""
    folder = stack.home / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{config.prefix}{kind}"
    file = folder / f"{name}.json"
    config.write(file)
    script = Path(__file__).parent / JOB_SCRIPTS[kind]
    log = (folder / f"{name}.log").open("wb")
    command = ["run", "-d", "-m", stack.job_manager, "-py", str(script)]
    process = subprocess.Popen(
        [str(stack.flink_script()), *command, "--config", str(file)],
        env={**os.environ, **stack.flink_env()},
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    return Submission(name, process, Path(log.name))


class Submission:
    """A submission under way."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._name = name
        self._process = process
        self._log = log

    def job_id(self) -> str:
        """The Flink job id, once the cluster has taken the job.

        Raises:
            JobError: the client failed; the message ends with what it printed.
        """
        try:
            code = self._process.wait(timeout=SUBMIT_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            msg = f"submit {self._name}: no answer in {SUBMIT_TIMEOUT_S} s; {self._log}"
            raise JobError(msg) from error
        text = self._log.read_text(errors="replace")
        found = _JOB_ID.search(text)
        if code or not found:
            tail = "\n".join(text.strip().splitlines()[-15:])
            msg = f"submit {self._name} failed ({code}); full log {self._log}:\n{tail}"
            raise JobError(msg)
        return found.group(1)


def submit(stack: Stack, kind: str, config: JobConfig) -> str:
    """Submit one job and wait until it runs; gives its id."""
    job_id = start_submit(stack, kind, config).job_id()
    await_running(stack, [job_id])
    return job_id


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
    return int(found[0]["value"]) if found else 0


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
