import copy
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from automl.keys import key_of, text_keys
from automl.registry import load_manifest
from connectors.codec import decode_frame
from connectors.origins import Origins
from connectors.records import Place
from connectors.rows import CASE_KEY, EventRows
from connectors.schemas import feature_names
from pipelines.operators import shards
from pipelines.operators.aggregate import windows_column
from pipelines.operators.score import ScoreCases

AT_MS = 1_760_000_000_000
WIDTH = 16
FRAUD, HONEST = 90.0, 10.0


@pytest.fixture
def operator(runtime, settings):
    return runtime.open(ScoreCases(settings))


def shard_of(case_id):
    return shards.shard_of(key_of(case_id), 4)


@pytest.fixture
def pay():
    """Tabular rows as they reach the scorer, window features in place.

    Each of `(case, amount)`, or of `(case, amount, event)`.
    """

    def make(*events):
        count = len(events)
        cases = pa.array([f"k{event[0]}" for event in events])
        ids = pa.array([f"e{event[-1] if event[2:] else event[0]}" for event in events])
        place = Place(topic="run.events.tabular", partition=0, offset=7)
        return EventRows(
            modality="tabular",
            event_id=ids,
            case_id=cases,
            event_time_ms=np.full(count, AT_MS),
            created_ms=np.zeros(count, dtype=np.int64),
            origins=Origins.of_frame(place, np.arange(count, dtype=np.int32)),
            columns={
                "amount": np.array([float(event[1]) for event in events]),
                CASE_KEY: text_keys(cases),
                windows_column("customer"): np.full((count, 3), 50.0),
                windows_column("terminal"): np.full((count, 1), 50.0),
            },
        )

    return make


@pytest.fixture(scope="module")
def fingerprints(model_folder):
    return load_manifest(model_folder).fingerprints


@pytest.fixture
def embed(fingerprints):
    """Embedding rows `(case, modality)`; the vector points along axis `at`."""

    def make(*landed, at=0, fingerprint=None):
        vectors = np.zeros((len(landed), WIDTH), dtype=np.float32)
        vectors[:, at] = 1.0
        names = [modality for _, modality in landed]
        prints = [fingerprint or fingerprints.get(name, "?") for name in names]
        place = Place(topic="run.embeddings", partition=0, offset=2)
        return EventRows(
            modality="embedding",
            event_id=pa.array([f"k{n}.{modality}" for n, modality in landed]),
            case_id=pa.array([f"k{n}" for n, _ in landed]),
            event_time_ms=np.full(len(landed), AT_MS),
            created_ms=np.zeros(len(landed), dtype=np.int64),
            origins=Origins.of_frame(place, np.arange(len(landed), dtype=np.int32)),
            columns={
                "modality": pa.array(names),
                "fingerprint": pa.array(prints),
                "vector": vectors,
            },
        )

    return make


def announcement(folder, version, name="tiny"):
    place = {"topic": "run.models", "partition": 0, "offset": 1}
    return {"name": name, "version": version, "folder": str(folder), "place": place}


@pytest.fixture
def run(runtime, tables):
    """All that values of this node cause."""

    def give(operator, *values):
        return tables([row for v in values for row in runtime.give(operator, 0, v)])

    return give


@pytest.fixture
def decide(run):
    """Decisions that values of this node cause."""
    return lambda operator, *values: run(operator, *values).get("run.decisions", [])


def story(decisions):
    return [(d["case_id"], d["revision"], d["modalities"]) for d in decisions]


def test_a_payment_is_decided_at_once(operator, run, pay):
    found = run(operator, pay((1, FRAUD)))
    assert set(found) == {"run.decisions", "run.features", "run.alerts"}
    (decision,) = found["run.decisions"]
    assert decision["case_id"] == "k1"
    assert decision["revision"] == 0
    assert decision["modalities"] == ["tabular"]
    assert (decision["model_name"], decision["model_version"]) == ("tiny", 1)
    assert decision["threshold"] == 0.5
    assert decision["alert"] is (decision["score"] >= 0.5) is True
    gates = [decision[f"gate_{m}"] for m in ("tabular", "text", "image", "audio")]
    assert gates == [1, 0, 0, 0]
    # the trees alone speak, and they look at the amount
    logit = operator._model.scorer.tree.predict_logit(
        np.array([[FRAUD, 0.0, 50.0, 50.0, 50.0, 50.0]])
    )
    assert decision["score"] == pytest.approx(1 / (1 + np.exp(-logit[0])), abs=1e-6)
    reasons = json.loads(decision["reasons"])
    assert any("amount" in json.dumps(reason) for reason in reasons)


def test_features_leave_beside_the_decision_of_a_payment(
    runtime, operator, run, pay, embed
):
    out = runtime.give(operator, 0, pay((1, FRAUD), (2, HONEST)))
    (frame,) = [decode_frame(x) for topic, _, x in out if topic == "run.features"]
    names = feature_names(frame.schema)
    assert names == ["amount", "hour<=6", "paid", "abroad", "places", "visits"]
    assert frame["event_id"].to_pylist() == ["e1", "e2"]
    assert frame["values"].to_pylist() == [
        [FRAUD, 0.0, 50.0, 50.0, 50.0, 50.0],
        [HONEST, 0.0, 50.0, 50.0, 50.0, 50.0],
    ]
    assert frame["source_offset"].to_pylist() == [7, 7]
    assert frame["source_row"].to_pylist() == [0, 1]
    assert "run.features" not in run(operator, embed((1, "text")))


def test_a_fused_vector_leaves_beside_the_decision_of_media(
    operator, run, pay, embed, fingerprints
):
    # the encode job makes the vector of a payment, from its features
    assert "run.vectors" not in run(operator, pay((1, FRAUD), (2, HONEST)))
    (vector,) = run(operator, embed((1, "text")))["run.vectors"]
    assert (vector["event_id"], vector["case_id"]) == ("k1/fused", "k1")
    assert vector["modality"] == "fused"
    assert vector["fingerprint"] == fingerprints["fused"]
    assert np.linalg.norm(vector["vector"]) == pytest.approx(1, abs=1e-5)


def test_decisions_of_all_shards_of_a_frame_are_made_in_one_call(operator, decide, pay):
    scorer, calls = operator._model.scorer, []
    score = scorer.score
    scorer.score = lambda x, *rest: calls.append(len(x)) or score(x, *rest)
    made = decide(operator, pay(*((n, HONEST) for n in range(20))))
    assert sorted(d["case_id"] for d in made) == sorted(f"k{n}" for n in range(20))
    assert calls == [20]


def test_every_landed_event_revises_the_decision(operator, decide, pay, embed):
    made = decide(operator, pay((1, HONEST)), embed((1, "text")), embed((1, "image")))
    assert story(made) == [
        ("k1", 0, ["tabular"]),
        ("k1", 1, ["tabular", "text"]),
        ("k1", 2, ["tabular", "text", "image"]),
    ]
    assert len({d["decision_id"] for d in made}) == 1
    assert len({d["score"] for d in made}) == 3
    assert made[1]["gate_text"] > 0
    assert made[1]["gate_image"] == 0
    assert [d["modality"] for d in made] == ["tabular", "text", "image"]


def test_media_that_come_first_wait_for_the_payment(operator, decide, pay, embed):
    early = decide(operator, embed((1, "text"), (1, "image")))
    assert early == []
    made = decide(operator, pay((1, HONEST)))
    assert story(made) == [
        ("k1", 0, ["tabular"]),
        ("k1", 1, ["tabular", "text"]),
        ("k1", 2, ["tabular", "text", "image"]),
    ]


def test_the_order_of_the_topics_does_not_change_a_decision(
    new_runtime, settings, pay, embed, tables
):
    values = [pay((1, HONEST)), embed((1, "text")), embed((1, "image"), at=1)]
    scores = []
    for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0)):
        runtime = new_runtime()
        operator = runtime.open(ScoreCases(settings))
        out = []
        for i in order:
            out += runtime.give(operator, 0, values[i])
        made = tables(out)["run.decisions"]
        scores.append([(d["revision"], d["event_id"], d["score"]) for d in made])
    assert scores[0] == scores[1] == scores[2]


def test_an_event_that_comes_again_decides_nothing(operator, decide, pay, embed):
    assert len(decide(operator, pay((1, HONEST)), embed((1, "text")))) == 2
    assert decide(operator, pay((1, FRAUD)), embed((1, "text"))) == []


def test_an_alert_leaves_when_it_changes_and_only_then(
    runtime, operator, run, pay, embed, tables
):
    out = runtime.give(operator, 0, pay((1, FRAUD), (2, HONEST)))
    (alert,) = tables(out)["run.alerts"]
    assert (alert["case_id"], alert["revision"], alert["alert"]) == ("k1", 0, True)
    assert alert["score"] >= alert["threshold"] == 0.5
    assert alert["reasons"]
    assert set(alert["gates"]) == {"tabular", "text", "image", "audio"}
    assert [row[1] for row in out if row[0] == "run.alerts"] == [b"k1"]

    # find words that raise and words that lower the score of the fusion's text
    own = operator._model.scorer.fusion.model.line[1].numpy()
    down, up = int(np.argmin(own)), int(np.argmax(own))
    still = run(operator, embed((1, "text"), at=up))
    assert still["run.decisions"][0]["alert"] is True
    assert "run.alerts" not in still
    fallen = embed((1, "text"), at=down)
    fallen.event_id = pa.array(["another"])
    fell = run(operator, fallen)
    assert fell["run.decisions"][0]["alert"] is False
    assert [(a["revision"], a["alert"]) for a in fell["run.alerts"]] == [(2, False)]


def test_a_case_of_media_alone_is_decided_after_its_wait(
    runtime, operator, decide, embed, pay, tables
):
    runtime.give(operator, 0, embed((1, "text"), (1, "image")))
    # released at the tick after five seconds
    assert runtime.wait(operator, 4999) == []
    made = tables(runtime.wait(operator, 1))["run.decisions"]
    assert story(made) == [("k1", 0, ["text"]), ("k1", 1, ["text", "image"])]
    assert runtime.wait(operator, 20_000) == []
    # the payment that comes at last is one more revision
    assert story(decide(operator, pay((1, FRAUD)))) == [
        ("k1", 2, ["tabular", "text", "image"])
    ]


def test_an_embedding_of_another_encoder_is_set_aside(operator, run, pay, embed):
    run(operator, pay((1, HONEST)))
    found = run(operator, embed((1, "text"), fingerprint="0" * 16))
    assert set(found) == {"run.dead-letters"}
    (letter,) = found["run.dead-letters"]
    assert letter["kind"] == "mismatch"
    assert letter["event_id"] == "k1.text"
    assert "made by encoder 0000000000000000, the model takes text" in letter["reason"]
    # a modality the model does not know at all
    found = run(operator, embed((1, "audio"), fingerprint="x"))
    assert set(found) == {"run.dead-letters"}


@pytest.mark.parametrize("modality", ["fused", "tabular", "smell"])
def test_a_vector_that_is_no_embedding_of_a_medium_is_set_aside(
    operator, run, embed, modality
):
    found = run(operator, embed((1, modality)))
    assert set(found) == {"run.dead-letters"}
    assert [x["kind"] for x in found["run.dead-letters"]] == ["mismatch"]


def test_a_vector_of_another_width_is_set_aside(operator, run, embed):
    rows = embed((1, "text"))
    rows.columns["vector"] = rows.columns["vector"][:, :8]
    found = run(operator, rows)
    assert set(found) == {"run.dead-letters"}
    assert [x["kind"] for x in found["run.dead-letters"]] == ["mismatch"]


def test_the_good_embeddings_beside_a_foreign_one_land(operator, run, pay, embed):
    run(operator, pay((1, HONEST)))
    mixed = embed((1, "text"), (1, "image"))
    mixed.columns["fingerprint"] = pa.array(
        ["other", mixed.columns["fingerprint"][1].as_py()]
    )
    found = run(operator, mixed)
    assert story(found["run.decisions"]) == [("k1", 1, ["tabular", "image"])]
    assert len(found["run.dead-letters"]) == 1


def test_an_announced_version_decides_from_then_on(operator, decide, pay, registry):
    v2 = announcement(registry.get("tiny", 2).folder, 2)
    made = decide(operator, pay((1, FRAUD)), v2, pay((2, FRAUD)))
    assert [d["model_version"] for d in made] == [1, 2]
    assert [d["threshold"] for d in made] == [0.5, 0.4]
    assert made[0]["score"] != made[1]["score"]
    v1 = announcement(registry.get("tiny", 1).folder, 1)
    (back,) = decide(operator, v1, pay((3, FRAUD)))
    assert (back["model_version"], back["score"]) == (1, made[0]["score"])


def test_another_models_announcement_is_not_ours(operator, decide, pay, registry):
    other = announcement(registry.get("tiny", 2).folder, 2, name="another")
    (made,) = decide(operator, other, pay((1, FRAUD)))
    assert made["model_version"] == 1


@pytest.fixture
def altered(registry, tmp_path):
    folder = tmp_path / "v0003"
    shutil.copytree(registry.get("tiny", 2).folder, folder)
    tree = folder / "tree.txt"
    tree.write_text(tree.read_text().replace("0", "1", 1))
    return folder


def test_an_altered_version_is_refused_and_the_old_one_goes_on(
    runtime, operator, decide, pay, altered, tables
):
    out = runtime.give(operator, 0, announcement(altered, 3))
    (letter,) = tables(out)["run.dead-letters"]
    assert letter["kind"] == "mismatch"
    assert (letter["topic"], letter["offset"]) == ("run.models", 1)
    assert letter["reason"].startswith("model refused, v1 stays: verify: ")
    assert "tree.txt: altered or cut short" in letter["reason"]
    assert json.loads(letter["value"])["version"] == 3
    (made,) = decide(operator, pay((1, FRAUD)))
    assert made["model_version"] == 1


def test_a_refused_version_is_told_once(runtime, operator, altered, tables):
    out = [
        row
        for _ in range(4)
        for row in runtime.give(operator, 0, announcement(altered, 3))
    ]
    assert len(tables(out)["run.dead-letters"]) == 1


def test_a_folder_that_is_gone_is_refused(runtime, operator, tmp_path, tables):
    out = runtime.give(operator, 0, announcement(tmp_path / "gone", 9))
    assert "manifest.json" in tables(out)["run.dead-letters"][0]["reason"]


def test_a_restart_goes_on_with_revisions_and_model(
    runtime, operator, settings, decide, pay, embed, registry
):
    v2 = announcement(registry.get("tiny", 2).folder, 2)
    decide(operator, v2, pay((1, FRAUD)), embed((1, "text"), (2, "text")))
    restarted = runtime.open(ScoreCases(settings))
    made = decide(restarted, embed((1, "image")), embed((1, "text")), pay((2, HONEST)))
    assert story(made) == [
        ("k1", 2, ["tabular", "text", "image"]),
        ("k2", 0, ["tabular"]),
        ("k2", 1, ["tabular", "text"]),
    ]
    assert {d["model_version"] for d in made} == {2}


def test_a_decision_repeated_after_a_failure_is_as_it_was(
    runtime, operator, settings, run, pay
):
    checkpoint = copy.deepcopy(runtime.kept)
    first = run(operator, pay((1, FRAUD), (2, HONEST)))
    runtime.kept = checkpoint
    restarted = runtime.open(ScoreCases(settings))
    # in other company than before
    again = run(restarted, pay((1, FRAUD), (3, HONEST)), pay((2, HONEST)))
    made = {d["case_id"]: d for d in again["run.decisions"]}
    for decision in first["run.decisions"]:
        same = made[decision["case_id"]] | {"decided_at": decision["decided_at"]}
        assert same == decision
    assert [a["case_id"] for a in again["run.alerts"]] == ["k1"]


def test_held_media_are_still_released_after_a_restart(
    runtime, operator, settings, decide, embed, tables
):
    decide(operator, embed((1, "text")))
    restarted = runtime.open(ScoreCases(settings))
    made = tables(runtime.wait(restarted, 7000))["run.decisions"]
    assert story(made) == [("k1", 0, ["text"])]


def test_a_refused_version_does_not_cost_the_one_before_it_at_a_restart(
    runtime, operator, settings, decide, pay, registry, altered
):
    decide(operator, announcement(registry.get("tiny", 2).folder, 2))
    decide(operator, announcement(altered, 3))
    restarted = runtime.open(ScoreCases(settings))
    (made,) = decide(restarted, pay((1, FRAUD)))
    assert made["model_version"] == 2


def test_another_models_announcement_does_not_cost_ours_at_a_restart(
    runtime, operator, settings, decide, pay, registry
):
    decide(operator, announcement(registry.get("tiny", 2).folder, 2))
    decide(operator, announcement("/elsewhere", 7, name="another"))
    restarted = runtime.open(ScoreCases(settings))
    (made,) = decide(restarted, pay((1, FRAUD)))
    assert made["model_version"] == 2


def test_media_that_were_released_are_no_longer_held(
    runtime, operator, decide, pay, embed
):
    decide(operator, embed((1, "text"), (2, "text")), pay((1, HONEST)))
    held = {
        k for (name, _), kept in runtime.kept.items() if name == "held" for k in kept
    }
    assert held == {"k2"}
    runtime.wait(operator, 6000)
    assert not any(kept for (name, _), kept in runtime.kept.items() if name == "held")
    runtime.wait(operator, 1000)
    assert runtime.timers == []


def test_media_are_not_forgotten_while_they_wait(
    runtime, operator, settings, embed, tables
):
    runtime.give(operator, 0, embed((1, "text")))
    runtime.clock_ms += 86_400_000  # the job was down for longer than a case is kept
    made = tables(runtime.wait(runtime.open(ScoreCases(settings)), 1000))
    assert story(made["run.decisions"]) == [("k1", 0, ["text"])]


def test_old_cases_are_forgotten(runtime, settings, decide, pay):
    operator = runtime.open(ScoreCases({**settings, "case_ttl_s": 60}))
    decide(operator, pay((1, HONEST)))
    runtime.wait(operator, 40_000)
    decide(operator, pay((2, HONEST)))
    runtime.wait(operator, 59_000)
    again = decide(operator, pay((1, HONEST), (2, HONEST)))
    assert story(again) == [("k1", 0, ["tabular"])]


def test_a_frame_of_new_cases_costs_one_entry_a_shard(runtime, operator, pay):
    runtime.give(operator, 0, pay(*((n, HONEST) for n in range(9))))
    kept = {place: len(entries) for place, entries in runtime.kept.items() if entries}
    assert kept == {("first", shard_of(f"k{n}")): 1 for n in range(9)}
    runtime.give(operator, 0, pay(*((n, HONEST) for n in range(9))))
    assert {p: len(entries) for p, entries in runtime.kept.items() if entries} == kept


def test_cases_of_two_shards_are_kept_apart(runtime, operator, pay):
    for event in ("a", "b"):
        runtime.give(operator, 0, pay(*((n, HONEST, event) for n in range(9))))
    kept = {
        case_id: shard
        for (name, shard), cases in runtime.kept.items()
        if name == "cases"
        for case_id in cases
    }
    assert kept == {f"k{n}": shard_of(f"k{n}") for n in range(9)}


def test_a_node_touches_its_own_shards_only(new_runtime, settings, pay):
    runtime = new_runtime()
    runtime.groups = range(2, 4)
    operator = runtime.open(ScoreCases({**settings, "nodes": 2}))
    mine = [n for n in range(20) if shard_of(f"k{n}") in runtime.groups]
    for event in ("a", "b"):
        runtime.give(operator, 2, pay(*((n, HONEST, event) for n in mine)))
    assert {shard for _, shard in runtime.kept} == {2, 3}


def test_a_second_payment_of_the_same_frame_revises_the_first(operator, run, pay):
    frame = pay((1, FRAUD, "a"), (2, HONEST), (1, HONEST, "b"), (1, FRAUD, "a"))
    found = run(operator, frame)
    made = [
        (d["case_id"], d["revision"], d["event_id"]) for d in found["run.decisions"]
    ]
    assert made == [("k1", 0, "ea"), ("k2", 0, "e2"), ("k1", 1, "eb")]
    told = [(a["case_id"], a["revision"], a["alert"]) for a in found["run.alerts"]]
    assert told == [("k1", 0, True), ("k1", 1, False)]
    # and so it stays known
    again = run(operator, pay((1, FRAUD, "a")), pay((1, HONEST, "b")))
    assert again == {}
    later = run(operator, pay((1, FRAUD, "c")))
    assert [(a["revision"], a["alert"]) for a in later["run.alerts"]] == [(2, True)]


@pytest.mark.parametrize("restart", [False, True])
def test_an_alert_of_a_first_payment_is_remembered(
    runtime, operator, settings, run, pay, restart
):
    run(operator, pay((1, FRAUD), (2, HONEST)))
    if restart:
        operator = runtime.open(ScoreCases(settings))
    # the same alert again is no news, its end is
    assert "run.alerts" not in run(operator, pay((1, FRAUD, "b"), (2, HONEST, "b")))
    ended = run(operator, pay((1, HONEST, "c"), (2, HONEST, "c")))
    assert [(a["case_id"], a["alert"]) for a in ended["run.alerts"]] == [("k1", False)]
