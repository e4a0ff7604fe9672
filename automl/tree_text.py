"""LightGBM's text of boosted trees, taken apart for compiled code.

A tree is a dict of its lines `name=value`. Splits are numbered from 0, the root first;
a child below 0 is the leaf of number `~child`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

#: Leaves a tree may have: a bit each.
MOST_LEAVES = 64
_CATEGORICAL, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2

Tree = dict[str, str]


def plain_trees(text: str) -> list[Tree] | None:
    """Gives the trees of LightGBM's text; None when compiled code cannot take them.

    Those are trees of more than 64 leaves, with categorical splits, with linear
    leaves, with zeros that count as missing, of several classes, or averaged.
    """
    head, *trees = _sections(text)
    if head.get("num_tree_per_iteration") != "1" or "average_output" in head:
        return None
    return trees if all(_is_plain(tree) for tree in trees) else None


def numbers(tree: Tree, name: str, kind: Any) -> npt.NDArray[Any]:
    """Gives the numbers on a line of a tree, none where it has no such line."""
    return np.array(tree.get(name, "").split(), dtype=kind)


def nan_left(tree: Tree) -> npt.NDArray[np.bool_]:
    """Gives for every split whether NaN goes left."""
    decision = numbers(tree, "decision_type", np.int64)
    # where no NaN was seen when the trees grew, LightGBM takes it for a zero
    has_side = decision >> _MISSING_SHIFT == _MISSING_NAN
    zero_left = numbers(tree, "threshold", np.float64) >= 0
    return np.where(has_side, decision & _DEFAULT_LEFT != 0, zero_left)


def _sections(text: str) -> Iterator[Tree]:
    """The lines `name=value` of the head and of each tree."""
    found: Tree = {}
    for line in text.splitlines():
        if line.startswith("end of trees"):
            break
        if line.startswith("Tree="):
            yield found
            found = {}
        name, _, value = line.partition("=")
        found[name] = value
    yield found


def _is_plain(tree: Tree) -> bool:
    decisions = numbers(tree, "decision_type", np.int64)
    return (
        int(tree["num_leaves"]) <= MOST_LEAVES
        and tree.get("is_linear", "0") == "0"
        and not (decisions & _CATEGORICAL).any()
        and not (decisions >> _MISSING_SHIFT == _MISSING_ZERO).any()
    )
