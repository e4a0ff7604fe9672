"""What usually comes together: the shared space and the agreement of pairs, found.

Both come from the joined rows in closed form (regularised canonical correlation),
so a few hundred labelled cases need not pay for what thousands of unlabelled pairs
already tell.

Shapes: `N` rows, `M` modalities, `D` width, `P` pairs, `R` directions of a pair.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.attention import pairs_of

Matrix = NDArray[np.float64]

RIDGE = 0.1
FLOOR_MARGIN = 1.2
OWN_PART = 0.15


class Alignment(NamedTuple):
    """What `align` found.

    Attributes:
        center: (M, D) the usual embedding of each modality.
        meet: (2, P, D, R) directions in which the first and the second modality of a
            pair are compared.
        share: (M, D, D) places centred embeddings in the space all share.
    """

    center: NDArray[np.float32]
    meet: NDArray[np.float32]
    share: NDArray[np.float32]


def align(
    x: NDArray[np.float32],
    mask: NDArray[np.bool_],
    y: NDArray[np.integer[Any]],
    *,
    directions: int,
    seed: int,
) -> Alignment:
    """Finds in which directions the modalities of a case go together.

    A pair is compared along the directions whose correlation differs most between
    the classes. The shared space takes the correlations of all rows: related
    modalities of one case come to lie together, and what a modality has on its own
    stays beside it.

    Args:
        x: (N, M, D) embeddings.
        mask: (N, M) bool.
        y: (N,) 0 or 1.
        directions: R.
        seed: draws the pairing that tells chance from correlation.
    """
    modalities, width = mask.shape[1], x.shape[2]
    draw = np.random.default_rng(seed)
    center = np.zeros((modalities, width))
    white = np.zeros((modalities, width, width))
    for m in range(modalities):
        rows = x[mask[:, m], m].astype(np.float64)
        if len(rows):
            center[m] = rows.mean(0)
        white[m] = _whitening(rows - center[m])

    pairs = pairs_of(modalities)
    meet = np.zeros((2, len(pairs), width, directions))
    joint = np.zeros((modalities, width, modalities, width))
    for place, (i, j) in enumerate(pairs):
        both = mask[:, i] & mask[:, j]
        # Sums, not means: rows of both classes together tell what is usual.
        by_class = []
        for label in (0, 1):
            rows = both & (y == label)
            first = (x[rows, i] - center[i]) @ white[i]
            second = (x[rows, j] - center[j]) @ white[j]
            by_class.append(_above_chance(first, second, draw))
        left, strength, right = np.linalg.svd(by_class[0] - by_class[1])
        kept = slice(0, min(directions, width))
        meet[0, place, :, kept] = white[i] @ left[:, kept] * strength[kept]
        meet[1, place, :, kept] = white[j] @ right.T[:, kept] * strength[kept]
        part = float(y[both].mean()) if both.any() else 0.0
        usual = (1 - part) * by_class[0] + part * by_class[1]
        joint[i, :, j], joint[j, :, i] = usual, usual.T
    share = _shared_space(joint, white)
    return Alignment(
        center.astype(np.float32), meet.astype(np.float32), share.astype(np.float32)
    )


def _whitening(rows: Matrix) -> Matrix:
    """Gives the (D, D) matrix that makes centred rows uncorrelated, ridge added."""
    width = rows.shape[1]
    if len(rows) < 2 or not rows.any():
        return np.eye(width)
    covariance = rows.T @ rows / len(rows)
    covariance += RIDGE * np.trace(covariance) / width * np.eye(width)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


def _above_chance(first: Matrix, second: Matrix, draw: np.random.Generator) -> Matrix:
    """Gives the cross-correlation of two modalities, chance taken out.

    Directions weaker than the strongest one of the same rows paired at random are
    dropped; few rows make that bar high.
    """
    width = first.shape[1]
    if len(first) < 2:
        return np.zeros((width, width))
    left, strength, right = np.linalg.svd(first.T @ second / len(first))
    chance = first.T @ second[draw.permutation(len(second))] / len(first)
    floor = FLOOR_MARGIN * np.linalg.norm(chance, 2)
    strength = np.where(strength > floor, strength, 0.0)
    return np.asarray((left * strength) @ right)


def _shared_space(joint: NDArray[np.float64], white: Matrix) -> Matrix:
    """Gives one (D, D) map per modality into the shared space.

    The first coordinates are common to all modalities, strongest correlation first;
    the others hold what a modality has on its own, weighed down where it has much in
    common. A modality related to none keeps its own geometry.
    """
    modalities, width = white.shape[:2]
    values, vectors = np.linalg.eigh(joint.reshape(modalities * width, -1))
    order = np.argsort(-values, kind="stable")[: width // 2]
    order = order[values[order] > 1e-6]
    common = vectors[:, order].reshape(modalities, width, -1) * values[order]
    share = np.zeros((modalities, width, width))
    for m in range(modalities):
        strength = float((common[m] ** 2).sum())
        if strength < 1e-9:
            share[m] = np.eye(width)
            continue
        count = len(order)
        basis, _, _ = np.linalg.svd(common[m])
        share[m][:, :count] = white[m] @ common[m]
        # What is left, as far as there is room, whitened to a known energy.
        own = white[m] @ basis[:, count:]
        share[m][:, count:] = own * np.sqrt(OWN_PART * strength / (width - count))
    return share
