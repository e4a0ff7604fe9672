import json
import math

import numpy as np
import pyarrow as pa
import pytest

from automl.candidates import TreeCandidate
from connectors.archive import Archive
from connectors.schemas import DECISIONS, TIME
from encoders import load_encoders
from fusion.scorer import FusionScorer
from fusion.store import load_fusion
from pipelines import score_offline as module
from pipelines.decision_ids import decision_id
from pipelines.score_offline import score_archive

DAY_MS = 86_400_000
#: 2025-10-09 00:00 UTC
FIRST_MS = 1_759_968_000_000


def table(columns, *rows):
    """Rows as (event_id, case_id, ms after the first day began, content...)."""
    names = ("event_id", "case_id", "at", *columns)
    cells = dict(zip(names, zip(*rows, strict=True), strict=True))
    at = pa.array([FIRST_MS + ms for ms in cells.pop("at")], TIME)
    return pa.table({**cells, "event_time": at})


@pytest.fixture
def archive():
    """Cases a (with a text) and b on the first day, c and a broken one on the next."""
    columns = ("amount", "foreign", "customer", "terminal")
    tabular = table(
        columns,
        ("a.t", "a", 7 * 3_600_000, 90.0, True, "x", "p"),
        ("b.t", "b", 7 * 3_600_000 + 4000, 10.0, False, "x", "q"),
        ("c.t", "c", DAY_MS, 80.0, False, "y", "p"),
        ("d.t", "d", DAY_MS + 1, None, False, "y", "p"),
    )
    text = table(("text",), ("a.x", "a", 5, "free prize now"), ("z.x", "z", 5, "call"))
    return Archive(tables={"tabular": tabular, "text": text})


#: amount, hour<=6, paid 1m, abroad 10s, places 1m, visits 1m: worked out by hand
A = [90.0, 0.0, 90.0, 1.0, 1.0, 1.0]
B = [10.0, 0.0, 100.0, 0.5, 2.0, 1.0]
C = [80.0, 1.0, 80.0, 0.0, 1.0, 1.0]


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def test_payments_alone_are_scored_by_the_trees(archive, model_folder):
    del archive.tables["text"]
    found, _ = score_archive(archive, model_folder, None, None)
    assert found.schema == DECISIONS
    assert found["case_id"].to_pylist() == ["a", "b", "c"]
    tree = TreeCandidate.load(model_folder / "tree.txt")
    expected = [sigmoid(x) for x in tree.predict_logit(np.array([A, B, C]))]
    assert found["score"].to_pylist() == pytest.approx(expected, abs=1e-6)
    assert found["alert"].to_pylist() == [True, False, True]


def test_a_decision_says_what_it_rests_on(archive, model_folder):
    found, _ = score_archive(archive, model_folder, None, None)
    a, b, _ = found.to_pylist()
    assert a["decision_id"] == decision_id("tiny", "a")
    assert (a["event_id"], a["modality"], a["revision"]) == ("a.t", "tabular", 1)
    assert (b["event_id"], b["revision"]) == ("b.t", 0)
    assert a["modalities"] == ["tabular", "text"]
    assert b["modalities"] == ["tabular"]
    assert (a["model_name"], a["model_version"], a["threshold"]) == ("tiny", 1, 0.5)
    assert a["event_time"].timestamp() * 1000 == FIRST_MS + 7 * 3_600_000
    assert json.loads(b["reasons"]) == []
    # a is an alert exactly when its score says so, and then it has its reasons
    assert a["alert"] == (a["score"] >= 0.5)
    assert bool(json.loads(a["reasons"])) == a["alert"]


def test_a_text_adds_what_the_fusion_makes_of_it(archive, model_folder):
    found, _ = score_archive(archive, model_folder, None, None)
    encoders = load_encoders(model_folder / "encoders")
    vectors = np.zeros((1, 4, 16), np.float32)
    for column, modality, payload in (
        (0, "tabular", np.array(A)),
        (1, "text", "free prize now"),
    ):
        encoder = encoders[modality]
        vectors[0, column] = encoder.encode([encoder.decode(payload)])[0]
    mask = np.array([[True, True, False, False]])
    tree_logit = TreeCandidate.load(model_folder / "tree.txt").predict_logit(
        np.array([A])
    )
    fusion = FusionScorer(load_fusion(model_folder / "fusion", width=16))
    logit, gates, *_ = fusion.score(vectors, mask, tree_logit)
    a = found.to_pylist()[0]
    assert a["score"] == pytest.approx(sigmoid(logit[0]), abs=1e-5)
    assert a["score"] != pytest.approx(sigmoid(tree_logit[0]), abs=1e-4)
    assert a["gate_text"] == pytest.approx(gates[0, 1], abs=1e-3)
    assert a["gate_image"] == a["gate_audio"] == 0


def test_what_cannot_be_used_comes_back_with_its_reason(archive, model_folder):
    _, dead = score_archive(archive, model_folder, None, None)
    assert [(x.event_id, x.reason) for x in dead] == [
        ("d.t", "amount: expected a number, got NoneType None")
    ]


@pytest.mark.parametrize(
    ("since", "until", "kept"),
    [
        ("2025-10-10", None, ["c"]),
        (None, "2025-10-10", ["a", "b"]),
        ("2025-10-09", "2025-10-11", ["a", "b", "c"]),
        ("2025-10-11", None, []),
    ],
)
def test_only_the_cases_of_the_asked_days_are_decided(
    archive, model_folder, since, until, kept
):
    found, dead = score_archive(archive, model_folder, since, until)
    assert found["case_id"].to_pylist() == kept
    assert found.schema == DECISIONS
    assert len(dead) == 1


def test_windows_reach_back_before_the_asked_days(archive, model_folder):
    # the day before, 10 s before c: same customer, another terminal
    before = table(
        ("amount", "foreign", "customer", "terminal"),
        ("0.t", "0", DAY_MS - 9_000, 20.0, True, "y", "q"),
    )
    tabular = pa.concat_tables([archive.tables["tabular"], before])
    archive.tables["tabular"] = tabular.sort_by("event_time")
    found, _ = score_archive(archive, model_folder, "2025-10-10", None)
    tree = TreeCandidate.load(model_folder / "tree.txt")
    x = np.array([[80.0, 1.0, 100.0, 0.5, 2.0, 1.0]])
    expected = sigmoid(tree.predict_logit(x)[0])
    assert found["case_id"].to_pylist() == ["c"]
    assert found["score"].to_pylist() == pytest.approx([expected], abs=1e-6)


def test_batches_do_not_change_decisions(archive, model_folder, monkeypatch):
    whole, _ = score_archive(archive, model_folder, None, None)
    monkeypatch.setattr(module, "BATCH_ROWS", 1)
    single, _ = score_archive(archive, model_folder, None, None)
    drop = ["decided_at", "score"]
    assert single.drop_columns(drop) == whole.drop_columns(drop)
    scores = whole["score"].to_pylist()
    assert single["score"].to_pylist() == pytest.approx(scores, abs=1e-5)
