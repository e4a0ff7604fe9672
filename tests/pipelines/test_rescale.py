"""Moving jobs to other nodes: in which order, and what is said when it fails."""

import argparse
import dataclasses
import json

import pytest

from pipelines import jobs, stack
from pipelines import rescale as module
from pipelines.commands import scale as command
from pipelines.config import ConfigError, JobConfig
from pipelines.jobs import JobError
from pipelines.rescale import forget_stopped, rescale, stopped_jobs


@dataclasses.dataclass
class Local:
    home: object
    bootstrap: str = "b:1"
    nodes: int = 2


class Cluster:
    """Jobs by name with their settings, nodes, and what was done to them."""

    def __init__(self, tmp_path):
        (tmp_path / "manifest.json").write_text("{}")
        self.local = Local(tmp_path)
        self.config = JobConfig(bootstrap="b:1", model_folder=str(tmp_path), shards=4)
        self.running = {"encode": self.config, "score": self.config}
        self.did = []
        self.warmed = 0
        self.refuses_stop, self.refuses_start = set(), set()

    def settings_of(self, local, job_id):
        return self.running[job_id.removeprefix("id-")]

    def used(self):
        return sum(config.nodes for config in self.running.values())

    def stop(self, local, job_id):
        name = job_id.removeprefix("id-")
        if name in self.refuses_stop:
            msg = "checkpoint declined"
            raise JobError(msg)
        del self.running[name]
        self.did.append(f"stop {name}")
        return f"file:/s/{name}"

    def client(self, local, names, *, prefix, warm_nodes):
        (name,) = names
        self.warmed += warm_nodes
        cluster = self

        class Client:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                pass

            def await_ready(self):
                cluster.did.append(f"ready {prefix}{name}")

            def start(self, config):
                cluster.did.append(f"give {prefix}{name}")

            def await_started(self, config):
                if name in cluster.refuses_start:
                    msg = "state is of another version"
                    raise JobError(msg)
                cluster.running[prefix + name] = config
                cluster.did.append(f"start {prefix}{name} {config.savepoint}")
                return {name: f"new-{name}"}

        return Client()

    def scale(self, local, nodes, *, say):
        self.did.append(f"nodes {nodes}")
        return dataclasses.replace(local, nodes=nodes)

    def free_nodes(self, local):
        return {f"tm-{n + 1}" for n in range(self.used(), local.nodes)}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    found = Cluster(tmp_path)
    ids = lambda local: {name: f"id-{name}" for name in found.running}  # noqa: E731
    monkeypatch.setattr(jobs, "running_jobs", ids)
    monkeypatch.setattr(jobs, "settings_of", found.settings_of)
    monkeypatch.setattr(jobs, "free_slots", lambda local: local.nodes - found.used())
    monkeypatch.setattr(jobs, "free_nodes", found.free_nodes)
    monkeypatch.setattr(jobs, "stop_with_savepoint", found.stop)
    monkeypatch.setattr(jobs, "Client", found.client)
    monkeypatch.setattr(module.stack, "scale", found.scale)
    monkeypatch.setattr(stack, "find", lambda home: found.local)
    return found


def test_nodes_are_added_before_and_each_job_goes_on_from_its_savepoint(cluster):
    moved = rescale(cluster.local, 2)
    assert cluster.warmed == 2
    assert cluster.did == [
        "nodes 4",
        "ready encode",
        "ready score",
        "stop encode",
        "stop score",
        "give encode",
        "give score",
        "start encode file:/s/encode",
        "start score file:/s/score",
    ]
    assert [(one.name, one.nodes_before, one.nodes) for one in moved] == [
        ("encode", 1, 2),
        ("score", 1, 2),
    ]
    assert cluster.running["score"].shards == 4
    assert stopped_jobs(cluster.local) == {}


def test_nodes_that_nobody_needs_end_while_the_jobs_are_stopped(cluster):
    cluster.local.nodes = 4
    cluster.running = {
        name: dataclasses.replace(config, nodes=2)
        for name, config in cluster.running.items()
    }
    rescale(cluster.local, 1)
    assert cluster.did[2:6] == ["stop encode", "stop score", "nodes 2", "give encode"]
    assert cluster.warmed == 0


def test_slots_of_a_stopped_job_may_take_a_moment_to_be_free(cluster, monkeypatch):
    cluster.local.nodes = 3
    answers = [{"tm-1"}, {"tm-1", "tm-3"}]
    monkeypatch.setattr(jobs, "free_nodes", lambda local: answers.pop(0))
    monkeypatch.setattr(module.time, "sleep", lambda s: None)
    rescale(cluster.local, 1)
    assert "nodes 2" in cluster.did


def test_a_node_that_works_for_another_job_is_kept(cluster, monkeypatch):
    monkeypatch.setattr(module, "FREE_S", 0.0)
    cluster.local.nodes = 3
    monkeypatch.setattr(jobs, "free_nodes", lambda local: {"tm-1", "tm-2"})
    rescale(cluster.local, 1)
    assert not [one for one in cluster.did if one.startswith("nodes")]


def test_only_jobs_of_one_run_are_moved(cluster):
    of_run = dataclasses.replace(cluster.config, prefix="run.")
    cluster.running["run.score"] = of_run
    cluster.local.nodes = 3
    moved = rescale(cluster.local, 2, prefix="run.")
    assert [one.name for one in moved] == ["run.score"]
    assert cluster.did == [
        "nodes 4",
        "ready run.score",
        "stop run.score",
        "give run.score",
        "start run.score file:/s/run.score",
    ]


def test_more_nodes_than_shards_stop_nothing(cluster):
    with pytest.raises(ConfigError, match="nodes: 5 is more than the 4 shards"):
        rescale(cluster.local, 5)
    assert cluster.did == []


def test_without_jobs_it_says_how_to_start_one(cluster):
    cluster.running = {}
    with pytest.raises(JobError, match="start one with: sluice run score"):
        rescale(cluster.local, 2)


def test_a_job_that_cannot_be_stopped_stays_and_the_other_moves(cluster):
    cluster.refuses_stop = {"encode"}
    with pytest.raises(JobError, match="encode was not moved: checkpoint declined"):
        rescale(cluster.local, 2)
    assert cluster.running["encode"].nodes == 1
    assert cluster.running["score"].nodes == 2


def test_a_job_that_does_not_start_again_is_kept_for_the_next_call(cluster):
    cluster.refuses_start = {"score"}
    with pytest.raises(JobError, match="score is stopped") as failed:
        rescale(cluster.local, 2)
    for part in ("file:/s/score", "of another version", "sluice scale 2", "delete"):
        assert part in str(failed.value)
    assert "encode is" not in str(failed.value)
    assert stopped_jobs(cluster.local)["score"].savepoint == "file:/s/score"

    cluster.refuses_start = set()
    cluster.did.clear()
    moved = rescale(cluster.local, 1)
    assert cluster.did[-1] == "start score file:/s/score"
    assert [(one.name, one.nodes_before) for one in moved] == [
        ("encode", 2),
        ("score", None),
    ]
    assert stopped_jobs(cluster.local) == {}


def test_what_is_left_of_an_earlier_stop_does_not_rule_a_running_job(cluster):
    cluster.refuses_start = {"score"}
    with pytest.raises(JobError, match="score is stopped"):
        rescale(cluster.local, 2)
    cluster.refuses_start = set()
    fresh = dataclasses.replace(cluster.config, collect_wait_ms=9)
    cluster.running["score"] = fresh
    rescale(cluster.local, 1)
    assert cluster.running["score"].collect_wait_ms == 9
    assert stopped_jobs(cluster.local) == {}


def test_a_stopped_job_goes_on_with_the_broker_where_it_is_now(cluster):
    cluster.refuses_start = {"score"}
    with pytest.raises(JobError, match="score is stopped"):
        rescale(cluster.local, 1)
    cluster.refuses_start = set()
    rescale(dataclasses.replace(cluster.local, bootstrap="b:2"), 1)
    assert cluster.running["score"].bootstrap == "b:2"


def test_the_stopped_jobs_of_a_run_can_be_given_up(cluster):
    cluster.running = {"run.score": dataclasses.replace(cluster.config, prefix="run.")}
    cluster.refuses_start = {"score"}
    with pytest.raises(JobError, match="score is stopped"):
        rescale(cluster.local, 1)
    forget_stopped(cluster.local, "other.")
    assert [*stopped_jobs(cluster.local)] == ["run.score"]
    forget_stopped(cluster.local, "run.")
    assert stopped_jobs(cluster.local) == {}


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_tells_what_moved(cluster, capsys, as_json):
    args = argparse.Namespace(home=cluster.local.home, nodes=2, json=as_json)
    assert command.run(args) == 0
    shown = capsys.readouterr().out
    if as_json:
        assert json.loads(shown)["jobs"][1] == {
            "name": "score",
            "job_id": "new-score",
            "nodes_before": 1,
            "nodes": 2,
        }
    else:
        assert shown.splitlines()[1] == "score: 1 -> 2 node(s), job new-score"


def test_the_command_wants_a_stack_and_a_node(cluster, monkeypatch, capsys):
    home = cluster.local.home
    assert command.run(argparse.Namespace(home=home, nodes=0, json=False)) == 2
    assert "0 nodes: at least 1" in capsys.readouterr().err
    monkeypatch.setattr(stack, "find", lambda home: None)
    with pytest.raises(stack.StackError, match="start one with: sluice up"):
        command.run(argparse.Namespace(home=home, nodes=1, json=False))
