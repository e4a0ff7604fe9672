"""Keeps items aside, so that a pair of modalities is judged on what it never saw.

Items repeat over cases: with cases kept aside instead, a network could learn its items
by heart and still look good.

Legend: `N` cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from encoders.base import MODALITIES

Pair = tuple[str, str]

#: With fewer cases than this of two unseen items, one unseen item is enough.
ENOUGH_CASES = 100
#: Cases that judge one pair, at most.
MOST_CASES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """What is learnt from, and what is judged by.

    Attributes:
        learn: int (N, 4), as the cases' rows, with -1 for each item kept aside.
        judge: per pair of modalities, the cases (numbers of rows) to judge by.
    """

    learn: NDArray[np.int64]
    judge: dict[Pair, NDArray[np.int64]]


def split_by_item(
    rows_N4: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    share: float,
    seed: int,
) -> Split:
    """Keep a share of the items of each modality aside.

    Args:
        rows_N4: item of each modality, in the order of `MODALITIES`, -1 for none.
        labels_N: only cases labelled 0 judge: those labelled 1 may contradict.
        share: of each modality's items, 0..1.
        seed: of the choice.
    """
    choice = np.random.default_rng(seed)
    aside = np.zeros(rows_N4.shape, dtype=bool)
    for column, item in enumerate(rows_N4.T):
        known = np.unique(item[item >= 0])
        kept = choice.permutation(known)[: int(share * len(known))]
        aside[:, column] = np.isin(item, kept)
    judge = {}
    for a, b in combinations(range(len(MODALITIES)), 2):
        calm = (rows_N4[:, [a, b]] >= 0).all(axis=1) & (labels_N == 0)
        both = np.flatnonzero(calm & aside[:, a] & aside[:, b])
        if len(both) < ENOUGH_CASES:
            both = np.flatnonzero(calm & (aside[:, a] | aside[:, b]))
        chosen = choice.permutation(both)[:MOST_CASES]
        judge[MODALITIES[a], MODALITIES[b]] = chosen
    return Split(learn=np.where(aside, -1, rows_N4), judge=judge)
