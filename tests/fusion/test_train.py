import itertools
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fusion.model import FusionConfig, FusionModel
from fusion.scorer import FusionScorer
from fusion.train import FusionFitError, fit_fusion

CONFIG = FusionConfig(width=32, dim=16, hidden=16)
KINDS = 5


def joined(
    rows: int, *, seed: int, positive: float = 0.3, text: bool = False
) -> tuple[Any, Any, Any, Any]:
    """Image and audio each show one of five things; a 1 means they show different ones.

    Their encoders put the same thing in the same place. Neither alone says anything.
    With `text`, the text says something on its own.
    """
    shapes = np.random.default_rng(99).normal(size=(2, KINDS, 32))
    draw = np.random.default_rng(seed)
    y = (draw.random(rows) < positive).astype(np.int64)
    seen = draw.integers(KINDS, size=rows)
    said = np.where(y == 1, (seen + draw.integers(1, KINDS, size=rows)) % KINDS, seen)
    x = 0.5 * draw.normal(size=(rows, 4, 32))
    x[:, 2] += shapes[0][seen]
    x[:, 3] += shapes[0][said]
    if text:
        x[:, 1] += shapes[1][y]
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    mask = np.ones((rows, 4), bool)
    tree = np.full(rows, np.log(positive / (1 - positive)))
    return x.astype(np.float32), mask, y, tree


def fit(rows: tuple[Any, Any, Any, Any], **changed: Any) -> FusionModel:
    settings = {"config": CONFIG, "seed": 1, "budget_s": 15.0} | changed
    return fit_fusion(*rows, **settings)


@pytest.fixture(scope="module")
def fitted() -> FusionModel:
    return fit(joined(1200, seed=0, text=True))


def test_agreement_alone_is_learned_in_time() -> None:
    start_s = time.process_time()
    made = fit(joined(1500, seed=0))
    assert time.process_time() - start_s < 15
    x, mask, y, tree = joined(1500, seed=7)
    logit = FusionScorer(made).score(x, mask, tree)[0]
    assert roc_auc_score(y, logit) > 0.9
    mask[:, 3] = False
    alone = FusionScorer(made).score(x, mask, tree)[0]
    assert abs(roc_auc_score(y, alone) - 0.5) < 0.08


def test_a_modality_that_speaks_alone_is_learned(fitted: FusionModel) -> None:
    x, mask, y, tree = joined(1500, seed=7, text=True)
    mask[:, 2:] = False
    logit = FusionScorer(fitted).score(x, mask, tree)[0]
    assert roc_auc_score(y, logit) > 0.9


def test_balanced_batches_leave_the_probabilities_honest() -> None:
    made = fit(joined(2000, seed=2, positive=0.05))
    x, mask, y, tree = joined(4000, seed=8, positive=0.05)
    logit = FusionScorer(made).score(x, mask, tree)[0]
    assert abs((1 / (1 + np.exp(-logit))).mean() - y.mean()) < 0.02


def test_what_says_nothing_has_a_closed_gate_and_no_evidence(
    fitted: FusionModel,
) -> None:
    x, mask, _, tree = joined(400, seed=9, text=True)
    gates = FusionScorer(fitted).score(x, mask, tree)[1]
    assert gates[:, 1:].min() > 0.5
    untold = fit(joined(400, seed=0))
    assert FusionScorer(untold).score(x, mask, tree)[1][:, 1].max() < 0.5
    assert (untold.curve[1] == 0).all()


def test_agreement_of_strangers_is_no_evidence() -> None:
    """What one embedding alone leaves in a cosine must not count as agreement."""
    x, mask, y, tree = joined(1500, seed=0)
    x[:, 3] = x[np.random.default_rng(1).permutation(1500), 3]
    x[:, 2, 0] += 2.0 * y
    x[:, 3, 0] += 2.0
    made = fit((x / np.linalg.norm(x, axis=-1, keepdims=True), mask, y, tree))
    assert (made.curve[-1] == 0).all()
    assert made.curve[2, 1] > 0


def test_the_same_seed_gives_the_same_weights() -> None:
    rows = joined(200, seed=0)
    first, again = fit(rows).state_dict(), fit(rows).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = fit(rows, seed=2).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_fitting_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    fit(joined(200, seed=0), budget_s=0.5)
    assert torch.equal(torch.rand(3), expected)


def test_absent_slots_may_hold_anything_while_fitting() -> None:
    x, mask, y, tree = joined(300, seed=0)
    mask[::3, 1] = False
    x[::3, 1] = np.nan
    made = fit((x, mask, y, tree), budget_s=1.0)
    assert all(torch.isfinite(w).all() for w in made.state_dict().values())


def test_a_modality_never_seen_and_two_positives_still_fit() -> None:
    x, mask, y, tree = joined(60, seed=0)
    mask[:, 1:] = False
    mask[:, 2] = True
    y[:] = 0
    y[[10, 50]] = 1
    made = fit((x, mask, y, tree), budget_s=1.0)
    assert np.isfinite(FusionScorer(made).score(x, mask, tree)[0]).all()


def test_the_budget_is_kept_and_progress_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float]] = []
    looks = itertools.count()
    # a clock that goes on by a second whenever it is looked at
    clock = SimpleNamespace(monotonic=lambda: float(next(looks)))
    monkeypatch.setattr("fusion.train.time", clock)
    rows = joined(1500, seed=0)
    fit(rows, budget_s=1.0, progress=lambda word, done: told.append((word, done)))
    assert next(looks) < 5  # it takes more when there is time
    assert told[-1] == ("fit", 1.0)
    assert all(0 <= done <= 1 for _, done in told)


def test_rows_that_cannot_fit_are_refused() -> None:
    x, mask, y, tree = joined(50, seed=0)
    with pytest.raises(FusionFitError, match="both 0 and 1"):
        fit((x, mask, y * 0, tree))
    with pytest.raises(FusionFitError, match="do not fit"):
        fit((x[:, :, :8], mask, y, tree))
