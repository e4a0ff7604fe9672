import dataclasses
import json
import shutil
import threading

import numpy as np
import pyarrow as pa
import pytest

from automl.candidates import TreeCandidate
from automl.registry import Registry, verify
from automl.task import TaskSpec
from connectors.codec import decode_frame, encode_frame
from connectors.kafka import Value
from connectors.labels import Label, labels_frame
from connectors.records import MODALITIES, Place
from connectors.schemas import DECISIONS, TIME, features_schema, frame_of
from pipelines import retrain_job as module
from pipelines.fitted_rows import FittedRows
from pipelines.retrain_job import RetrainConfig, Retrainer
from pipelines.scorer import TREE_FILE
from tests.pipelines.test_followed_trust import decided, wrong_half_the_time

FEATURES = ("amount", "age")
TASK = TaskSpec.from_json({"name": "tiny", "features": list(FEATURES)}).resolve(
    dict.fromkeys(FEATURES, "number")
)
FINGERPRINTS = {"text": "0123456789abcdef", "fused": "f" * 16}
CASES = 300
START_MS = 1_760_000_000_000


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A registry whose champion says: an amount above 50 is fraud."""
    x = np.random.default_rng(0).uniform(0, 100, (200, 2))
    y = (x[:, 0] > 50).astype(np.int64)
    stage = tmp_path_factory.mktemp("stage")
    TreeCandidate.fit(x, y, seed=0).save(stage / TREE_FILE)
    FittedRows(x, y, np.arange(200)).write(stage)
    (stage / "fusion").mkdir()
    (stage / "fusion" / "weights").write_bytes(b"carried over")
    registry = Registry(tmp_path_factory.mktemp("models"))
    registry.save(
        "tiny",
        stage,
        parent=None,
        task={**TASK.to_dict(), "alerts_per_day": 20.0},
        features=FEATURES,
        width=8,
        modalities=MODALITIES,
        fingerprints=FINGERPRINTS,
        threshold=0.5,
        prior_logit=0.0,
        metrics={},
        created_at="2026-01-01T00:00:00+00:00",
    )
    registry.promote("tiny", 1)
    return registry


@pytest.fixture
def registry(first, tmp_path):
    """A copy to store further versions in."""
    return Registry(shutil.copytree(first.root, tmp_path / "models"))


@pytest.fixture
def config(registry):
    return RetrainConfig(
        bootstrap="b:1",
        registry=registry.root,
        name="tiny",
        prefix="run.",
        first_labels=CASES,
        every_labels=50,
    )


@pytest.fixture
def retrainer(config):
    return Retrainer(config)


def value(topic, content, offset=3):
    place = Place(topic=f"run.{topic}", partition=0, offset=offset)
    return Value(place=place, key=None, value=content, timestamp_ms=0)


def ids(count):
    return [f"k{i:04d}" for i in range(count)]


def features(x, *, cases=None, start_ms=START_MS):
    """The frame that the score job writes for rows one minute apart."""
    cases = cases or ids(len(x))
    times = start_ms + 60_000 * np.arange(len(x))
    columns = {
        "event_id": [f"{case}.e" for case in cases],
        "case_id": cases,
        "event_time": times,
        "created_ms": [0] * len(x),
        "model_name": ["tiny"] * len(x),
        "model_version": [1] * len(x),
        "source_offset": [0] * len(x),
        "source_row": np.arange(len(x)),
        "values": np.asarray(x, np.float64),
    }
    return value("features", frame_of(features_schema(FEATURES), columns))


def labels(y):
    found = [
        Label(case_id=case, label_time_ms=9, label=int(one))
        for case, one in zip(ids(len(y)), y, strict=True)
    ]
    return value("labels", labels_frame(found))


def decisions(score):
    rows = len(score)
    same = {
        "decision_id": "d",
        "revision": 0,
        "event_id": "e",
        "modality": "text",
        "alert": False,
        "threshold": 0.5,
        "model_name": "tiny",
        "model_version": 1,
        "modalities": ["tabular", "text"],
        **{f"gate_{m}": 0.0 for m in MODALITIES},
        "evidence": [],
        "reasons": "[]",
        "created_ms": 0,
    }
    columns = {name: [one] * rows for name, one in same.items()}
    columns |= {n: np.ones(rows) for n in ("event_time", "decided_at")}
    columns |= {"case_id": ids(rows), "score": score}
    return value("decisions", frame_of(DECISIONS, columns))


def events(x):
    """The frame of events that `features` of the same rows were made from."""
    times = pa.array(START_MS + 60_000 * np.arange(len(x))).cast(TIME)
    columns = {
        "event_id": [f"{case}.e" for case in ids(len(x))],
        "case_id": ids(len(x)),
        "event_time": times,
        "amount": x[:, 0],
        "age": x[:, 1],
    }
    frame = encode_frame(pa.RecordBatch.from_pydict(columns))
    return value("events.tabular", frame, offset=0)


@pytest.fixture(scope="module")
def changed():
    """Cases of a world where the age decides: the champion knows nothing of it."""
    x = np.random.default_rng(1).uniform(0, 100, (CASES, 2))
    return x, (x[:, 1] > 50).astype(int)


def test_nothing_is_tried_before_there_are_enough_labelled_cases(retrainer, changed):
    x, y = changed
    retrainer.take(features(x))
    retrainer.take(labels(y[:-1]))
    assert retrainer.try_challenger() == (None, None)
    assert len(retrainer.matured) == CASES - 1


def test_cases_are_in_event_time_order_and_need_features_and_label(retrainer):
    retrainer.take(features([[1, 2]], cases=["late"], start_ms=START_MS + 8000))
    retrainer.take(features([[1, 2], [3, 4]], cases=["early", "silent"]))
    retrainer.take(features([[1, 2]], cases=["also late"], start_ms=START_MS + 8000))
    for case in ("late", "early", "also late", "unseen"):
        text = json.dumps({"case_id": case, "label_time_ms": 5, "label": 1})
        assert retrainer.take(value("labels", text.encode())) == []
    assert retrainer.matured == ["early", "also late", "late"]


@pytest.mark.parametrize(
    "bad", [b"{", None, b'{"case_id": "k", "label_time_ms": 5, "label": 2}']
)
def test_a_bad_label_is_a_dead_letter(retrainer, bad):
    (frame,) = retrainer.take(value("labels", bad))
    (letter,) = decode_frame(frame).to_pylist()
    assert (letter["topic"], letter["offset"]) == ("run.labels", 3)
    assert letter["kind"] == "unreadable"
    assert letter["value"] == bad or (bad is None and letter["value"] == b"")
    assert retrainer.matured == []


def test_something_else_among_the_features_stops_nothing(retrainer):
    assert retrainer.take(value("features", b"noise")) == []
    assert retrainer.take(value("decisions", None)) == []
    assert retrainer.matured == []


def test_a_pattern_the_champion_does_not_know_makes_a_version(
    retrainer, registry, changed
):
    x, y = changed
    retrainer.take(labels(y))  # labels may come first
    retrainer.take(features(x))
    version, verdict = retrainer.try_challenger()
    assert verdict.better
    assert verdict.figures["rows"] == 120
    assert verdict.figures["challenger_ap"] > verdict.figures["champion_ap"] + 0.2
    manifest = verify(version.folder)
    assert (manifest.version, manifest.parent) == (2, 1)
    assert manifest.fingerprints == FINGERPRINTS
    assert manifest.features == FEATURES
    assert manifest.task == registry.get("tiny", 1).manifest.task
    assert (version.folder / "fusion" / "weights").read_bytes() == b"carried over"
    assert registry.champion("tiny").version == 1  # publishing it is another step


def test_a_new_version_keeps_the_rows_it_learnt_and_a_fitting_threshold(
    retrainer, changed
):
    x, y = changed
    for one in (features(x), labels(y)):
        retrainer.take(one)
    version, _ = retrainer.try_challenger()
    known = FittedRows.read(version.folder)
    assert len(known.y) == 200 + 180
    assert known.x[200:].tolist() == x[:180].tolist()
    assert known.y[200:].tolist() == y[:180].tolist()
    assert version.manifest.metrics["fitted_cases"] == 380
    share = known.y.mean()
    prior = np.log(share / (1 - share))
    assert version.manifest.prior_logit == pytest.approx(prior)
    tree = TreeCandidate.load(version.folder / TREE_FILE)
    score = 1 / (1 + np.exp(-tree.predict_logit(x[180:])))
    # 20 alerts a day over 119 minutes: one
    assert version.manifest.threshold == pytest.approx(score.max())


def test_noise_makes_no_version(retrainer, registry):
    draw = np.random.default_rng(2)
    retrainer.take(features(draw.uniform(0, 100, (CASES, 2))))
    retrainer.take(labels(draw.integers(0, 2, CASES)))
    version, verdict = retrainer.try_challenger()
    assert version is None
    assert not verdict.better
    assert [one.version for one in registry.list("tiny")] == [1]


def test_the_next_challenger_waits_for_further_labels(retrainer):
    draw = np.random.default_rng(2)
    x, y = draw.uniform(0, 100, (CASES + 50, 2)), draw.integers(0, 2, CASES + 50)
    retrainer.take(features(x))
    retrainer.take(labels(y[:CASES]))
    assert retrainer.try_challenger()[1] is not None
    retrainer.take(labels(y[: CASES + 49]))
    assert retrainer.try_challenger() == (None, None)
    retrainer.take(labels(y))
    assert retrainer.try_challenger()[1] is not None


def test_what_the_media_added_is_added_to_both(retrainer, changed):
    x, y = changed
    for one in (features(x), labels(y)):
        retrainer.take(one)
    # together with its media the champion already tells every case
    retrainer.take(decisions(np.where(y == 1, 1 - 1e-5, 1e-5)))
    version, verdict = retrainer.try_challenger()
    assert version is None
    assert verdict.figures["champion_ap"] == 1.0


def test_a_score_rounded_to_the_end_of_its_scale_stops_nothing(retrainer, changed):
    x, y = changed
    for one in (features(x), labels(y)):
        retrainer.take(one)
    retrainer.take(decisions(y.astype(float)))
    _, verdict = retrainer.try_challenger()
    assert verdict.figures["champion_ap"] == 1.0


def test_without_a_champion_there_is_nothing_to_beat(retrainer, registry, changed):
    x, y = changed
    for one in (features(x), labels(y)):
        retrainer.take(one)
    (registry.root / "tiny" / "champion.json").unlink()
    assert retrainer.try_challenger() == (None, None)


@pytest.fixture
def ran(monkeypatch, config):
    """Runs the process on some Kafka values; gives what was sent and published."""

    def run(values, **settings):
        stop = threading.Event()
        sent, published = [], []

        class Reading:
            def __init__(self, bootstrap, topics):
                assert bootstrap == "b:1"
                assert [name.removeprefix("run.") for name in topics] == [
                    *("features", "labels", "decisions"),
                    *("events.tabular", "dead-letters"),
                ]

            def poll(self, timeout_ms):
                stop.set()
                return values

            def __enter__(self):
                return self

            def __exit__(self, *error):
                pass

        class Sending(Reading):
            def __init__(self, bootstrap):
                pass

            def send(self, topic, value, *, key):
                sent.append((topic, key))

            def flush(self):
                sent.append("flushed")

        def publish(registry, version, bootstrap, *, prefix):
            published.append((version.version, bootstrap, prefix))

        monkeypatch.setattr(module, "Reader", Reading)
        monkeypatch.setattr(module, "Producer", Sending)
        monkeypatch.setattr(module, "publish", publish)
        module.run(dataclasses.replace(config, **settings), stop)
        return sent, published

    return run


def test_the_process_publishes_and_sets_bad_labels_aside(ran, changed):
    x, y = changed
    sent, published = ran([features(x), value("labels", b"{"), labels(y)])
    assert sent == [("run.dead-letters", "labels"), "flushed"]
    assert published == [(2, "b:1", "run.")]


def test_a_version_is_published_when_what_was_served_is_the_backfill(
    ran, changed, caplog
):
    x, y = changed
    caplog.set_level("INFO")
    _, published = ran([events(x), features(x), labels(y)])
    assert published == [(2, "b:1", "run.")]
    assert "skew check of tiny v2: 0 of 300 rows differ" in caplog.text


def test_a_version_that_learnt_from_a_wrong_value_is_not_published(
    ran, changed, caplog, registry
):
    x, y = changed
    served = x.copy()
    served[250, 1] += 1e-9  # not a float that the event had
    _, published = ran([events(x), features(served), labels(y)])
    assert published == []
    assert registry.champion("tiny").version == 1
    (told,) = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert "tiny v2 is not published" in told
    assert "bug 1" in told
    assert "{'age': 1}" in told


def test_a_version_is_not_published_when_too_much_is_missing(ran, changed, caplog):
    x, y = changed
    more = np.concatenate([x, np.ones((4100, 2))])
    rows = [i for i in range(len(more)) if i not in (9, 99, 199)]
    values = [events(more), gappy_features(more, rows), labels(y)]
    settings = {"first_labels": 290}
    assert ran(values, **settings)[1] == [(2, "b:1", "run.")]  # 3 of 4400
    caplog.clear()
    assert ran(values, **settings, skew_limit=0.0005)[1] == []
    assert "missing_source 3" in caplog.text


def gappy_features(x, rows):
    """Features of some of the rows, at their places."""
    batch = decode_frame(features(x).value)
    return value("features", encode_frame(batch.take(pa.array(rows))))


def test_decisions_and_labels_of_the_topics_turn_a_wrong_modality_down(retrainer):
    _, said, y = wrong_half_the_time(CASES)
    batch = decided(ids(CASES), said, np.zeros(CASES))
    retrainer.take(value("decisions", encode_frame(batch)))
    assert retrainer.follow_trust() is None
    retrainer.take(labels(y))
    made = retrainer.follow_trust()
    assert made.version == 2
    assert made.manifest.reliability["text"] < 0.5
    assert (made.folder / "fusion" / "weights").read_bytes() == b"carried over"
