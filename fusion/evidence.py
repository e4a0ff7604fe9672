"""The part of the evidence that is a weighted sum, fitted exactly.

Labels are scarce: each modality's weights are kept small, and left out altogether
where held-out rows are no better for them.

Shapes: `N` rows, `F` inputs of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

STRENGTHS = (0.03, 0.3, 3.0)
MOST_STEPS = 25


def fit_sum(
    inputs: Matrix, y: Vector, offset: Vector, weight: Vector, penalty: Vector
) -> Vector:
    """Fits a logistic regression on top of given log-odds, by Newton's method.

    Args:
        inputs: (N, F).
        y: (N,) 0 or 1.
        offset: (N,) log-odds already known.
        weight: (N,) how many rows each row stands for.
        penalty: (F,) above 0: half of it times the square is added to the loss.

    Returns:
        The weights (F,) of the sum.
    """
    sought = np.zeros(inputs.shape[1])

    def loss_of(candidate: Vector) -> float:
        logit = offset + inputs @ candidate
        loss = weight @ (np.logaddexp(0.0, logit) - y * logit)
        return float(loss + 0.5 * penalty @ candidate**2)

    loss = loss_of(sought)
    for _ in range(MOST_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(offset + inputs @ sought, -40, 40)))
        slope = inputs.T @ (weight * (chance - y)) + penalty * sought
        curve = (inputs.T * (weight * chance * (1 - chance))) @ inputs
        step = np.linalg.solve(curve + np.diag(penalty), slope)
        size = 1.0
        while size > 1e-3 and loss_of(sought - size * step) > loss:
            size /= 2
        sought = sought - size * step
        before, loss = loss, loss_of(sought)
        if before - loss < 1e-7 * abs(before):
            break
    return sought


def choose_sum(
    base: Matrix,
    groups: Sequence[Matrix],
    y: Vector,
    offset: Vector,
    weight: Vector,
    held: NDArray[np.bool_],
) -> tuple[Vector, list[Vector]]:
    """Fits base inputs and those groups that help on held-out rows.

    The held-out rows choose the groups and how small their weights are kept; the
    weights themselves then come from all rows.

    Args:
        base: (N, F) inputs that are always used.
        groups: of each modality (N, D), its embeddings.
        y: (N,) 0 or 1.
        offset: (N,) log-odds already known.
        weight: (N,) how many rows each row stands for.
        held: (N,) bool, the rows that choose.

    Returns:
        The weights of the base (F,) and of each group (D,), zeros where left out.
    """
    fitted = ~held
    small = np.ones(base.shape[1])

    def fit(inputs: Matrix, penalty: Vector) -> tuple[Vector, float]:
        found = fit_sum(
            inputs[fitted], y[fitted], offset[fitted], weight[fitted], penalty
        )
        logit = offset[held] + inputs[held] @ found
        terms = np.logaddexp(0.0, logit) - y[held] * logit
        return found, float(weight[held] @ terms / weight[held].sum())

    alone = fit(base, small)[1]
    chosen: list[float] = []
    for group in groups:
        width = group.shape[1]
        losses = {0.0: alone}
        for strength in STRENGTHS if group.any() else ():
            penalty = np.concatenate((small, np.full(width, width / strength)))
            losses[strength] = fit(np.hstack((base, group)), penalty)[1]
        chosen.append(min(losses, key=lambda strength: losses[strength]))

    used = [place for place, strength in enumerate(chosen) if strength]
    parts = [np.zeros(group.shape[1]) for group in groups]
    penalty = [
        small,
        *(np.full(len(parts[u]), len(parts[u]) / chosen[u]) for u in used),
    ]
    inputs = np.hstack((base, *(groups[u] for u in used)))
    together = fit_sum(inputs, y, offset, weight, np.concatenate(penalty))
    cuts = np.cumsum([len(part) for part in penalty])[:-1]
    base_weights, *found = np.split(together, cuts)
    for place, weights in zip(used, found, strict=True):
        parts[place] = weights
    return base_weights, parts
