import numpy as np
import pytest

from automl.evaluate import (
    DAY_MS,
    EvaluationError,
    auc,
    average_precision,
    card_precision_at_k,
    compare,
    ece,
    fpr_at_recall,
    threshold_for_alerts_per_day,
)


def test_auc_counts_a_tie_half() -> None:
    # pairs (0.5 | 0.5): half, (0.5 | 0.1), (0.9 | both): right -> 3.5 of 4
    y, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.5, 0.5, 0.9])
    assert auc(y, score) == pytest.approx(3.5 / 4)


def test_average_precision_lets_ties_enter_together() -> None:
    # 0.9 is right: 1/2 x 1; then two at 0.5, one right: 1/2 x 2/3
    y, score = np.array([1, 0, 1, 0]), np.array([0.9, 0.5, 0.5, 0.1])
    assert average_precision(y, score) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_one_class_and_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EvaluationError, match="classes"):
        auc(np.array([0, 0]), np.array([0.1, 0.2]))
    with pytest.raises(EvaluationError, match="1 scores are not finite"):
        average_precision(np.array([0, 1]), np.array([0.1, np.nan]))


def test_card_precision_by_hand() -> None:
    rows = [
        # day, customer, score, label
        (0, 1, 0.2, 1),  # the highest score and label of customer 1 this day ...
        (0, 1, 0.9, 0),  # ... come from different rows: listed, and right
        (0, 2, 0.8, 0),
        (0, 3, 0.7, 1),  # third: not listed with k = 2
        (1, 1, 1.0, 1),  # found on day 0: left out
        (1, 2, 0.6, 1),  # listed on day 0 but wrong: still in, and right today
        (1, 3, 0.5, 0),
        (1, 4, 0.4, 0),
        (2, 4, 0.3, 0),  # one customer, divided by k all the same
    ]
    day, customer, score, label = map(np.array, zip(*rows, strict=True))
    found = card_precision_at_k(day, customer, score, label, k=2)
    assert found == pytest.approx((1 / 2 + 1 / 2 + 0 / 2) / 3)


def test_card_precision_does_not_depend_on_the_order_of_rows() -> None:
    draw = np.random.default_rng(0)
    day, customer = draw.integers(4, size=300), draw.integers(40, size=300)
    score, label = draw.integers(9, size=300) / 9, draw.integers(2, size=300)
    order = draw.permutation(300)
    assert card_precision_at_k(day, customer, score, label, k=7) == card_precision_at_k(
        day[order], customer[order], score[order], label[order], k=7
    )


def test_fpr_at_recall_by_hand() -> None:
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    score = np.array([0.9, 0.8, 0.4, 0.1, 0.85, 0.5, 0.4, 0.3, 0.0])
    # 3 of 4 positives: threshold 0.4; negatives at or above it: 0.85, 0.5, 0.4
    assert fpr_at_recall(y, score, recall=0.75) == pytest.approx(3 / 5)
    assert fpr_at_recall(y, score, recall=0.25) == 0.0


def test_ece_by_hand() -> None:
    y = np.array([0, 1, 1, 1])
    probability = np.array([0.11, 0.19, 0.95, 1.0])
    # bin 0.1-0.2: said 0.15, was 0.5, 2 rows; bin 0.9-1: said 0.975, was 1, 2 rows
    assert ece(y, probability) == pytest.approx(0.5 * 0.35 + 0.5 * 0.025)
    with pytest.raises(EvaluationError, match="sigmoid"):
        ece(y, np.array([-1.0, 0, 0, 2]))


def test_threshold_raises_at_most_the_alerts_allowed() -> None:
    time_ms = np.linspace(0, 2 * DAY_MS, 10).astype(np.int64)
    score = np.array([0.1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.0])
    # two days, two a day: the four highest
    assert threshold_for_alerts_per_day(score, time_ms, 2) == 0.6
    assert threshold_for_alerts_per_day(score, time_ms, 100) == 0.0


def test_threshold_keeps_the_limit_when_scores_tie() -> None:
    time_ms = np.array([0, 1, 2, 3])
    score = np.array([0.9, 0.5, 0.5, 0.1])
    assert threshold_for_alerts_per_day(score, time_ms, 2) == 0.9
    same = threshold_for_alerts_per_day(np.full(4, 0.5), time_ms, 2)
    assert same > 0.5


def scored(noise: float, seed: int) -> np.ndarray:
    y = np.arange(400) % 10 == 0
    return y + noise * np.random.default_rng(seed).normal(size=400)


def test_a_clearly_better_challenger_wins() -> None:
    y = (np.arange(400) % 10 == 0).astype(int)
    verdict = compare(scored(1.5, 1), scored(0.4, 2), y)
    assert verdict.better
    assert verdict.figures["challenger_ap"] > verdict.figures["champion_ap"]
    assert "average precision" in verdict.reason


def test_an_equal_or_worse_challenger_does_not_win() -> None:
    y = (np.arange(400) % 10 == 0).astype(int)
    same = compare(scored(0.5, 1), scored(0.5, 1), y)
    assert not same.better
    assert same.figures["certainty"] == 0.5
    assert not compare(scored(0.4, 2), scored(1.5, 1), y).better


def test_a_challenger_that_loses_auc_does_not_win() -> None:
    # It lifts half the positives to the top and drops the others to the bottom.
    y = (np.arange(400) % 10 == 0).astype(int)
    champion = scored(1.0, 3)
    challenger = champion.copy()
    ones = np.flatnonzero(y)
    challenger[ones[::2]], challenger[ones[1::2]] = 9.0, -9.0
    verdict = compare(champion, challenger, y)
    assert not verdict.better
    assert verdict.reason.startswith("loses AUC")


def test_without_positives_nothing_is_promoted() -> None:
    verdict = compare(np.zeros(5), np.ones(5), np.zeros(5, int))
    assert not verdict.better
    assert "0 positives" in verdict.reason
