"""How good scores are, and whether a challenger beats the champion.

Shapes: `N` rows. A score may be a probability or a log-odds, except where said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

DAY_MS = 86_400_000


class EvaluationError(Exception):
    """The scores and labels given cannot be judged: the message says why."""


def _check(what: str, y: Labels, score: Scores, *, classes: int) -> None:
    if y.ndim != 1 or y.shape != score.shape:
        msg = f"{what}: labels {y.shape} and scores {score.shape} do not fit together"
        raise EvaluationError(msg)
    if not np.isfinite(score).all():
        msg = f"{what}: {int((~np.isfinite(score)).sum())} scores are not finite"
        raise EvaluationError(msg)
    held = np.unique(y).tolist()
    if not set(held) <= {0, 1} or len(held) < classes:
        msg = f"{what}: labels must be 0 or 1 with {classes} classes held, got {held}"
        raise EvaluationError(msg)


def auc(y: Labels, score: Scores) -> float:
    """Gives the area under the ROC curve; a tie counts half."""
    _check("auc", y, score, classes=2)
    return float(roc_auc_score(y, score))


def average_precision(y: Labels, score: Scores) -> float:
    """Gives average precision; tied scores enter together."""
    _check("average precision", y, score, classes=2)
    return float(average_precision_score(y, score))


def card_precision_at_k(
    day: NDArray[Any],
    customer: NDArray[Any],
    score: Scores,
    label: Labels,
    *,
    k: int = 100,
) -> float:
    """Gives the part of a daily list of `k` customers that is right, mean over days.

    Each day a customer counts once, with the highest score and the highest label of
    the day. Customers found on an earlier day (listed, and fraudulent that day) are
    left out afterwards. Ties go to the lower customer id. A day with fewer than `k`
    customers is still divided by `k`.

    Args:
        day: (N,) any sortable day.
        customer: (N,) any sortable id.
        score: (N,).
        label: (N,) 0 or 1.
        k: length of the daily list.
    """
    _check("card precision", label, score, classes=0)
    if day.shape != score.shape or customer.shape != score.shape or not len(score):
        msg = (
            f"card precision: day {day.shape}, customer {customer.shape} and score"
            f" {score.shape} do not fit together, or are empty"
        )
        raise EvaluationError(msg)
    _, card = np.unique(customer, return_inverse=True)
    found = np.zeros(int(card.max()) + 1, dtype=bool)
    precisions = []
    for today in np.unique(day):
        rows = np.flatnonzero((day == today) & ~found[card])
        cards, place = np.unique(card[rows], return_inverse=True)
        highest = np.full(len(cards), -np.inf)
        np.maximum.at(highest, place, score[rows])
        fraud = np.zeros(len(cards), dtype=bool)
        np.logical_or.at(fraud, place, label[rows] == 1)
        listed = np.argsort(-highest, kind="stable")[:k]
        right = cards[listed[fraud[listed]]]
        found[right] = True
        precisions.append(len(right) / k)
    return float(np.mean(precisions))


def fpr_at_recall(y: Labels, score: Scores, *, recall: float = 0.8) -> float:
    """Gives the part of negatives flagged at the highest threshold with this recall."""
    _check("fpr at recall", y, score, classes=2)
    if not 0 < recall <= 1:
        msg = f"fpr at recall: recall must be in (0, 1], got {recall}"
        raise EvaluationError(msg)
    positives = np.sort(score[y == 1])[::-1]
    needed = int(np.ceil(recall * len(positives) - 1e-9))
    threshold = positives[needed - 1]
    return float((score[y == 0] >= threshold).mean())


def ece(y: Labels, probability: Scores, *, bins: int = 10) -> float:
    """Gives the expected calibration error over equal-width bins.

    Args:
        y: (N,) 0 or 1.
        probability: (N,) in [0, 1].
        bins: number of bins; 1.0 falls in the last.
    """
    _check("ece", y, probability, classes=1)
    if probability.min() < 0 or probability.max() > 1:
        msg = "ece: probabilities must be in [0, 1]; apply a sigmoid to log-odds first"
        raise EvaluationError(msg)
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    said = np.bincount(place, weights=probability, minlength=bins)
    was = np.bincount(place, weights=y, minlength=bins)
    return float(np.abs(said - was)[count > 0].sum() / len(y))


def threshold_for_alerts_per_day(
    score: Scores, event_time_ms: NDArray[np.integer[Any]], alerts_per_day: float
) -> float:
    """Gives the lowest threshold that would have raised at most so many alerts a day.

    An alert is a score at or above the threshold. The mean is over the time the rows
    span; one alert is always allowed.

    Args:
        score: (N,).
        event_time_ms: (N,) milliseconds since the epoch.
        alerts_per_day: mean alerts allowed in 24 h.
    """
    if score.ndim != 1 or score.shape != event_time_ms.shape or not len(score):
        msg = (
            f"threshold: scores {score.shape} and times {event_time_ms.shape} do not"
            " fit together, or are empty"
        )
        raise EvaluationError(msg)
    if not np.isfinite(score).all() or alerts_per_day <= 0:
        msg = "threshold: scores must be finite and alerts_per_day above 0"
        raise EvaluationError(msg)
    days = float(np.ptp(event_time_ms)) / DAY_MS
    allowed = max(1, int(alerts_per_day * days + 1e-9))
    ordered = np.sort(score)[::-1]
    if allowed >= len(ordered):
        return float(ordered[-1])
    barred = ordered[allowed]
    above = ordered[ordered > barred]
    return float(above[-1] if len(above) else np.nextafter(barred, np.inf))


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether the challenger is better, why, and the figures behind it.

    Attributes:
        better: True when the challenger should take over.
        reason: one sentence.
        figures: metric name to value, for both.
    """

    better: bool
    reason: str
    figures: dict[str, float] = field(default_factory=dict)


def compare(
    champion_scores: Scores,
    challenger_scores: Scores,
    y: Labels,
    *,
    draws: int = 200,
    seed: int = 0,
    certainty: float = 0.9,
    auc_loss_allowed: float = 0.005,
) -> Verdict:
    """Judges a challenger on rows later than any that either was fitted on.

    The challenger wins when its average precision is higher in at least `certainty`
    of bootstrap draws and its AUC is not worse by more than `auc_loss_allowed`.

    Args:
        champion_scores: (N,).
        challenger_scores: (N,), of the same rows.
        y: (N,) 0 or 1.
        draws: bootstrap draws, stratified by label.
        seed: of the draws.
        certainty: part of the draws that must agree.
        auc_loss_allowed: AUC that may be lost.
    """
    _check("compare", y, champion_scores, classes=0)
    _check("compare", y, challenger_scores, classes=0)
    ones, zeros = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    figures: dict[str, float] = {"rows": len(y), "positives": len(ones)}
    if not len(ones) or not len(zeros):
        reason = f"{len(ones)} positives in {len(y)} later rows: nothing to judge by"
        return Verdict(better=False, reason=reason, figures=figures)
    figures |= {
        "champion_ap": average_precision(y, champion_scores),
        "challenger_ap": average_precision(y, challenger_scores),
        "champion_auc": auc(y, champion_scores),
        "challenger_auc": auc(y, challenger_scores),
    }
    random = np.random.default_rng(seed)
    wins = 0.0
    for _ in range(draws):
        rows = np.concatenate(
            (random.choice(ones, len(ones)), random.choice(zeros, len(zeros)))
        )
        gain = average_precision_score(
            y[rows], challenger_scores[rows]
        ) - average_precision_score(y[rows], champion_scores[rows])
        wins += 1.0 if gain > 0 else 0.5 if gain == 0 else 0.0
    figures["certainty"] = wins / draws
    gained = figures["challenger_ap"] - figures["champion_ap"]
    lost = figures["champion_auc"] - figures["challenger_auc"]
    said = (
        f"average precision {figures['champion_ap']:.4f} ->"
        f" {figures['challenger_ap']:.4f}, ahead in {wins / draws:.0%} of draws;"
        f" AUC {figures['champion_auc']:.4f} -> {figures['challenger_auc']:.4f}"
    )
    if gained <= 0 or wins / draws < certainty:
        return Verdict(
            better=False, reason=f"not surely better: {said}", figures=figures
        )
    if lost > auc_loss_allowed:
        return Verdict(better=False, reason=f"loses AUC: {said}", figures=figures)
    return Verdict(better=True, reason=f"better: {said}", figures=figures)
