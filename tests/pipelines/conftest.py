"""A stand-in for the part of Flink an operator sees, and a model small to test."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pyflink.common import Row

from connectors.codec import decode_frame, encode_frame
from connectors.events import EventReader
from connectors.records import MODALITIES, Place
from pipelines.operators import shards
from pipelines.operators.parts import Handed

WIDTH = 16
AT_MS = 1_760_000_000_000
NOW_MS = AT_MS + 1000
TASK = {
    "name": "tiny",
    "entities": {"customer": "customer", "terminal": "terminal"},
    "features": [
        "amount",
        "hour<=6",
        {"name": "paid", "entity": "customer", "agg": "sum", "window": "1m"}
        | {"column": "amount"},
        {"name": "abroad", "entity": "customer", "agg": "rate", "window": "10s"}
        | {"column": "foreign"},
        {"name": "places", "entity": "customer", "agg": "distinct", "window": "1m"}
        | {"column": "terminal"},
        {"name": "visits", "entity": "terminal", "agg": "count", "window": "1m"},
    ],
    "modalities": {"text": {}, "image": {}},
    "label": {"delay": "1h"},
}
KINDS = {
    "amount": "number",
    "foreign": "bool",
    "customer": "string",
    "terminal": "string",
}


def arrived(out: Any) -> list[Any]:
    """What comes out, as the next operator gets it."""
    return [
        Row(one[0], pickle.loads(pickle.dumps(one[1])))
        if isinstance(one, Row) and isinstance(one[1], Handed)
        else one
        for one in out or ()
    ]


@dataclass
class Runtime:
    """Keyed state in dicts, pickled as Flink keeps it; timers in a list.

    Key k is key group k here; `groups` are those of this subtask.
    """

    clock_ms: int = NOW_MS
    key: int = 0
    groups: range = range(4)
    kept: dict[Any, Any] = field(default_factory=dict)
    timers: list[tuple[int, int]] = field(default_factory=list)

    def get_list_state(self, descriptor: Any) -> ListState:
        return ListState(self, descriptor.name)

    def get_map_state(self, descriptor: Any) -> MapState:
        return MapState(self, descriptor)

    def get_state(self, descriptor: Any) -> ValueState:
        return ValueState(self, descriptor.name)

    def get_keyed_state_backend(self) -> Any:
        return SimpleNamespace(_keyed_state_backend=self)

    def getKeyGroupRange(self) -> Any:
        return SimpleNamespace(
            getStartKeyGroup=lambda: self.groups.start,
            getEndKeyGroup=lambda: self.groups.stop - 1,
        )

    def setCurrentKey(self, key: int) -> None:
        assert key in self.groups, "the state of another subtask"
        self.key = key

    def get_current_key(self) -> int:
        return self.key

    def timer_service(self) -> Runtime:
        return self

    def current_processing_time(self) -> int:
        return self.clock_ms

    def register_processing_time_timer(self, at_ms: int) -> None:
        if (at_ms, self.key) not in self.timers:
            self.timers.append((at_ms, self.key))

    def open(self, operator: Any) -> Any:
        """The operator on this state: a second one is a restart from a checkpoint."""
        operator.open(self)
        return operator

    def give(self, operator: Any, key: int, value: Any) -> list[Any]:
        """What comes out for one element of one key."""
        self.key = key
        sent = pickle.loads(pickle.dumps(value))
        return arrived(operator.process_element(sent, self))

    def wait(self, operator: Any, wait_ms: int) -> list[Any]:
        """What comes out of the timers due in the next `wait_ms`."""
        until, out = self.clock_ms + wait_ms, []
        while due := sorted(timer for timer in self.timers if timer[0] <= until):
            at_ms, self.key = due[0]
            self.timers.remove(due[0])
            self.clock_ms = max(self.clock_ms, at_ms)
            out += arrived(operator.on_timer(at_ms, self))
        self.clock_ms = until
        return out


class _State:
    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self._name = name

    @property
    def _place(self) -> tuple[str, int]:
        return self._name, self._runtime.key


class ListState(_State):
    def get(self) -> list[Any] | None:
        kept = self._runtime.kept.get(self._place)
        return None if kept is None else [pickle.loads(one) for one in kept]

    def add(self, value: Any) -> None:
        self._runtime.kept.setdefault(self._place, []).append(pickle.dumps(value))

    def update(self, values: list[Any]) -> None:
        self._runtime.kept[self._place] = [pickle.dumps(one) for one in values]

    def clear(self) -> None:
        self._runtime.kept.pop(self._place, None)


class ValueState(_State):
    def value(self) -> Any:
        kept = self._runtime.kept.get(self._place)
        return None if kept is None else pickle.loads(kept)

    def update(self, value: Any) -> None:
        self._runtime.kept[self._place] = pickle.dumps(value)


class MapState(_State):
    def __init__(self, runtime: Runtime, descriptor: Any) -> None:
        super().__init__(runtime, descriptor.name)
        ttl = descriptor._ttl_config
        self._ttl_ms = ttl.get_ttl().to_milliseconds() if ttl else math.inf

    def _map(self) -> dict[str, tuple[int, bytes]]:
        kept = self._runtime.kept.setdefault(self._place, {})
        for key, (written_ms, _) in list(kept.items()):
            if self._runtime.clock_ms - written_ms >= self._ttl_ms:
                del kept[key]
        return kept

    def get(self, key: str) -> Any:
        kept = self._map().get(key)
        return None if kept is None else pickle.loads(kept[1])

    def put(self, key: str, value: Any) -> None:
        self._map()[key] = (self._runtime.clock_ms, pickle.dumps(value))

    def remove(self, key: str) -> None:
        self._map().pop(key, None)

    def is_empty(self) -> bool:
        return not self._map()

    def clear(self) -> None:
        self._runtime.kept.pop(self._place, None)

    def items(self) -> list[Any]:
        return [(key, pickle.loads(v)) for key, (_, v) in self._map().items()]


@pytest.fixture(autouse=True)
def flink_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key k is in key group k, and a Java key is the number itself."""
    monkeypatch.setattr(shards, "_java_key", lambda key: key)
    monkeypatch.setattr(shards, "_key_group", lambda key, groups: key % groups)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def new_runtime() -> Callable[[], Runtime]:
    return Runtime


@pytest.fixture(scope="session")
def task() -> dict[str, Any]:
    """The resolved task of the small model."""
    from automl.task import TaskSpec

    return TaskSpec.from_json(TASK).resolve(KINDS).to_dict()


def read_events(modality: str, *events: dict[str, Any], frame: bool = False) -> Any:
    """Valid rows with their keys, from JSON events or from one frame.

    Tabular events know the time of their stream, too, as those collected do.
    """
    import pyarrow as pa

    from automl.stream_clock import StreamClock
    from automl.task import TaskSpec
    from connectors.rows import CLOCK, concat_rows
    from connectors.schemas import TIME
    from pipelines.operators.read import keyed

    columns = TaskSpec.from_json(TASK).resolve(KINDS).needed_columns
    reader = EventReader(modality, columns=columns, now_ms=lambda: NOW_MS)
    place = Place(topic=f"events.{modality}", partition=0, offset=7)
    if frame:
        table = {name: [event[name] for event in events] for name in events[0]}
        at = pa.array(table.pop("event_time_ms"), pa.int64()).cast(TIME)
        batch = pa.RecordBatch.from_pydict({**table, "event_time": at})
        values = [encode_frame(batch)]
    else:
        values = [json.dumps(event).encode() for event in events]
    parts = []
    for value in values:
        rows, letters = reader.read(value, place)
        assert letters == []
        parts.append(rows)
    found = keyed(concat_rows(parts))
    if modality == "tabular":
        found.columns[CLOCK] = StreamClock().observe(found.event_time_ms)
    return found


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., Any]:
    return read_events


@pytest.fixture(scope="session")
def payment() -> Callable[..., dict[str, Any]]:
    """One tabular event of case `k<n>`."""

    def make(n: int = 0, **changes: Any) -> dict[str, Any]:
        good = {
            "event_id": f"e{n}",
            "case_id": f"k{n}",
            "event_time_ms": AT_MS,
            "amount": 10.0,
            "foreign": False,
            "customer": "c1",
            "terminal": "t1",
        }
        return {**good, **changes}

    return make


@pytest.fixture(scope="session")
def tables() -> Callable[[list[Any]], dict[str, list[dict[str, Any]]]]:
    """Kafka rows by topic, frames as lists of their rows, alerts as their objects."""

    def read(out: list[Any]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for topic, key, value in out:
            assert isinstance(key, bytes)
            at = found.setdefault(topic, [])
            if topic.endswith("alerts"):
                at.append(json.loads(value))
            else:
                at += decode_frame(value).to_pylist()
        return found

    return read


@pytest.fixture(scope="session")
def apart() -> Callable[[list[Any]], tuple[list[Any], list[dict[str, Any]]]]:
    """What an operator sends on, and the dead letters it writes past the others."""
    from connectors.flink import ASIDE

    def split(out: list[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
        on: list[Any] = []
        letters: list[dict[str, Any]] = []
        for one in out:
            if not isinstance(one, tuple):
                on.append(one)
                continue
            tag, (topic, _, value) = one
            assert tag is ASIDE
            assert topic == "run.dead-letters"
            letters += decode_frame(value).to_pylist()
        return on, letters

    return split


@pytest.fixture(scope="session")
def registry(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, task: dict[str, Any]
) -> Any:
    """Versions 1 and 2 of the model `tiny`: 2 has other trees and a lower threshold.

    Amounts above 50 are fraud to both; the media speak through random weights.
    """
    import torch

    from automl.candidates import TreeCandidate, TreeConfig
    from automl.registry import Registry
    from automl.task import TaskSpec
    from encoders import build_encoder, save_encoders
    from fusion.model import FusionConfig, FusionModel
    from fusion.store import save_fusion

    spec = TaskSpec.from_json(task)
    names = spec.feature_names
    options = {"tabular": {"features": len(names)}, "text": {"model": str(tiny_bert)}}
    encoders = {
        modality: build_encoder(
            {"modality": modality, "width": WIDTH, **options.get(modality, {})}
        )
        for modality in ("tabular", "text", "image")
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fusion = FusionModel(FusionConfig(width=WIDTH, dim=8, hidden=8))
        torch.nn.init.normal_(fusion.line)
        fusion.curve[:4] = torch.tensor([-12.0, 24.0, 8.0, 0.0])
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 100, (200, len(names)))
    y = (x[:, 0] > 50).astype(int)
    found = Registry(tmp_path_factory.mktemp("models"))
    for trees, threshold in ((20, 0.5), (30, 0.4)):
        stage = tmp_path_factory.mktemp("stage")
        small = TreeConfig(trees=trees, columns=1.0)
        TreeCandidate.fit(x, y, seed=0, config=small).save(stage / "tree.txt")
        save_fusion(fusion, stage / "fusion")
        save_encoders(encoders, stage / "encoders")
        fingerprints = {m: e.fingerprint for m, e in encoders.items()}
        found.save(
            "tiny",
            stage,
            parent=None,
            task=task,
            features=names,
            width=WIDTH,
            modalities=MODALITIES,
            fingerprints={**fingerprints, "fused": "f" * 16},
            threshold=threshold,
            prior_logit=-2.0,
            metrics={},
            created_at="2026-01-01T00:00:00+00:00",
        )
    found.promote("tiny", 1)
    return found


@pytest.fixture(scope="session")
def model_folder(registry: Any) -> Path:
    """Version 1 of the model `tiny`."""
    folder: Path = registry.get("tiny", 1).folder
    return folder


@pytest.fixture(scope="session")
def settings(model_folder: Path) -> dict[str, Any]:
    """Settings of both jobs, as their operators take them."""
    from dataclasses import asdict

    from pipelines.config import JobConfig

    return asdict(
        JobConfig(
            bootstrap="127.0.0.1:9092",
            model_folder=str(model_folder),
            prefix="run.",
            shards=4,
            batch_rows=4,
            batch_wait_ms=20,
            media_wait_ms=5000,
        )
    )
