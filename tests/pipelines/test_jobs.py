"""Stopping a job with a savepoint, against a Flink that answers from a list."""

import io
import json
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import jobs as module
from pipelines.jobs import JobError, free_nodes, stop_with_savepoint

RUNNING = {"name": "score", "state": "RUNNING", "vertices": [{"status": "RUNNING"}]}
LOCAL = SimpleNamespace(flink_url="http://f", home=Path("/sluice"))
DONE = {"id": "COMPLETED"}


class Flink:
    """Answers by path, the last one of a path for ever."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def urlopen(self, request, timeout):
        path = request.full_url.removeprefix("http://f")
        self.asked.append((request.get_method(), path, request.data))
        if path not in self.answers:
            raise urllib.error.HTTPError(request.full_url, 404, "none", {}, None)
        left = self.answers[path]
        found = left.pop(0) if len(left) > 1 else left[0]
        return io.BytesIO(json.dumps(found).encode())


@pytest.fixture
def flink(monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda s: None)

    def answer(**operation):
        found = Flink(
            {
                "/jobs/j": [RUNNING],
                "/jobs/j/stop": [{"request-id": "r"}],
                "/jobs/j/savepoints/r": [
                    {"status": {"id": "IN_PROGRESS"}},
                    {"status": DONE, "operation": operation},
                ],
                "/jobs/j/status": [{"status": "RUNNING"}, {"status": "FINISHED"}],
                "/jobs/j/exceptions": [{}],
                "/overview": [{"slots-available": 0}],
            }
        )
        monkeypatch.setattr(module.urllib.request, "urlopen", found.urlopen)
        return found

    return answer


def test_a_stopped_job_leaves_a_savepoint(flink):
    found = flink(location="file:/sluice/savepoints/s1")
    assert stop_with_savepoint(LOCAL, "j") == "file:/sluice/savepoints/s1"
    ((_, _, body),) = [one for one in found.asked if one[0] == "POST"]
    assert json.loads(body) == {
        "drain": False,
        "targetDirectory": "file:///sluice/savepoints",
    }
    assert found.asked[-1][1] == "/jobs/j/status"


def test_a_savepoint_that_failed_is_told_with_its_cause(flink):
    flink(**{"failure-cause": {"stack-trace": "no space left"}})
    with pytest.raises(JobError, match=r"stop job j .*: no space left"):
        stop_with_savepoint(LOCAL, "j")


def test_no_savepoint_in_time_is_told(flink):
    found = flink(location="x")
    found.answers["/jobs/j/savepoints/r"] = [{"status": {"id": "IN_PROGRESS"}}]
    with pytest.raises(
        JobError, match="no savepoint in file:///sluice/savepoints in 0"
    ):
        stop_with_savepoint(LOCAL, "j", timeout_s=0.01)


def test_a_job_that_goes_on_running_is_told(flink):
    found = flink(location="x")
    found.answers["/jobs/j/status"] = [{"status": "RUNNING"}]
    with pytest.raises(JobError, match="j is still RUNNING 0 s after stop"):
        stop_with_savepoint(LOCAL, "j", timeout_s=0.01)


def test_a_failed_job_is_not_stopped(flink):
    found = flink(location="x")
    failed = {"name": "score", "state": "FAILED", "vertices": [{"status": "FAILED"}]}
    found.answers["/jobs/j"] = [failed]
    with pytest.raises(JobError, match="job score is FAILED: no failure recorded"):
        stop_with_savepoint(LOCAL, "j")
    assert all(method == "GET" for method, _, _ in found.asked)


def test_nodes_without_a_task_are_free(flink):
    found = flink()
    found.answers["/taskmanagers"] = [
        {
            "taskmanagers": [
                {"id": "tm-1", "freeSlots": 0, "slotsNumber": 1},
                {"id": "tm-2", "freeSlots": 1, "slotsNumber": 1},
            ]
        }
    ]
    assert free_nodes(LOCAL) == {"tm-2"}
