import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fusion.reliability import Reliability, ReliabilityConfig


def stream(rows: int, *, seed: int, share: float, good: bool = True):
    """Labels, what a text says of them (+3 or -0.9), and the rest of the log-odds."""
    draw = np.random.default_rng(seed)
    y = (draw.random(rows) < share).astype(int)
    told = y if good else draw.permutation(y)
    spam = draw.random(rows) < np.where(told == 1, 0.6, 0.03)
    other = draw.normal(size=rows) + 2.0 * y
    rest = np.log(share / (1 - share)) + 2.0 * other - 2.0
    return y, np.where(spam, 3.0, -0.9), rest


def follow(trust: Reliability, y, said) -> list[float]:
    found = []
    for row in range(len(y)):
        trust.learn(np.array([0.0, said[row]]), int(y[row]))
        if row % 100 == 99:
            found.append(float(trust.weights()[1]))
    return found


def test_before_any_label_everything_is_trusted() -> None:
    assert Reliability(3).weights().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("share", [0.0085, 0.02, 0.2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_turns_random_loses_half_its_weight_in_2000_labels(
    share: float, seed: int
) -> None:
    trust = Reliability(2)
    before = follow(trust, *stream(4000, seed=seed, share=share)[:2])
    y, said, rest = stream(2000, seed=seed + 10, share=share, good=False)
    after = follow(trust, y, said)
    assert np.mean(before) > 0.9
    assert np.mean(np.array(before) < 0.5) < 0.1
    assert after[-1] < before[-1] / 2
    late = slice(1000, 2000)
    weight = np.repeat(after, 100)[late]
    with_it = roc_auc_score(y[late], (rest[late] + weight * said[late]))
    assert with_it > roc_auc_score(y[late], rest[late] + said[late]) - 0.002


def test_it_comes_back_when_it_is_right_again() -> None:
    trust = Reliability(2)
    follow(trust, *stream(3000, seed=0, share=0.2, good=False)[:2])
    low = trust.weights()[1]
    follow(trust, *stream(3000, seed=1, share=0.2)[:2])
    assert trust.weights()[1] > 0.8 > 0.3 > low


def test_weights_stay_in_bounds_and_the_silent_keep_theirs() -> None:
    trust = Reliability(2, ReliabilityConfig(least=0.1))
    for label in [0, 1] * 300:
        trust.learn(np.array([0.0, 5.0]), label)
    assert trust.weights().tolist() == [1.0, pytest.approx(0.1, abs=1e-3)]


def test_extreme_evidence_leaves_finite_weights() -> None:
    trust = Reliability(2)
    for label in [0, 1] * 20:
        trust.learn(np.array([800.0, -800.0]), label)
        assert np.isfinite(trust.weights()).all()


def test_a_good_token_does_not_pay_for_a_bad_one() -> None:
    trust = Reliability(2)
    y, good, _ = stream(4000, seed=3, share=0.1)
    _, bad, _ = stream(4000, seed=4, share=0.1, good=False)
    looks = []
    for row in range(len(y)):
        trust.learn(np.array([good[row], bad[row]]), int(y[row]))
        looks.append(trust.weights())
    good_one, bad_one = np.mean(looks[1000:], axis=0)
    assert good_one > 0.9
    assert bad_one < 0.1
