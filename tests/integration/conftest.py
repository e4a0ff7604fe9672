"""One real broker and one real cluster for all integration tests of a session."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from automl.registry import ModelVersion, Registry
from connectors.demo import DemoWorld
from connectors.demo_task import demo_task
from connectors.kafka import Producer, create_topics, delete_topics
from pipelines import jobs, stack
from pipelines.account import Ledger
from pipelines.config import JobConfig
from pipelines.operators.read import now_ms
from pipelines.train import TrainConfig, train


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def local(home: Path) -> Iterator[stack.Stack]:
    """A stack of two nodes on free ports, ended with the session."""
    yield stack.start(home, nodes=2, owner_pid=os.getpid(), usual_ports=False)
    stack.stop(home)


@pytest.fixture(scope="session")
def registry(home: Path) -> Registry:
    return Registry(home / "models")


@pytest.fixture(scope="session")
def model(registry: Registry) -> ModelVersion:
    """A model fitted on a small past of the demo world."""
    past = DemoWorld(3).past(700, now_ms() - 86_400_000)
    config = TrainConfig(align_budget_s=5.0, fusion_budget_s=3.0)
    version = train(past, demo_task("demo"), "demo", registry, config=config)
    return registry.promote("demo", version.version)


@dataclass
class Run:
    """Jobs and topics of one test, and the account of what they did."""

    local: stack.Stack
    prefix: str
    job_ids: dict[str, str]
    ledger: Ledger
    producer: Producer
    sent: int = 0
    decisions: list[dict[str, Any]] = field(default_factory=list)

    def send(self, topic: str, value: bytes | None) -> None:
        self.producer.send(self.prefix + topic, value)
        self.sent += 1

    def send_event(self, event: Any) -> None:
        value = json.dumps(event.to_json(now_ms())).encode()
        self.producer.send(
            f"{self.prefix}events.{event.modality}", value, key=event.case_id
        )
        self.sent += 1

    def await_until(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Read what comes back until `done()`; fails when the time is over."""
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, (
                f"{self.ledger.accounted} of {self.sent} events accounted for "
                f"after {timeout_s:.0f} s"
            )
            self.decisions += self.ledger.poll()[0]

    def await_all(self, timeout_s: float = 60.0) -> None:
        self.producer.flush()
        self.await_until(lambda: self.ledger.accounted >= self.sent, timeout_s)

    @property
    def restarts(self) -> int:
        return sum(jobs.restarts(self.local, i) for i in self.job_ids.values())


@pytest.fixture
def run(
    local: stack.Stack, model: ModelVersion, request: pytest.FixtureRequest
) -> Iterator[Run]:
    """The encode and the score job on topics of their own."""
    prefix = f"t{abs(hash(request.node.name)) % 10**6}-{os.getpid()}."
    create_topics(local.bootstrap, prefix=prefix)
    config = JobConfig(
        bootstrap=local.bootstrap,
        model_folder=str(model.folder.resolve()),
        prefix=prefix,
        media_wait_ms=3000,
        checkpoint_ms=2000,
    )
    job_ids = jobs.submit(local, jobs.JOBS, config)
    ledger = Ledger(local.bootstrap, prefix=prefix)
    producer = Producer(local.bootstrap)
    yield Run(local, prefix, job_ids, ledger, producer)
    producer.close()
    ledger.close()
    for job_id in job_ids.values():
        jobs.cancel(local, job_id)
    delete_topics(local.bootstrap, prefix=prefix)
