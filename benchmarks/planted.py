"""A modality turned random at a planted moment: how soon it is turned down.

Shapes: `N` cases, `T` tokens, `L` labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automl.evaluate import auc
from fusion.reliability import Reliability
from pipelines.followed_trust import EVERY_LABELS
from pipelines.scorer import Scored

#: Labels of a healthy modality before the moment, and of a random one after it.
BEFORE, AFTER = 4000, 2000
DRAWS = 50


def planted(
    healthy: Scored, random: Scored, y: NDArray[np.int64], token: int, seed: int
) -> dict[str, float]:
    """Follows the labels of `DRAWS` moments, and looks as the retrain process does.

    Args:
        healthy: scores of N cases, in the order in which their labels mature.
        random: of the same with one modality of another case.
        y: (N,) labels.
        token: of that modality.
        seed: of the draws.

    Returns:
        Its mean weight `before` and `after` 2,000 labels of randomness; the share of
        draws where that was `halved`, and where it was so at `some_look` on the way;
        AUC of the cases after the moment: `fused` at the weights of their time,
        `fused_trusted` at full weight, `tabular` by the tree alone.
    """
    draw = np.random.default_rng(seed)
    paths, logits, labels = [], [], []
    for _ in range(DRAWS):
        at = int(draw.integers(BEFORE, len(y) - AFTER))
        before, after = slice(at - BEFORE, at), slice(at, at + AFTER)
        said = np.concatenate((healthy.said[before], random.said[after])).astype(float)
        tree = np.concatenate((healthy.tree_logit[before], random.tree_logit[after]))
        label = y[at - BEFORE : at + AFTER]
        weights = followed(said, label)
        used = weights[:-1].repeat(EVERY_LABELS, axis=0)
        sums = (used * said).sum(axis=1), said.sum(axis=1), 0.0 * tree
        logits.append(np.array([tree + some for some in sums])[:, BEFORE:])
        labels.append(label[BEFORE:])
        paths.append(weights[BEFORE // EVERY_LABELS :, token])
    path = np.array(paths)
    low = path < path[:, :1] / 2
    truth = np.concatenate(labels)
    judged = [auc(truth, one) for one in np.concatenate(logits, axis=1)]
    return {
        "before": float(path[:, 0].mean()),
        "after": float(path[:, -1].mean()),
        "halved": float(low[:, -1].mean()),
        "some_look": float(low.any(axis=1).mean()),
        **dict(zip(("fused", "fused_trusted", "tabular"), judged, strict=True)),
    }


def followed(said: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights (L / 100 + 1, T) at the start and after every 100 labels.

    Args:
        said: (L, T).
        y: (L,).
    """
    trust = Reliability(said.shape[1])
    looks = [trust.weights()]
    for row, label in enumerate(y):
        trust.learn(said[row], int(label))
        if (row + 1) % EVERY_LABELS == 0:
            looks.append(trust.weights())
    return np.array(looks)
