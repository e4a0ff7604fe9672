"""docker-compose.yml and Dockerfile say the same as the code: versions, commands."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from connectors.topics import MAX_VALUE_BYTES, TOPICS
from pipelines import cli, jars

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
    assert {c[2] for c in COMMANDS.values()} == {"encode", "score", "index", "retrain"}


@pytest.mark.parametrize("service", COMMANDS)
def test_the_command_of_a_service_is_one_the_code_takes(service):
    words = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", w) for w in COMMANDS[service][1:]]
    assert words[0] in cli.COMMANDS
    args = cli._parser(words[0]).parse_args(words)
    assert args.bootstrap == "broker:19092"


def test_the_broker_takes_what_the_topics_take():
    settings = SERVICES["broker"]["environment"]
    assert settings["KAFKA_MESSAGE_MAX_BYTES"] == MAX_VALUE_BYTES
    assert settings["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert len(TOPICS) == 12


def test_the_cluster_takes_no_jars_and_runs_python_as_the_local_one_does():
    lines = SERVICES["taskmanager"]["environment"]["FLINK_PROPERTIES"].splitlines()
    given = dict(line.split(": ", 1) for line in lines)
    assert given["web.submit.enable"] == "false"
    assert given["python.execution-mode"] == "thread"
    assert (
        SERVICES["jobmanager"]["environment"]["FLINK_PROPERTIES"].splitlines() == lines
    )


def test_no_index_host_is_named_anywhere():
    for name in ("constraints.txt", "Dockerfile", "Makefile", "pipelines/jars.xml"):
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|find-links|@ file:|<repositor", text), name
