from __future__ import annotations

import numpy as np
import pytest

from benchmarks import opinions


def test_precision_of_a_perfect_order_and_of_the_worst():
    same = np.array([[True, False, True, False]])
    assert opinions.mean_average_precision(same.astype(float), same) == 1.0
    worst = opinions.mean_average_precision(1.0 - same, same)
    assert worst == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_a_gate_turns_down_the_modality_that_is_too_sure():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, 2000)
    told = []
    for right, sure in ((0.8, 0.8), (0.5, 0.99)):
        seen = np.where(rng.random(2000) < right, truth, rng.integers(0, 10, 2000))
        likely = np.full((2000, 10), (1 - sure) / 9)
        likely[np.arange(2000), seen] = sure
        told.append(np.log(likely))
    product = (sum(told).argmax(axis=1) == truth).mean()
    gate = opinions.fit_gate(told, truth)
    fused = (opinions.gated(told, gate).argmax(axis=1) == truth).mean()
    assert product < 0.6
    assert fused > 0.8
    assert opinions.gated(told, np.zeros((2, 2))).tolist() == sum(told).tolist()
