"""What one modality, or the agreement of two, says about the label, as log-odds.

A reading is a number per case (a weighted sum of an embedding, or the cosine of two)
that a curve of two states turns into evidence: the log of how much likelier it is
among the 1s than among the 0s. Labels are few and payloads repeat, so everything is
judged on payloads it was not fitted on, and what is no better than silence is silent.

Shapes: `N` rows, `D` width, `U` distinct embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

FOLDS = 5
#: Half of one of these times the square of a weight is added to the loss.
PENALTIES = (0.3, 1.0, 3.0, 10.0)
#: Log-likelihood a reading must gain on payloads it never saw to be listened to.
LEAST_GAIN = 2.0
#: No reading says more than this, either way.
MOST_EVIDENCE = 8.0
#: How sharply a curve may turn, per standard deviation of the readings.
MOST_SLOPE = 20.0
#: Readings are gathered in so many bins for the fit of a curve.
BINS = 128
#: Distinct embeddings of label 0 alone that a line is fitted on.
MOST_ZEROS = 20_000
_STEPS = 30


@dataclass(frozen=True, slots=True)
class Curve:
    """Evidence of a reading z: `low + log(1 + s * (exp(rise) - 1))`, s in 0..1.

    `s` is the logistic function of `slope * (z - turn)`: the chance of being in the
    state that 1s prefer. A rise of 0 says nothing at all.
    """

    low: float = 0.0
    rise: float = 0.0
    slope: float = 0.0
    turn: float = 0.0

    def __call__(self, z: NDArray[np.floating[Any]]) -> Vector:
        """Evidence of each reading, any shape."""
        state = expit(self.slope * (np.asarray(z, np.float64) - self.turn))
        return np.asarray(self.low + np.log1p(state * np.expm1(self.rise)), np.float64)


@dataclass(frozen=True, slots=True)
class Line:
    """A reading of an embedding, `x @ weights + bias`, and what it said out of fold.

    Attributes:
        weights: (D,), zeros for a modality that says nothing.
        bias: a number.
        curve: turns readings into evidence.
        unseen: (N,) readings of the rows by lines that never saw their embedding.
    """

    weights: Vector
    bias: float
    curve: Curve
    unseen: Vector


def read_embedding(
    x: NDArray[np.float32], y: NDArray[np.integer[Any]], *, seed: int
) -> Line:
    """Fits the reading of one modality on the rows that have it.

    Args:
        x: (N, D) embeddings; equal ones count as one payload.
        y: (N,) 0 or 1.
        seed: of the folds.
    """
    nothing = Line(np.zeros(x.shape[1]), 0.0, Curve(), np.zeros(len(x)))
    if len(x) == 0 or y.min() == y.max():
        return nothing
    distinct, back, rows, ones = _distinct(x, y)
    if len(distinct) < 2 * FOLDS or np.count_nonzero(ones) < FOLDS:
        return nothing
    kept = _few_zeros(ones, seed)
    fold = np.random.default_rng(seed).permutation(len(distinct)) % FOLDS
    best, penalty, unseen = np.inf, 0.0, np.zeros(len(distinct))
    for candidate in PENALTIES:
        z = np.zeros(len(distinct))
        for part in range(FOLDS):
            fitted = kept & (fold != part)
            line = _fit_line(distinct[fitted], rows[fitted], ones[fitted], candidate)
            z[fold == part] = distinct[fold == part] @ line[:-1] + line[-1]
        loss = _loss(z, rows, ones)
        if loss < best:
            best, penalty, unseen = loss, candidate, z
    curve = _curve(unseen, rows, ones)
    if curve.slope < 0 or _gain(unseen, rows, ones, seed) < LEAST_GAIN:
        return nothing
    line = _fit_line(distinct[kept], rows[kept], ones[kept], penalty)
    return Line(line[:-1], float(line[-1]), curve, unseen[back])


def read_agreement(
    cosine: Vector, strangers: Vector, y: NDArray[np.integer[Any]], *, seed: int
) -> Curve:
    """The curve of a pair's agreement; a flat one when it says nothing.

    It must say more than the same payloads say when they are paired at random: what
    is left of one of them alone in the cosine is no agreement.

    Args:
        cosine: (N,) of the two embeddings of a case.
        strangers: (N,) of one embedding of the case and one of another case.
        y: (N,) 0 or 1.
        seed: of the folds.
    """
    ones = y.astype(np.float64)
    rows = np.ones(len(y))
    if not 0 < ones.sum() < len(y):
        return Curve()
    gain = _gain(cosine, rows, ones, seed)
    if gain < LEAST_GAIN or gain < LEAST_GAIN + _gain(strangers, rows, ones, seed):
        return Curve()
    return _curve(cosine, rows, ones)


def _gain(z: Vector, rows: Vector, ones: Vector, seed: int) -> float:
    """Log-likelihood won by a curve on readings it was not fitted on."""
    if z.std() < 1e-9:
        return 0.0
    fold = np.random.default_rng(seed).permutation(len(z)) % FOLDS
    gain = 0.0
    for part in range(FOLDS):
        inside, outside = fold != part, fold == part
        if not ones[inside].sum() or not ones[outside].sum():
            continue
        prior = _log_odds(rows[inside], ones[inside])
        said = _curve(z[inside], rows[inside], ones[inside])(z[outside])
        silent = _loss(np.zeros(len(said)), rows[outside], ones[outside], prior)
        gain += silent - _loss(said, rows[outside], ones[outside], prior)
    return gain


def _curve(z: Vector, rows: Vector, ones: Vector) -> Curve:
    """The likeliest curve; readings are gathered in bins, which costs no more."""
    edges = np.unique(np.quantile(z, np.linspace(0, 1, BINS + 1)[1:-1]))
    bin_of = np.searchsorted(edges, z)
    count = np.bincount(bin_of)
    used = count > 0
    middle, spread = z.mean(), max(z.std(), 1e-9)
    at = np.bincount(bin_of, weights=(z - middle) / spread)[used] / count[used]
    rows = np.bincount(bin_of, weights=rows)[used].astype(np.float64)
    ones = np.bincount(bin_of, weights=ones)[used].astype(np.float64)
    prior = _log_odds(rows, ones)

    def curve_of(p: NDArray[np.float64], sign: float) -> Curve:
        return Curve(
            low=-MOST_EVIDENCE * float(np.tanh(p[0] ** 2)),
            rise=2 * MOST_EVIDENCE * float(np.tanh(np.exp(min(p[1], 5.0)) / 10)),
            slope=sign * MOST_SLOPE * float(np.tanh(np.exp(min(p[2], 5.0)) / 10)),
            turn=float(p[3]),
        )

    best, found = np.inf, Curve()
    for sign in (1.0, -1.0):
        for share in (0.5, 0.9):
            turn = np.quantile(at, share if sign > 0 else 1 - share)
            result = minimize(
                lambda p, sign=sign: (
                    _loss(curve_of(p, sign)(at), rows, ones, prior)
                    + 0.05 * float(p @ p)
                ),
                np.array([0.5, 0.5, 1.0, turn]),
                method="L-BFGS-B",
            )
            if result.fun < best:
                best, found = result.fun, curve_of(result.x, sign)
    return replace(found, slope=found.slope / spread, turn=found.turn * spread + middle)


def _log_odds(rows: Vector, ones: Vector) -> float:
    return float(np.log(ones.sum() / (rows.sum() - ones.sum())))


def _distinct(
    x: NDArray[np.float32], y: NDArray[np.integer[Any]]
) -> tuple[Matrix, NDArray[np.intp], Vector, Vector]:
    """Distinct embeddings (U, D), where each row's is, its rows and its ones."""
    whole = np.ascontiguousarray(x, dtype=np.float32)
    as_bytes = whole.view(np.dtype((np.void, whole.shape[1] * 4)))[:, 0]
    _, first, back = np.unique(as_bytes, return_index=True, return_inverse=True)
    rows = np.bincount(back).astype(np.float64)
    ones = np.bincount(back, weights=y).astype(np.float64)
    return whole[first].astype(np.float64), back, rows, ones


def _few_zeros(ones: Vector, seed: int) -> NDArray[np.bool_]:
    """All embeddings with a 1, and at most `MOST_ZEROS` of the others."""
    kept = np.ones(len(ones), bool)
    zeros = np.flatnonzero(ones == 0)
    if len(zeros) > MOST_ZEROS:
        drawn = np.random.default_rng(seed).permutation(len(zeros))
        kept[zeros[drawn[MOST_ZEROS:]]] = False
    return kept


def _loss(z: Vector, rows: Vector, ones: Vector, prior: float = 0.0) -> float:
    """Minus the log-likelihood of the counts, given log-odds less the prior."""
    logit = prior + z
    return float((rows * np.logaddexp(0.0, logit) - ones * logit).sum())


def _fit_line(x: Matrix, rows: Vector, ones: Vector, penalty: float) -> Vector:
    """A logistic regression on counts by Newton's method: weights, then the bias."""
    inputs = np.hstack((x, np.ones((len(x), 1))))
    small = np.full(inputs.shape[1], penalty)
    small[-1] = 1e-6
    line = np.zeros(inputs.shape[1])
    line[-1] = np.log((ones.sum() + 0.5) / (rows.sum() - ones.sum() + 0.5))

    def loss_of(candidate: Vector) -> float:
        return _loss(inputs @ candidate, rows, ones) + 0.5 * float(small @ candidate**2)

    loss = loss_of(line)
    for _ in range(_STEPS):
        chance = expit(inputs @ line)
        slope = inputs.T @ (rows * chance - ones) + small * line
        curve = (inputs.T * (rows * chance * (1 - chance))) @ inputs + np.diag(small)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while size > 1e-3 and loss_of(line - size * step) > loss:
            size /= 2
        line = line - size * step
        before, loss = loss, loss_of(line)
        if before - loss < 1e-7 * abs(before):
            break
    return line
