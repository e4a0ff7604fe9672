"""A new version reaches the running job; a damaged one does not."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from automl.registry import ModelVersion, Registry
from connectors.demo import DemoWorld
from pipelines.operators.read import now_ms
from pipelines.publish import announce, publish
from tests.integration.conftest import Run

pytestmark = pytest.mark.integration


def again(registry: Registry, model: ModelVersion, tmp_path: Path) -> ModelVersion:
    """The same model once more, as the next version."""
    stage = tmp_path / "stage"
    skip = shutil.ignore_patterns("manifest.json")
    shutil.copytree(model.folder, stage, ignore=skip)
    created_at = model.manifest.created_at
    return registry.save_next(model.manifest, stage, metrics={}, created_at=created_at)


def feed_until(run: Run, version: int, timeout_s: float) -> float:
    """Send payments until one is decided by `version`; gives the seconds it took."""
    cases = iter(DemoWorld(3).live(2000, now_ms() - 36_000_000, part=version + 50))
    began = time.monotonic()
    while not any(d["model_version"] == version for d in run.decisions):
        assert time.monotonic() - began < timeout_s
        event = next(cases).event("tabular")
        if event is not None:
            run.send_event(event)
        run.decisions += run.ledger.poll(timeout_ms=50)[0]
    return time.monotonic() - began


def test_a_published_version_decides_within_ten_seconds(
    run: Run, registry: Registry, model: ModelVersion, tmp_path: Path
) -> None:
    feed_until(run, model.version, timeout_s=30)
    newer = again(registry, model, tmp_path)
    publish(registry, newer, run.local.bootstrap, prefix=run.prefix)
    assert feed_until(run, newer.version, timeout_s=10) < 10
    run.await_all()
    assert run.ledger.balance(run.sent).lost == 0
    assert run.restarts == 0
    registry.promote(model.name, model.version)


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_version_is_refused_with_a_reason(
    run: Run, registry: Registry, model: ModelVersion, tmp_path: Path, damage: str
) -> None:
    feed_until(run, model.version, timeout_s=30)
    newer = again(registry, model, tmp_path)
    weights = newer.folder / "fusion" / "weights.safetensors"
    raw = bytearray(weights.read_bytes())
    if damage == "truncated":
        del raw[len(raw) // 2 :]
    else:
        raw[-5] ^= 1
    weights.write_bytes(raw)
    announce(newer, run.local.bootstrap, prefix=run.prefix)
    run.await_until(lambda: bool(run.ledger.dead_letters()), timeout_s=10)
    [letter] = run.ledger.dead_letters()
    assert letter["kind"] == "mismatch"
    assert "weights.safetensors" in letter["reason"]

    run.decisions.clear()
    feed_until(run, model.version, timeout_s=10)
    assert {d["model_version"] for d in run.decisions} == {model.version}
    assert run.restarts == 0
