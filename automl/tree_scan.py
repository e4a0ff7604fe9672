"""Boosted trees read from LightGBM's text, scored for many rows by compiled code.

A row's leaf is found without following it down the tree. The leaves of a tree are
numbered from left to right, one bit each. Every split at which the row goes right
clears the bits of the leaves on the left of it; the lowest bit that stays is the leaf.
So each split is one comparison for all rows at once, with no branch to guess.

Legend: `B` rows, `F` features, `S` splits of all trees, `T` trees.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from automl.tree_text import MOST_LEAVES, Tree, nan_left, numbers, plain_trees

#: Rows that are compared with a split at once.
LANES = 128
_ALL = (1 << MOST_LEAVES) - 1


class _Splits(NamedTuple):
    """The splits of all trees; of each tree those that send NaN left come first.

    Attributes:
        feature: uint64 (S,).
        threshold: float64 (S,), above it a row goes right.
        mask: uint64 (S,), the leaves that a row which goes right may still reach.
        first: uint64 (T + 1,), where the splits of a tree begin.
        strict: uint64 (T,), where those begin that send NaN right.
        leaf: float64, values of the leaves of one tree after the other.
        first_leaf: uint64 (T,), where the leaves of a tree begin.
    """

    feature: npt.NDArray[np.uint64]
    threshold: npt.NDArray[np.float64]
    mask: npt.NDArray[np.uint64]
    first: npt.NDArray[np.uint64]
    strict: npt.NDArray[np.uint64]
    leaf: npt.NDArray[np.float64]
    first_leaf: npt.NDArray[np.uint64]


class TreeScan:
    """Raw scores of boosted trees, equal to LightGBM's to the bit.

    Args:
        splits: what `of_text` read.
    """

    def __init__(self, splits: _Splits) -> None:
        self._splits = splits

    @classmethod
    def of_text(cls, text: str) -> TreeScan | None:
        """Reads LightGBM's text; None when it holds trees that are not plain."""
        trees = plain_trees(text)
        return None if trees is None else cls(_splits_of(trees))

    def predict(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Gives the raw scores (B,) of rows (B, F), NaN allowed."""
        out = np.zeros(len(x), dtype=np.float64)
        # as many lanes as there are rows, in whole registers
        lanes = min(LANES, (len(x) + 7) // 8 * 8)
        values = np.zeros((x.shape[1], lanes), dtype=np.float64)
        _scan(x, *self._splits, values, np.empty(lanes, dtype=np.uint64), out)
        return out


def _splits_of(trees: list[Tree]) -> _Splits:
    columns: list[list[npt.NDArray[Any]]] = [[], [], []]
    first, strict, first_leaf, leaves = [0], [], [0], []
    for tree in trees:
        order, masks = _leaves_of(
            numbers(tree, "left_child", np.int64).tolist(),
            numbers(tree, "right_child", np.int64).tolist(),
        )
        goes_left = nan_left(tree)
        rows = np.argsort(~goes_left, kind="stable")
        whole = (
            numbers(tree, "split_feature", np.uint64),
            numbers(tree, "threshold", np.float64),
            np.array(masks, dtype=np.uint64),
        )
        for column, values in zip(columns, whole, strict=True):
            column.append(values[rows])
        strict.append(first[-1] + int(goes_left.sum()))
        first.append(first[-1] + len(rows))
        leaves.append(numbers(tree, "leaf_value", np.float64)[order])
        first_leaf.append(first_leaf[-1] + len(order))
    kinds = (np.uint64, np.float64, np.uint64)
    feature, threshold, mask = (
        np.concatenate([np.empty(0, kind), *column])
        for column, kind in zip(columns, kinds, strict=True)
    )
    return _Splits(
        feature=feature,
        threshold=threshold,
        mask=mask,
        first=np.array(first, dtype=np.uint64),
        strict=np.array(strict, dtype=np.uint64),
        leaf=np.concatenate([np.empty(0), *leaves]),
        first_leaf=np.array(first_leaf[:-1], dtype=np.uint64),
    )


def _leaves_of(left: list[int], right: list[int]) -> tuple[list[int], list[int]]:
    """The leaves from left to right, and the mask of every split."""
    order: list[int] = []
    masks = [_ALL] * len(left)

    def visit(node: int) -> None:
        if node < 0:
            order.append(~node)
            return
        before = len(order)
        visit(left[node])
        masks[node] ^= (1 << len(order)) - (1 << before)
        visit(right[node])

    visit(0 if left else -1)
    return order, masks


@njit(cache=True, error_model="numpy")
def _scan(  # type: ignore[no-untyped-def]
    x, feature, threshold, mask, first, strict, leaf, first_leaf, values, left, out
):
    rows, features = x.shape
    lanes = len(left)
    for at in range(0, rows, max(lanes, 1)):
        here = min(lanes, rows - at)
        for j in range(here):
            for f in range(features):
                values[f, j] = x[at + j, f]
        for tree in range(len(strict)):
            left[:] = uint64(_ALL)
            for k in range(first[tree], strict[tree]):
                limit, kept, value = threshold[k], mask[k], values[feature[k]]
                for j in range(lanes):
                    left[j] = left[j] & kept if value[j] > limit else left[j]
            for k in range(strict[tree], first[tree + 1]):
                limit, kept, value = threshold[k], mask[k], values[feature[k]]
                for j in range(lanes):
                    left[j] = left[j] if value[j] <= limit else left[j] & kept
            for j in range(here):
                out[at + j] += leaf[first_leaf[tree] + _lowest(left[j])]


@njit(cache=True, inline="always")
def _lowest(bits):  # type: ignore[no-untyped-def]
    """The number of the lowest bit that is set."""
    low = bits & (uint64(0) - bits)
    found = uint64((low & uint64(0xFFFFFFFF00000000)) != uint64(0)) << uint64(5)
    found |= uint64((low & uint64(0xFFFF0000FFFF0000)) != uint64(0)) << uint64(4)
    found |= uint64((low & uint64(0xFF00FF00FF00FF00)) != uint64(0)) << uint64(3)
    found |= uint64((low & uint64(0xF0F0F0F0F0F0F0F0)) != uint64(0)) << uint64(2)
    found |= uint64((low & uint64(0xCCCCCCCCCCCCCCCC)) != uint64(0)) << uint64(1)
    return found | uint64((low & uint64(0xAAAAAAAAAAAAAAAA)) != uint64(0))
