"""Items are kept aside, not cases: what judges a pair was never learnt from."""

from __future__ import annotations

import numpy as np

from encoders.unseen import split_by_item


def cases(count: int, items: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, items, (count, 4))
    rows[:, :2] = -1
    return rows


def test_no_item_both_teaches_and_judges() -> None:
    rows = cases(20_000, 50)
    split = split_by_item(rows, np.zeros(len(rows)), 0.2, seed=0)
    chosen = split.judge["image", "audio"]
    assert 700 < len(chosen) <= 1024
    for column in (2, 3):
        learnt, judged = set(split.learn[:, column]), set(rows[chosen, column])
        assert len(judged) == 10
        assert not learnt & judged
        assert len(learnt - {-1}) == 40
    assert not len(split.judge["tabular", "text"])


def test_with_few_cases_one_unseen_item_is_enough() -> None:
    rows = cases(300, 50)
    split = split_by_item(rows, np.zeros(300), 0.2, seed=0)
    chosen = split.judge["image", "audio"]
    unseen = (split.learn[chosen][:, 2:] == -1).sum(axis=1)
    assert 60 < len(chosen) < 150
    assert set(unseen) == {1, 2}


def test_cases_that_may_contradict_do_not_judge() -> None:
    rows = cases(2000, 50)
    labels = np.arange(2000) % 2
    split = split_by_item(rows, labels, 0.5, seed=0)
    assert not labels[split.judge["image", "audio"]].any()


def test_nothing_kept_aside_judges_nothing() -> None:
    split = split_by_item(cases(100, 5), np.zeros(100), 0.0, seed=0)
    assert all(len(chosen) == 0 for chosen in split.judge.values())
