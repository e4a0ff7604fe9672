import json

import numpy as np
import pytest

from automl.registry import load_manifest
from connectors.codec import decode_frame
from connectors.schemas import DECISIONS, feature_names
from pipelines.decide import decision_frames
from pipelines.decision_ids import decision_id
from pipelines.operators.assemble import Case, Landing, land
from pipelines.operators.undecided import of_pending
from pipelines.scorer import Scored

AT_MS, DECIDED_MS = 1_760_000_000_123, 1_760_000_000_456
WIDTH = 16


@pytest.fixture(scope="module")
def manifest(model_folder):
    return load_manifest(model_folder)


@pytest.fixture
def pending():
    """Case a with its payment and its text, case b with its payment."""
    a, b = Case("a"), Case("b")
    vector = np.full(WIDTH, 0.25, np.float32)
    found = land(a, Landing("a.tab", 1, 0, AT_MS, 7, np.arange(6.0), 30, 4))
    found += land(b, Landing("b.tab", 2, 0, AT_MS + 1, 0, np.arange(6.0) + 10))
    return [*found, *land(a, Landing("a.txt", 3, 1, AT_MS + 2, 9, vector))]


def scored_as(*scores):
    rows = len(scores)
    score = np.array(scores)
    return Scored(
        score=score,
        alert=score >= 0.5,
        gates=np.tile(np.float32([1, 0.25, 0, 0]), (rows, 1)),
        fused=np.eye(rows, WIDTH, dtype=np.float32),
        vectors=np.full((rows, 4, WIDTH), 0.5, np.float32),
        tree_logit=np.zeros(rows),
        said=np.tile(np.float32([0, 2, 0, 0, 0, 0, 0, 0, 0, 0]), (rows, 1)),
    )


def scored_none(*scores):
    scored = scored_as(*scores)
    scored.fused[:] = 0
    return scored


def frames(manifest, pending, scored, reasons=None, changed=()):
    """What a batch causes when some of its rows changed what a case was told."""
    given = of_pending(pending, features=6, width=WIDTH)
    out = decision_frames(manifest, given, scored, reasons or {}, changed, DECIDED_MS)
    found = {}
    for topic, key, value in out:
        if topic == "alerts":
            found.setdefault(topic, []).append((key, json.loads(value)))
        else:
            assert key == ""
            assert topic not in found
            found[topic] = decode_frame(value)
    return found


def test_a_decision_is_one_row_with_all_it_rests_on(manifest, pending):
    reasons = {1: [{"feature": "amount"}]}
    found = frames(manifest, pending, scored_as(0.1, 0.9, 0.2), reasons)["decisions"]
    assert found.schema == DECISIONS
    rows = found.to_pylist()
    assert [r["decision_id"] for r in rows] == [
        decision_id("tiny", case) for case in "aba"
    ]
    assert [(r["case_id"], r["revision"]) for r in rows] == [
        ("a", 0),
        ("b", 0),
        ("a", 1),
    ]
    assert [r["event_id"] for r in rows] == ["a.tab", "b.tab", "a.txt"]
    assert [r["modality"] for r in rows] == ["tabular", "tabular", "text"]
    assert [r["score"] for r in rows] == [0.1, 0.9, 0.2]
    assert [r["alert"] for r in rows] == [False, True, False]
    assert [r["modalities"] for r in rows] == [
        ["tabular"],
        ["tabular"],
        ["tabular", "text"],
    ]
    assert [r["gate_text"] for r in rows] == [0.25] * 3
    assert [r["evidence"] for r in rows] == [[], [], [0, 2] + 8 * [0]]
    assert [json.loads(r["reasons"]) for r in rows] == [[], reasons[1], []]
    assert [r["created_ms"] for r in rows] == [7, 0, 9]
    assert {r["decided_at"].timestamp() for r in rows} == {DECIDED_MS / 1000}
    assert [r["event_time"].timestamp() * 1000 for r in rows] == [
        AT_MS,
        AT_MS + 1,
        AT_MS + 2,
    ]
    assert {(r["model_name"], r["model_version"], r["threshold"]) for r in rows} == {
        ("tiny", 1, 0.5)
    }


def test_features_leave_for_payments_alone(manifest, pending):
    found = frames(manifest, pending, scored_as(0.1, 0.9, 0.2))["features"]
    assert feature_names(found.schema) == list(manifest.features)
    rows = found.to_pylist()
    assert [r["event_id"] for r in rows] == ["a.tab", "b.tab"]
    assert [r["case_id"] for r in rows] == ["a", "b"]
    assert [(r["source_offset"], r["source_row"]) for r in rows] == [(30, 4), (0, -1)]
    assert [r["values"] for r in rows] == [
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        [10.0, 11.0, 12.0, 13.0, 14.0, 15.0],
    ]
    assert "features" not in frames(manifest, pending[2:], scored_as(0.1))


def test_the_fused_vector_of_each_case_as_it_now_stands_leaves(manifest, pending):
    scored = scored_as(0.1, 0.9, 0.2)
    rows = frames(manifest, pending, scored)["vectors"].to_pylist()
    assert [(r["event_id"], r["modality"]) for r in rows] == [
        ("a/fused", "fused"),
        ("b/fused", "fused"),
    ]
    # case a as it stands after its text, the third row of the batch
    assert rows[0]["vector"] == scored.fused[2].tolist()
    assert rows[1]["vector"] == scored.fused[1].tolist()
    assert {r["fingerprint"] for r in rows} == {manifest.fingerprints["fused"]}


def test_a_case_without_media_has_no_fused_vector(manifest, pending):
    scored = scored_as(0.1, 0.9, 0.2)
    scored.fused[:2] = 0  # the payments, each scored by the trees alone
    rows = frames(manifest, pending, scored)["vectors"].to_pylist()
    assert [r["event_id"] for r in rows] == ["a/fused"]
    assert rows[0]["vector"] == scored.fused[2].tolist()
    none = frames(manifest, pending[:2], scored_none(0.1, 0.9))
    assert set(none) == {"decisions", "features"}


def test_an_alert_leaves_for_every_row_that_changed_one(manifest, pending):
    reasons = {0: [{"why": 1}]}
    scored = scored_as(0.7, 0.9, 0.2)
    found = frames(manifest, pending, scored, reasons, changed=[0, 2])
    told = [(key, a["revision"], a["alert"]) for key, a in found["alerts"]]
    assert told == [("a", 0, True), ("a", 1, False)]
    first = found["alerts"][0][1]
    assert first["reasons"] == [{"why": 1}]
    assert first["score"] == 0.7
    assert first["gates"] == {"tabular": 1, "text": 0.25, "image": 0, "audio": 0}
    assert first["event_time"] == "2025-10-09T08:53:20.123000+00:00"
    assert first["decided_at"] == "2025-10-09T08:53:20.456000+00:00"
    assert "alerts" not in frames(manifest, pending, scored, reasons)
