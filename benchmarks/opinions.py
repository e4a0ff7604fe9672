"""Opinions of several modalities put together, and orders of items judged.

Legend: `N` items, `M` modalities, `K` classes, `Q` queries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def gated(told: list[Floats], gate: Floats) -> Floats:
    """The opinions added, each weighted by how far its certainty can be believed.

    Args:
        told: log-probabilities (N, K) of each modality.
        gate: (M, 2): its weight, and how that grows with its highest probability.
    """
    total = np.zeros_like(told[0])
    for opinion, (weight, growth) in zip(told, gate, strict=True):
        sure = np.exp(opinion).max(axis=1, keepdims=True)
        total += opinion * np.exp(weight + growth * (sure - 0.5))
    return total


def fit_gate(told: list[Floats], truth: Ints) -> Floats:
    """The gate that makes the truth most likely; without evidence, a plain product."""

    def unlikely(flat: Floats) -> float:
        score = gated(told, flat.reshape(-1, 2))
        likely = score - logsumexp(score, axis=1, keepdims=True)
        surprise = -likely[np.arange(len(truth)), truth].mean()
        return float(surprise + 1e-3 * np.square(flat).sum())

    found = minimize(unlikely, np.zeros(2 * len(told)), method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64).reshape(-1, 2)


def both_ways(near: Floats, same: Any, name: str) -> dict[str, float]:
    """Mean average precision of clips (rows) for pictures (columns), and back."""
    return {
        f"{name}_audio_to_image": mean_average_precision(near, same),
        f"{name}_image_to_audio": mean_average_precision(near.T, same.T),
    }


def mean_average_precision(near_QN: Floats, same_QN: Any) -> float:
    """Mean over the queries of the precision at each relevant item, nearest first.

    Queries that nothing is relevant to do not count.

    Example:
        >>> near, same = np.array([[0.9, 0.8, 0.1]]), np.array([[True, False, True]])
        >>> round(mean_average_precision(near, same), 4)
        0.8333
    """
    known = np.asarray(same_QN).any(axis=1)
    order = np.argsort(-near_QN[known], axis=1, kind="stable")
    hit = np.take_along_axis(np.asarray(same_QN)[known], order, axis=1)
    precision = hit.cumsum(axis=1) / np.arange(1, hit.shape[1] + 1)
    return float(((precision * hit).sum(axis=1) / hit.sum(axis=1)).mean())
