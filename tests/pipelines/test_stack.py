"""The local stack: its settings, and a real broker with a real two-node cluster."""

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from pipelines import stack, stack_files
from pipelines.commands import down, status, up
from pipelines.jars import Jars
from pipelines.stack_settings import HOST, Ports, broker_settings, flink_settings


def test_a_taken_port_is_replaced_and_the_others_are_kept():
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        number = taken.getsockname()[1]
        chosen = Ports.choose(wanted=Ports(broker=number, rest=0))
    assert chosen.broker != number
    assert chosen.broker > 0


def test_chosen_ports_differ_from_each_other():
    ports = Ports.choose(usual=False)
    numbers = {getattr(ports, name) for name in Ports.__slots__}
    assert len(numbers) == 5


def test_every_address_in_the_settings_is_loopback(tmp_path):
    flink = flink_settings(tmp_path, Ports(), opens="")
    addresses = [v for k, v in flink.items() if k.endswith(("host", "address"))]
    assert addresses == [HOST] * 6
    broker = broker_settings(tmp_path, Ports())
    assert (
        broker["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    )


def test_files_hold_the_module_options_of_the_installed_flink(tmp_path):
    connector = tmp_path / "flink-sql-connector-kafka.jar"
    connector.touch()
    stack_files.write_files(
        tmp_path / "home", Ports(), Jars(broker=(), connector=connector)
    )
    text = (tmp_path / "home" / "flink" / "conf" / "config.yaml").read_text()
    assert '"--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED' in text
    assert "web.submit.enable: false" in text
    names = {p.name for p in (tmp_path / "home" / "flink" / "lib").iterdir()}
    assert connector.name in names
    assert any(name.startswith("flink-python-") for name in names)


def test_nodes_are_wanted_by_name_and_only_the_last_ones_go(tmp_path):
    home = tmp_path
    (home / "wanted").mkdir()
    (home / "flink" / "lib").mkdir(parents=True)
    stack.set_nodes(home, 3)
    (home / "wanted" / "tm-1.json").write_text("{}")
    stack.set_nodes(home, 2)
    assert {p.stem for p in (home / "wanted").iterdir()} == {"tm-1", "tm-2"}
    assert (home / "wanted" / "tm-1.json").read_text() == "{}"
    with pytest.raises(stack.StackError, match="at least 1"):
        stack.set_nodes(home, 0)


def test_an_empty_home_runs_nothing(tmp_path):
    assert stack.find(tmp_path) is None
    assert stack.stop(tmp_path) is False
    assert stack.status(tmp_path)["running"] is False


def arguments(home: Path, **more: object):
    import argparse

    return argparse.Namespace(home=home, json=True, **more)


def test_status_and_down_of_nothing_say_so(tmp_path, capsys):
    assert status.run(arguments(tmp_path)) == 1
    assert down.run(arguments(tmp_path)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["running"] is False
    assert lines[1]["was_running"] is False


def test_up_refuses_no_nodes_at_all(tmp_path, capsys):
    assert up.run(arguments(tmp_path, nodes=0)) == 2
    assert "--nodes 0" in capsys.readouterr().err


def get(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def listeners(pids: list[int]) -> list[str]:
    found = [c for p in pids for c in psutil.Process(p).net_connections("inet")]
    return [c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN]


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    home = tmp_path_factory.mktemp("stack")
    started = stack.start(home, nodes=2, owner_pid=os.getpid(), usual_ports=False)
    yield started
    pids = [started.keeper_pid, *(p["pid"] for p in started.processes())]
    stack.stop(home)
    assert [pid for pid in pids if lives(pid)] == []


@pytest.mark.integration
def test_two_nodes_are_ready_when_start_returns(live):
    overview = get(f"{live.flink_url}/overview")
    assert overview["taskmanagers"] == 2
    assert overview["slots-available"] == 2
    seen = stack.status(live.home)
    names = [process["name"] for process in seen["processes"]]
    assert names == ["keeper", "broker", "jobmanager", "tm-1", "tm-2"]
    assert seen["broker_answers"]
    assert sum(process["rss_mb"] for process in seen["processes"]) < 2500


@pytest.mark.integration
def test_every_listener_is_on_loopback(live):
    addresses = listeners([p["pid"] for p in live.processes()])
    assert len(addresses) >= 10
    assert {a.removeprefix("::ffff:") for a in addresses} <= {"127.0.0.1", "::1"}


@pytest.mark.integration
def test_a_jar_upload_is_refused(live):
    body = b"--b\r\nContent-Disposition: form-data; name=jarfile; filename=evil.jar\r\n"
    body += b"Content-Type: application/x-java-archive\r\n\r\nPK\r\n--b--\r\n"
    request = urllib.request.Request(
        f"{live.flink_url}/jars/upload",
        data=body,
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)
    refused.value.close()
    assert refused.value.code in {400, 403, 404, 405}
    assert not list(live.home.rglob("*evil.jar"))


@pytest.mark.integration
def test_a_second_start_uses_the_live_stack(live):
    again = stack.start(live.home, nodes=1)
    assert again.reused
    assert again.keeper_pid == live.keeper_pid
    assert again.nodes == 2


@pytest.mark.integration
def test_a_killed_node_registers_again(live):
    def registered() -> int:
        log = (live.home / "logs" / "jobmanager.log").read_text()
        return log.count("Registering TaskManager with ResourceID tm-1 ")

    def pids() -> dict[str, int]:
        return {process["name"]: process["pid"] for process in live.processes()}

    before, times_before = pids(), registered()
    deadline_s = time.monotonic() + 60
    os.kill(before["tm-1"], signal.SIGKILL)
    while pids()["tm-1"] == before["tm-1"] or registered() == times_before:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    assert pids()["tm-2"] == before["tm-2"]


@pytest.mark.integration
def test_a_service_runs_until_it_is_removed(live):
    live.add_service("nap", ["sleep", "600"], {"WHY": "test"})
    deadline_s = time.monotonic() + 5
    while "nap" not in (held := {p["name"]: p["pid"] for p in live.processes()}):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    assert psutil.Process(held["nap"]).environ()["WHY"] == "test"
    live.remove_service("nap")
    while "nap" in {p["name"] for p in live.processes()}:
        assert time.monotonic() < deadline_s + 5
        time.sleep(0.1)
    assert not lives(held["nap"])
