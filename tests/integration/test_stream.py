"""`sluice stream`: an archive through the cluster, equal to the offline score."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl.registry import ModelVersion
from connectors.archive import write_archive
from connectors.demo import DemoWorld
from connectors.records import MODALITIES
from pipelines import stack
from pipelines.operators.read import now_ms
from pipelines.score_offline import score_archive
from pipelines.stream import stream

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_stream_decides_what_the_offline_score_says(
    local: stack.Stack, model: ModelVersion, tmp_path: Path, nodes: int
) -> None:
    archive = DemoWorld(5).past(300, now_ms() - 86_400_000)
    write_archive(tmp_path, archive)
    done = stream(local, tmp_path, model.folder, nodes=nodes)

    assert done.balance.lost == 0
    assert done.balance.duplicated == 0
    assert done.balance.decided == archive.events
    assert done.restarts == 0
    last = {}
    for row in done.decisions.to_pylist():
        present = [m for m in MODALITIES if row[f"gate_{m}"] > 0]
        assert set(present) <= set(row["modalities"])
        if row["revision"] >= last.get(row["case_id"], row)["revision"]:
            last[row["case_id"]] = row
    offline, dead = score_archive(archive, model.folder, None, None)
    assert not dead
    for row in offline.to_pylist():
        streamed = last[row["case_id"]]
        assert streamed["modalities"] == row["modalities"]
        assert streamed["score"] == pytest.approx(row["score"], abs=1e-5)


def test_the_manifest_tells_what_each_form_of_text_gains_and_loses(
    model: ModelVersion,
) -> None:
    told = model.manifest.metrics["serving"]["text"]
    assert set(told["measured"]) >= {"torch", "float32", "bfloat16", "int8"}
    chosen = told["measured"][told["form"]]
    assert chosen["cosine"] >= 0.99
    assert chosen["drift"] <= 1e-5
