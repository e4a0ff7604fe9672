import json
import runpy
import sys
import time
from pathlib import Path

import kafka
import pytest

from automl.task import TaskSpec
from connectors.archive import column_kinds
from connectors.demo import TABULAR_SCHEMA
from connectors.demo_task import demo_task
from connectors.events import EventReader
from connectors.records import Place

FILE = Path(__file__).parents[2] / "examples" / "send_event.py"


class Sending:
    def __init__(self, bootstrap_servers):
        self.bootstrap = bootstrap_servers
        self.stored = False
        Sending.last = self

    def send(self, topic, value):
        self.topic, self.value = topic, value
        return self

    def get(self, timeout):
        self.stored = True


@pytest.fixture
def sent(monkeypatch):
    def run(*argv):
        monkeypatch.setattr(kafka, "KafkaProducer", Sending)
        monkeypatch.setattr(sys, "argv", ["send_event.py", *argv])
        runpy.run_path(str(FILE), run_name="__main__")
        return Sending.last

    return run


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) < 20


def test_it_sends_nothing_when_imported(monkeypatch):
    monkeypatch.setattr(kafka, "KafkaProducer", None)
    assert runpy.run_path(str(FILE))["EVENT"]["case_id"]


def test_its_event_is_accepted_by_the_demos_score_job(sent):
    task = TaskSpec.from_json(demo_task())
    task = task.resolve(column_kinds(TABULAR_SCHEMA.empty_table()))
    reader = EventReader(
        "tabular",
        columns=task.needed_columns,
        now_ms=lambda: int(time.time() * 1000),
    )
    found = sent()
    assert found.topic == "events.tabular"
    place = Place(topic="events.tabular", partition=0, offset=0)
    rows, letters = reader.read(found.value, place)
    assert letters == []
    assert rows.case_id.to_pylist() == ["example-case-1"]
    assert abs(json.loads(found.value)["event_time_ms"] - time.time() * 1000) < 10_000


def test_the_broker_is_the_local_one_or_the_one_given(sent):
    assert sent().bootstrap == "127.0.0.1:9092"
    assert sent("127.0.0.1:9999").bootstrap == "127.0.0.1:9999"
    assert Sending.last.stored
