import numpy as np
import pytest

from automl.registry import Registry
from connectors.codec import decode_frame
from connectors.labels import Label
from connectors.records import MODALITIES
from connectors.schemas import DECISIONS, frame_of
from pipelines.followed_trust import TOKENS, FollowedTrust

TEXT = TOKENS.index("text")


@pytest.fixture
def registry(tmp_path):
    """A registry whose champion is a folder with one file in it."""
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "weights").write_bytes(b"as they were")
    found = Registry(tmp_path / "models")
    found.save(
        "tiny",
        stage,
        parent=None,
        task={"name": "tiny"},
        features=("amount",),
        width=8,
        modalities=MODALITIES,
        fingerprints={"fused": "f" * 16},
        threshold=0.5,
        prior_logit=0.0,
        metrics={"auc": 0.9},
        created_at="2026-01-01T00:00:00+00:00",
    )
    found.promote("tiny", 1)
    return found


def decided(cases, said, rest, *, version=1, trusted=1.0):
    """Decisions of cases with a text that said so much on top of the rest."""
    evidence = np.zeros((len(cases), len(TOKENS)))
    evidence[:, TEXT] = said
    rows = len(cases)
    same = {
        "decision_id": "d",
        "revision": 1,
        "event_id": "e",
        "modality": "text",
        "alert": False,
        "threshold": 0.5,
        "model_name": "tiny",
        "model_version": version,
        "modalities": ["tabular", "text"],
        **{f"gate_{m}": 0.5 for m in MODALITIES},
        "reasons": "[]",
        "created_ms": 0,
    }
    columns = {name: [one] * rows for name, one in same.items()}
    columns |= {n: np.ones(rows) for n in ("event_time", "decided_at")}
    score = 1 / (1 + np.exp(-(np.asarray(rest) + trusted * np.asarray(said))))
    columns |= {"case_id": cases, "score": score, "evidence": evidence.tolist()}
    return decode_frame(frame_of(DECISIONS, columns))


def told(cases, y):
    return [
        Label(case_id=case, label_time_ms=9, label=int(one))
        for case, one in zip(cases, y, strict=True)
    ]


def wrong_half_the_time(count=400):
    cases = [f"k{i}" for i in range(count)]
    draw = np.random.default_rng(0)
    return cases, draw.choice([-2.0, 2.0], count), draw.integers(2, size=count)


def test_a_modality_that_is_wrong_is_turned_down_in_a_version_of_its_own(registry):
    cases, said, y = wrong_half_the_time()
    trust = FollowedTrust(registry, "tiny")
    trust.take_decisions(decided(cases, said, np.zeros(len(cases))))
    assert trust.next_version() is None
    trust.take_labels(told(cases, y))
    made = trust.next_version()
    assert (made.version, made.manifest.parent) == (2, 1)
    assert set(made.manifest.reliability) == {"text"}
    assert made.manifest.reliability["text"] < 0.5
    assert made.manifest.threshold == 0.5
    assert (made.folder / "weights").read_bytes() == b"as they were"
    assert trust.next_version() is None  # not again before further labels


@pytest.mark.parametrize("first", ["labels", "decisions"])
def test_labels_and_decisions_may_come_in_any_order(registry, first):
    cases, said, y = wrong_half_the_time()
    trust = FollowedTrust(registry, "tiny")
    if first == "labels":
        trust.take_labels(told(cases, y))
    trust.take_decisions(decided(cases, said, np.zeros(len(cases))))
    if first == "decisions":
        trust.take_labels(told(cases, y))
    assert trust.next_version().manifest.reliability["text"] < 0.5


def test_a_modality_that_is_right_keeps_its_weight(registry):
    cases, said, _ = wrong_half_the_time()
    y = np.random.default_rng(1).random(len(cases)) < 1 / (1 + np.exp(-said))
    trust = FollowedTrust(registry, "tiny")
    trust.take_decisions(decided(cases, said, np.zeros(len(cases))))
    trust.take_labels(told(cases, y))
    assert trust.next_version() is None


def test_what_a_version_trusted_less_is_counted_as_it_was(registry):
    """Decided at a tenth of its word, and right at full word: trust comes back."""
    cases, said, y = wrong_half_the_time()
    trust = FollowedTrust(registry, "tiny")
    trust.take_decisions(decided(cases, said, np.zeros(len(cases))))
    trust.take_labels(told(cases, y))
    down = trust.next_version()
    registry.promote("tiny", down.version)
    used = down.manifest.reliability["text"]
    draw = np.random.default_rng(2)
    for turn in range(8):
        later = [f"l{turn}.{i}" for i in range(400)]
        said = draw.choice([-2.0, 2.0], 400)
        right = draw.random(400) < 1 / (1 + np.exp(-said))
        rest = np.zeros(400)
        trust.take_decisions(decided(later, said, rest, version=2, trusted=used))
        trust.take_labels(told(later, right))
    assert trust.next_version().manifest.reliability.get("text", 1.0) > 0.85


def test_cases_without_media_teach_nothing(registry):
    cases, said, y = wrong_half_the_time()
    batch = decided(cases, said, np.zeros(len(cases))).to_pylist()
    columns = {name: [row[name] for row in batch] for name in DECISIONS.names}
    columns["evidence"] = [[] for _ in cases]
    columns |= {n: np.ones(len(cases)) for n in ("event_time", "decided_at")}
    trust = FollowedTrust(registry, "tiny")
    trust.take_decisions(decode_frame(frame_of(DECISIONS, columns)))
    trust.take_labels(told(cases, y))
    assert trust.next_version() is None
