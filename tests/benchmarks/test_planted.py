from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.planted import AFTER, BEFORE, planted


def told(y: Any, truth: Any, seed: int) -> Any:
    """Scores of a text that sees six of ten 1s of `truth`, above a tree's."""
    draw = np.random.default_rng(seed)
    spam = draw.random(len(y)) < np.where(truth == 1, 0.6, 0.03)
    said = np.zeros((len(y), 2), np.float32)
    said[:, 1] = np.where(spam, 3.0, -0.9)
    tree = -4.0 + np.random.default_rng(9).normal(size=len(y)) + 1.0 * y
    return SimpleNamespace(said=said, tree_logit=tree)


@pytest.mark.parametrize("turns", [True, False])
def test_a_text_that_turns_random_is_turned_down_and_a_good_one_is_not(
    turns: bool,
) -> None:
    draw = np.random.default_rng(0)
    y = (draw.random(BEFORE + AFTER + 1000) < 0.05).astype(np.int64)
    healthy = told(y, y, 1)
    random = told(y, draw.permutation(y), 2) if turns else healthy
    found = planted(healthy, random, y, 1, seed=0)
    assert found["before"] > 0.85
    assert (found["halved"] > 0.9) == turns
    assert (found["after"] < 0.2) == turns
    if not turns:
        assert found["fused"] > found["tabular"] + 0.1
