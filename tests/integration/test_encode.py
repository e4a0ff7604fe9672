"""The process that decodes is killed, stopped and starved, in the real encode job."""

from __future__ import annotations

import io
import json
import os
import signal
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from automl.registry import Registry
from connectors.codec import decode_frame
from connectors.kafka import Producer, Reader, create_topics, delete_topics
from encoders import build_encoder, save_encoders
from pipelines import jobs, stack
from pipelines.config import JobConfig
from pipelines.operators.read import now_ms

pytestmark = pytest.mark.integration

LIMIT_S = 3


@dataclass
class Encoding:
    """The encode job alone, and what it wrote."""

    local: stack.Stack
    prefix: str
    job_id: str
    producer: Producer
    reader: Reader
    sent: int = 0
    vectors: dict[str, list[float]] = field(default_factory=dict)
    letters: list[dict[str, Any]] = field(default_factory=list)

    def send(self, payload: bytes, modality: str = "image") -> str:
        self.sent += 1
        event = {
            "event_id": f"e{self.sent}",
            "case_id": f"k{self.sent}",
            "event_time_ms": now_ms(),
            "payload": b64encode(payload).decode(),
        }
        value = json.dumps(event).encode()
        self.producer.send(f"{self.prefix}events.{modality}", value)
        self.producer.flush()
        return f"e{self.sent}"

    def await_all(self, timeout_s: float = 60.0) -> float:
        """Seconds until everything sent has a vector or a dead letter."""
        began = time.monotonic()
        while len(self.vectors) + len(self.letters) < self.sent:
            assert time.monotonic() - began < timeout_s
            for value in self.reader.poll(50):
                rows = decode_frame(value.value or b"").to_pylist()
                if value.place.topic.endswith("dead-letters"):
                    self.letters += rows
                else:
                    self.vectors |= {row["event_id"]: row["vector"] for row in rows}
        return time.monotonic() - began

    def children(self) -> list[psutil.Process]:
        """The processes that decode, one for each node."""
        return [
            child
            for one in self.local.processes()
            if one["name"].startswith("tm-")
            for child in psutil.Process(one["pid"]).children()
            if "pipelines.decode_child" in child.cmdline()
        ]

    def signal(self, number: signal.Signals) -> None:
        for child in self.children():
            os.kill(child.pid, number)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has an encoder of pictures and nothing else."""
    stage = tmp_path_factory.mktemp("stage")
    encoder = build_encoder({"modality": "image"})
    save_encoders({"image": encoder}, stage / "encoders")
    saved = Registry(tmp_path_factory.mktemp("models")).save(
        "pictures",
        stage,
        parent=None,
        task={"name": "pictures"},
        features=[],
        width=encoder.width,
        modalities=["image"],
        fingerprints={"image": encoder.fingerprint},
        threshold=0.5,
        prior_logit=0.0,
        metrics={},
        created_at="2026-01-01T00:00:00+00:00",
    )
    return saved.folder.resolve()


@pytest.fixture
def encoding(local: stack.Stack, folder: Path) -> Iterator[Encoding]:
    prefix = f"e{uuid.uuid4().hex[:8]}."
    create_topics(local.bootstrap, prefix=prefix)
    config = JobConfig(
        bootstrap=local.bootstrap,
        model_folder=str(folder),
        prefix=prefix,
        nodes=2,
        checkpoint_ms=2000,
        decode_limit_s=LIMIT_S,
        decode_memory_mb=64,
    )
    job_id = jobs.submit(local, ["encode"], config)["encode"]
    producer = Producer(local.bootstrap)
    topics = [prefix + "embeddings", prefix + "dead-letters"]
    reader = Reader(local.bootstrap, topics)
    yield Encoding(local, prefix, job_id, producer, reader)
    producer.close()
    reader.close()
    jobs.cancel(local, job_id)
    delete_topics(local.bootstrap, prefix=prefix)


def png(seed: int, side: int = 24) -> bytes:
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_what_kills_hangs_or_eats_memory_costs_one_record(encoding: Encoding) -> None:
    for number in range(40):
        encoding.send(png(number))
    encoding.await_all()
    assert len(encoding.children()) == 2

    encoding.signal(signal.SIGSTOP)
    killed = encoding.send(png(100))
    time.sleep(1)
    encoding.signal(signal.SIGKILL)
    killed_at = time.monotonic()
    for number in range(40):
        encoding.send(png(200 + number))
    encoding.await_all()
    back_s = time.monotonic() - killed_at
    (letter,) = encoding.letters
    assert (letter["event_id"], letter["kind"]) == (killed, "decoder")
    assert "signal 9" in letter["reason"]
    assert b64encode(png(100)) in letter["value"]  # the whole event

    encoding.signal(signal.SIGSTOP)
    hung = encoding.send(png(300))
    hung_s = encoding.await_all()
    letter = encoding.letters[1]
    assert (letter["event_id"], letter["kind"]) == (hung, "decoder")
    assert letter["reason"] == f"decoding took more than {LIMIT_S} s"
    for number in range(40):  # also on the node whose process is still stopped, idle
        encoding.signal(signal.SIGCONT)
        encoding.send(png(400 + number))
    encoding.await_all()

    file = io.BytesIO()
    Image.new("RGB", (4000, 3900)).save(file, "PNG")  # 60 kB, 47 MB when decoded
    greedy = encoding.send(file.getvalue())
    for number in range(40):
        encoding.send(png(500 + number))
    encoding.await_all()
    letter = encoding.letters[2]
    assert (letter["event_id"], letter["kind"]) == (greedy, "decoder")
    assert letter["reason"] == "decoding took more than 64 MB of memory"

    assert len(encoding.letters) == 3
    assert jobs.restarts(encoding.local, encoding.job_id) == 0
    print(f"back {back_s:.1f} s after the kill, {hung_s:.1f} s for the hang")
    assert back_s < 5
    assert hung_s < LIMIT_S + 5


def test_the_same_bytes_give_the_same_vector_on_every_node(encoding: Encoding) -> None:
    found = {encoding.send(png(1)) for _ in range(40)}  # 40 cases, over both nodes
    encoding.await_all()
    vectors = np.array([encoding.vectors[name] for name in found])
    assert np.abs(vectors - vectors[0]).max() < 1e-5
