"""A modality whose labels turn random is turned down; fusion stays above the tree."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fusion.model import FusionConfig
from fusion.reliability import Reliability
from fusion.scorer import FusionScorer
from fusion.train import fit_fusion

TEXT = 1


def cases(rows, *, seed, random_text=False):
    """Text and picture each tell a tenth of the 1s apart; the tree tells some more."""
    shapes = np.random.default_rng(99).normal(size=(2, 32))
    draw = np.random.default_rng(seed)
    y = (draw.random(rows) < 0.1).astype(np.int64)
    x = 0.4 * draw.normal(size=(rows, 4, 32))
    for place, told in ((TEXT, draw.permutation(y) if random_text else y), (2, y)):
        bad = draw.random(rows) < np.where(told == 1, 0.7, 0.05)
        x[:, place] += np.where(bad[:, None], 1.0, -1.0) * shapes[place - 1]
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    mask = np.ones((rows, 4), bool)
    mask[:, 3] = False
    tree = np.log(0.1 / 0.9) + draw.normal(size=rows) + 1.0 * y - 0.5
    return x.astype(np.float32), mask, y, tree


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_its_weight_falls_by_half_and_fusion_stays_above_the_tree(seed):
    config = FusionConfig(width=32, dim=8, hidden=8)
    rows = cases(3000, seed=seed)
    model = fit_fusion(*rows, config=config, seed=seed, budget_s=60.0)
    trust = Reliability(len(config.tokens))
    weights, logits, trees, labels = [], [], [], []
    for turn in range(40):  # 100 matured labels each; random from the 20th on
        x, mask, y, tree = cases(100, seed=1000 + turn, random_text=turn >= 20)
        named = dict(zip(config.tokens, trust.weights().tolist(), strict=True))
        out = FusionScorer(model, named).score(x, mask, tree)
        for row in range(len(y)):
            trust.learn(out.said[row], int(y[row]))
        weights.append(trust.weights()[TEXT])
        logits.append(out.logit)
        trees.append(tree)
        labels.append(y)
    assert weights[39] < weights[19] / 2
    late = slice(20, 40)
    y, logit, tree = (np.concatenate(v[late]) for v in (labels, logits, trees))
    assert roc_auc_score(y, logit) > roc_auc_score(y, tree)
    assert trust.weights()[2] > 0.7  # the picture is as good as before
