"""Exact sums: rounded once, in any order, and against whole fractions."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from automl import exact_sum
from automl.exact_sum import NOTHING


def words_of(words: tuple[int, ...]) -> tuple[np.uint64, ...]:
    """What compiled code gives, as it takes it."""
    return tuple(map(np.uint64, words))


def total(values: list[float]) -> tuple[np.uint64, ...]:
    words = NOTHING
    for value in values:
        words = words_of(exact_sum.add(words, value))
    return words


def total_square(values: list[float]) -> tuple[np.uint64, ...]:
    words = NOTHING
    for value in values:
        words = words_of(exact_sum.add_square(words, value))
    return words


def drawn(seed: int, count: int = 200) -> list[float]:
    draw = random.Random(seed)
    return [draw.uniform(-1, 1) * 10.0 ** draw.randint(-12, 12) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_a_sum_is_that_of_fsum_in_any_order_and_however_it_is_merged(seed: int) -> None:
    values = drawn(seed)
    whole = total(values)
    assert exact_sum.to_double(whole) == math.fsum(values)
    assert total(values[::-1]) == whole
    assert exact_sum.merge(total(values[:70]), total(values[70:])) == whole


def test_what_is_taken_away_again_leaves_nothing() -> None:
    assert total([0.1, 1e12, -0.1, -1e12]) == NOTHING
    assert exact_sum.to_double(words_of(exact_sum.negated(total([2.5])))) == -2.5


@pytest.mark.parametrize("seed", range(5))
def test_squares_are_not_rounded(seed: int) -> None:
    values = [round(value, 3) for value in drawn(seed)]
    words = total_square(values)
    assert exact_sum.to_double(words) == float(sum(Fraction(v) ** 2 for v in values))


def test_the_deviation_does_not_suffer_from_a_large_mean() -> None:
    values = [1e9 + 1, 1e9 + 3, 1e9 + 5]
    found = exact_sum.deviation(total(values), total_square(values), 3)
    assert found == pytest.approx(math.sqrt(8 / 3), rel=1e-15)
