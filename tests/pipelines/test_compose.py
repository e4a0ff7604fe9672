"""docker-compose.yml and Dockerfile say the same as the code: versions, commands."""

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from connectors.topics import MAX_VALUE_BYTES, TOPICS
from pipelines import cli, environment, jars
from pipelines.stack_settings import Ports, flink_settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line
)
SERVICES = COMPOSE["services"]
OURS = {n: s["command"] for n, s in SERVICES.items() if s.get("command")}
COMMANDS = {n: c for n, c in OURS.items() if c[0] == "sluice"}
RUNS = {n: c for n, c in COMMANDS.items() if c[1] == "run"}
PROPERTIES = dict(
    line.split(": ", 1)
    for line in COMPOSE["x-flink-environment"]["FLINK_PROPERTIES"].splitlines()
)


def test_the_broker_is_the_version_the_local_stack_runs():
    assert SERVICES["broker"]["image"] == f"apache/kafka:{jars.versions()['kafka']}"


def test_the_flink_image_is_the_version_of_the_python_package():
    tag = re.search(r"^FROM flink:([\d.]+)-", DOCKERFILE, re.MULTILINE)
    assert tag
    assert f"apache-flink=={tag[1]}" in PROJECT["dependencies"]
    assert PINNED["apache-flink"] == tag[1]
    assert f"flink-python-{tag[1]}.jar" in DOCKERFILE


def test_the_image_takes_the_pinned_jars_where_the_code_looks_for_them():
    assert f"/.cache/sluice/jars/{jars.versions()['kafka']}" in DOCKERFILE
    assert jars.GOAL in DOCKERFILE
    assert "sha256sum --check" in DOCKERFILE


def test_uv_in_the_image_is_the_pinned_one():
    assert f"/uv:{PINNED['uv']} " in DOCKERFILE


def test_no_image_floats():
    images = [s["image"] for s in SERVICES.values()]
    images += re.findall(r"^(?:FROM|COPY --from=)\s*(\S+:\S+)", DOCKERFILE, re.M)
    for image in images:
        assert re.search(r":\d[\w.-]+$", image), image
        assert "latest" not in image
        assert "bitnami" not in image


def test_ports_are_published_on_this_machine_only():
    published = [p for s in SERVICES.values() for p in s.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_is_named_after_the_version_of_the_project():
    assert SERVICES["jobmanager"]["image"] == f"sluice:{PROJECT['version']}"


def test_every_job_has_a_service():
    assert {c[2] for c in RUNS.values()} == {"encode", "score", "index", "retrain"}


def parsed(service):
    words = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", w) for w in COMMANDS[service][1:]]
    assert words[0] in cli.COMMANDS
    return cli._parser(words[0]).parse_args(words)


@pytest.mark.parametrize("service", RUNS)
def test_the_command_of_a_service_is_one_the_code_takes(service):
    assert parsed(service).bootstrap == "broker:19092"


def test_the_model_is_fitted_once_and_waits_for_nothing():
    assert parsed("model").fit_only
    assert SERVICES["model"]["restart"] == "no"
    assert SERVICES["model"]["depends_on"] == {}
    assert SERVICES["model"]["volumes"] == SERVICES["index"]["volumes"]


@pytest.mark.parametrize("service", RUNS)
def test_what_needs_a_model_waits_for_it(service):
    waits = SERVICES[service]["depends_on"]
    assert waits["model"] == {"condition": "service_completed_successfully"}
    assert waits["jobmanager"] == {"condition": "service_healthy"}


def test_the_broker_takes_what_the_topics_take():
    settings = SERVICES["broker"]["environment"]
    assert settings["KAFKA_MESSAGE_MAX_BYTES"] == MAX_VALUE_BYTES
    assert settings["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert len(TOPICS) == 12


def test_the_nodes_of_the_cluster_have_one_configuration_and_take_no_jars():
    for node in ("jobmanager", "taskmanager"):
        given = SERVICES[node]["environment"]
        assert given == COMPOSE["x-flink-environment"]
    assert PROPERTIES["web.submit.enable"] == "false"


def test_the_memory_of_a_node_is_shared_out_as_in_the_local_stack():
    local = flink_settings(ROOT, Ports(), "")
    parts = [n for n in PROPERTIES if n.startswith("taskmanager.memory.")]
    parts.remove("taskmanager.memory.process.size")
    assert {name: PROPERTIES[name] for name in parts} == {n: local[n] for n in parts}
    assert "taskmanager.memory.managed.size" in parts


class Settings(dict):
    """Stands in for every class of Flink that building an environment touches."""

    set_string = dict.__setitem__

    def get_execution_environment(self, settings):
        return self

    def set_parallelism(self, number):
        pass

    set_max_parallelism = create = set_parallelism


def test_the_cluster_is_told_nothing_that_the_jobs_set_themselves(monkeypatch):
    of_jobs = Settings()
    for name in ("StreamExecutionEnvironment", "StreamTableEnvironment"):
        monkeypatch.setattr(environment, name, of_jobs)
    monkeypatch.setattr(environment, "Configuration", lambda: of_jobs)
    job = SimpleNamespace(checkpoint_ms=1000, nodes=1, shards=16, savepoint="")
    environment.environment(job)
    assert of_jobs["state.backend.type"] == "rocksdb"
    assert of_jobs["python.execution-mode"] == "thread"
    assert set(PROPERTIES) & set(of_jobs) == set()


def test_no_index_host_is_named_anywhere():
    for name in ("constraints.txt", "Dockerfile", "Makefile", "pipelines/jars.xml"):
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|find-links|@ file:|<repositor", text), name
