"""Hashed n-grams: what counts, and that neighbours and processes change nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.ngrams import CHAR_SLOTS, SLOTS, count_grams

BUCKETS = 2**15


def amounts(text: str) -> dict[int, float]:
    grams = count_grams([text], BUCKETS)
    held = grams.amount[0] > 0
    found = zip(grams.bucket[0][held], grams.amount[0][held], strict=True)
    return {int(bucket): float(amount) for bucket, amount in found}


def test_one_word_gives_its_runs_and_itself() -> None:
    # Characters of "\\x02 ab ": 4 pairs, 3 threes, 2 fours, 1 five. Words: the mark,
    # "ab" and the two as a pair; shapes: "a" alone.
    grams = count_grams(["ab"], BUCKETS)
    assert (grams.amount[0, :CHAR_SLOTS] > 0).sum() == 10
    assert (grams.amount[0, CHAR_SLOTS:] > 0).sum() == 4
    assert grams.bucket[0, :CHAR_SLOTS].max() < BUCKETS // 2
    held = grams.amount[0, CHAR_SLOTS:] > 0
    assert grams.bucket[0, CHAR_SLOTS:][held].min() >= BUCKETS // 2


def test_what_comes_often_weighs_by_its_logarithm() -> None:
    # "win" three times: 1 + log 3, in words and in shapes.
    assert max(amounts("win win win").values()) == pytest.approx(1 + np.log(3), 1e-5)


def test_letters_are_folded_and_shapes_are_not() -> None:
    small, capital = amounts("call"), amounts("CALL")
    both = set(small) & set(capital)
    # Only the shapes differ: "a" against "A".
    assert len(small) - len(both) == len(capital) - len(both) == 1


def test_digits_share_a_shape() -> None:
    near, far = set(amounts("0845")), set(amounts("home"))
    other = set(amounts("1234"))
    assert len(near & other) == len(far & other) + 1


@given(st.lists(st.text(max_size=300), max_size=6))
def test_a_text_counts_alike_alone_and_among_others(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    rows = count_grams(texts, BUCKETS).rows()
    assert rows.shape == (len(texts), 2 * SLOTS)
    for row, text in zip(rows, texts, strict=True):
        np.testing.assert_array_equal(row, count_grams([text], BUCKETS).rows()[0])


def test_long_texts_keep_the_same_grams_of_what_they_share() -> None:
    words = [f"word{n}" for n in range(400)]
    whole, most = " ".join(words), " ".join(words[:380])
    a, b = set(amounts(whole)), set(amounts(most))
    assert len(a) <= SLOTS
    assert len(a & b) > 0.85 * len(a)


def test_another_process_counts_the_same() -> None:
    code = (
        "from encoders.ngrams import count_grams;"
        f"print(count_grams(['Free prize 0845'], {BUCKETS}).rows().sum(dtype=float))"
    )
    run = [sys.executable, "-c", code]
    told = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    here = count_grams(["Free prize 0845"], BUCKETS).rows().sum(dtype=float)
    assert float(told) == float(here)
