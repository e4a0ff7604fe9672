"""What each feature adds to the score of boosted trees, by compiled code.

The shares are those of path-dependent TreeSHAP (Lundberg, Erion and Lee 2018): Shapley
values of the game in which a tree, at a split on a feature outside the coalition, goes
both ways, weighted by how many training rows went each way. Shapley values are an
integral over the game's multilinear extension (Owen 1972). From a leaf of value `v`,
feature `i` gets

    v (o_i - z_i) * integral over t from 0 to 1 of the product of a_j for all j != i,
    a_j = (1 - t) z_j + t o_j,

where `j` are the features on the leaf's path, `o_j` is 1 if the row passes all splits
on `j` there and otherwise 0, and `z_j` is the product of the parts of the training
rows that did, split by split. The integrand is a polynomial: `n` Gauss-Legendre points
give the integral exactly for paths of up to `2n` features. All leaves of a tree share
one pass down and one up (Linear TreeShap, Yu et al. 2022): down goes the product of all
`a_j`, up come its sums over leaves. Where a feature is split again, its new `a_j` takes
the place of the earlier one, in the product and in what is added.

Legend: `B` rows, `F` features, `S` splits of all trees, `T` trees, `W` points at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from automl.tree_text import MOST_LEAVES, Tree, nan_left, numbers, plain_trees
from automl.wide import WIDTH, empty_rows, load, store

#: Rows that a tree sees before the next tree has its turn.
_ROWS = 16
#: Columns of `_Splits.number`; from `_PART` on, those of the left child.
_LIMIT, _ABOVE, _PART, _LEAF, _STEP = np.array([0, 1, 2, 4, 6], dtype=np.uint64)
#: Columns of `_Splits.place`.
_FEATURE, _NAN_RIGHT, _NODE, _EARLIER = np.arange(4, dtype=np.uint64)
# numbers without sign spare compiled code the look at indexes from the end
_ONE, _NEITHER = np.array([1, 2], dtype=np.uint64)


class _Splits(NamedTuple):
    """The splits of all trees, parents before children.

    In a tree the root is node 0, and the children of split `j` are the nodes `2j + 1`
    (left) and `2j + 2`. A node stands for the edge that leads to it.

    Attributes:
        number: float64 (S, 8): threshold; 1 - z of the earlier edge; then for the left
            and the right child: z; the leaf's value, 1 if it is no leaf; that value
            times the child's part of the split's rows.
        place: uint64 (S, 4): feature; whether NaN goes right; the split's node; the
            earlier edge, which is the nearest above on the same feature, or 0.
        tree: int64 (T, 3): where a tree's splits begin and end; its number of steps.
        points: float64 (steps, 4, W): t; 1 - t; weight; weight / (1 - t). First
            those of trees of one step, then those of trees of two, and so on.
    """

    number: npt.NDArray[np.float64]
    place: npt.NDArray[np.uint64]
    tree: npt.NDArray[np.int64]
    points: npt.NDArray[np.float64]


class TreeShap:
    """Shares of the features in raw scores, equal to LightGBM's but for rounding.

    Args:
        splits: what `of_text` read.
    """

    def __init__(self, splits: _Splits) -> None:
        self._splits = splits

    @classmethod
    def of_text(cls, text: str) -> TreeShap | None:
        """Reads LightGBM's text; None when it holds trees that are not plain."""
        trees = plain_trees(text)
        return None if trees is None else cls(_splits_of(trees))

    def contributions(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Gives what each feature adds (B, F) for rows (B, F), NaN allowed."""
        out = np.empty(x.shape, dtype=np.float64)
        _share(x, *self._splits, out)
        return out


def _splits_of(trees: list[Tree]) -> _Splits:
    number, place = [np.empty((0, 8))], [np.empty((0, 4), dtype=np.uint64)]
    spans: list[tuple[int, int, int]] = []
    first, most = 0, 0
    for tree in trees:
        values, places, deepest = _rows_of(tree)
        number.append(values)
        place.append(places)
        steps = -(-deepest // (2 * WIDTH))
        spans.append((first, first + len(values), steps))
        first, most = first + len(values), max(most, steps)
    rules = [_points(steps) for steps in range(1, most + 1)]
    return _Splits(
        number=np.concatenate(number),
        place=np.concatenate(place),
        tree=np.array(spans, dtype=np.int64).reshape(-1, 3),
        points=np.concatenate([np.empty((0, 4, WIDTH)), *rules]),
    )


def _points(steps: int) -> npt.NDArray[np.float64]:
    """Gauss-Legendre on [0, 1]: t, 1 - t, weight, weight / (1 - t) (steps, 4, W)."""
    at, weight = np.polynomial.legendre.leggauss(steps * WIDTH)
    rule = np.stack([(1 + at) / 2, (1 - at) / 2, weight / 2, weight / (1 - at)])
    return np.ascontiguousarray(rule.reshape(4, steps, WIDTH).transpose(1, 0, 2))


def _rows_of(
    tree: Tree,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint64], int]:
    """A tree's rows of `number` and `place`, and the most features on a path."""
    feature = numbers(tree, "split_feature", np.uint64)
    children = np.stack(
        [numbers(tree, f"{side}_child", np.int64) for side in ("left", "right")], axis=1
    )
    # splits from the front, leaves from the back, as children are numbered
    rows = _by_child(tree, "internal_count", "leaf_count")
    value = _by_child(tree, "internal_value", "leaf_value")
    value[: len(feature)] = 1.0
    part = rows[children] / np.maximum(rows[: len(feature), None], 1)
    above, node, earlier, order, deepest = _walk(children, feature.tolist(), part)
    number = np.empty((len(feature), 8))
    number[:, _LIMIT] = numbers(tree, "threshold", np.float64)
    number[:, _ABOVE] = 1 - above
    number[:, _PART:_LEAF] = part * above[:, None]
    number[:, _LEAF:_STEP] = value[children]
    number[:, _STEP:] = part * value[children]
    place = np.stack([feature, ~nan_left(tree), node, earlier], axis=1)
    return number[order], place[order].astype(np.uint64), deepest


def _by_child(tree: Tree, of_splits: str, of_leaves: str) -> npt.NDArray[np.float64]:
    leaves = numbers(tree, of_leaves, np.float64)
    return np.append(numbers(tree, of_splits, np.float64), leaves[::-1])


def _walk(
    children: npt.NDArray[np.int64], feature: list[int], part: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], list[int], list[int], list[int], int]:
    """For each split z of the earlier edge, its node and that edge; order; depth."""
    above, node, earlier = np.ones(len(feature)), [0] * len(feature), [0] * len(feature)
    order: list[int] = [0] if feature else []
    # of each feature on the path to a split, the nearest edge and its z
    paths: list[dict[int, tuple[int, float]]] = [{} for _ in feature]
    deepest = 0
    # level by level: neighbours do not wait for each other's results
    for row, split in enumerate(order):
        path, on = paths[split], feature[split]
        earlier[split], above[split] = path.get(on, (0, 1.0))
        deepest = max(deepest, len({*path, on}))
        for side in (0, 1):
            child = int(children[split, side])
            if child < 0:
                continue
            node[child] = 2 * row + 1 + side
            z = float(above[split] * part[split, side])
            paths[child] = {**path, on: (node[child], z)}
            order.append(child)
    return above, node, earlier, order, deepest


@njit(cache=True, error_model="numpy", nogil=True)
def _share(x, number, place, tree, points, out):  # type: ignore[no-untyped-def]
    rows, features = x.shape
    product, inverse = empty_rows(2 * MOST_LEAVES), empty_rows(2 * MOST_LEAVES)
    passes = np.ones(2 * MOST_LEAVES, np.bool_)
    side = np.empty(MOST_LEAVES, np.uint64)
    shares = empty_rows(min(rows, _ROWS) * features)
    inverse[0] = 1.0
    for at in range(0, rows, _ROWS):
        here = min(rows - at, _ROWS)
        shares[:] = 0.0
        for which in range(len(tree)):
            first, last, steps = tree[which]
            own, where = number[first:last], place[first:last]
            for step in range(steps * (steps - 1) // 2, steps * (steps + 1) // 2):
                rule = points[step]
                for i in range(here):
                    product[0] = 1.0
                    _down(x[at + i], own, where, rule, product, inverse, passes, side)
                    mine = shares[i * features : (i + 1) * features]
                    _up(own, where, rule, product, inverse, side, mine)
        for i in range(here):
            for f in range(features):
                out[at + i, f] = shares[i * features + f].sum()


@njit(error_model="numpy")
def _down(row, number, place, rule, product, inverse, passes, side):  # type: ignore[no-untyped-def]
    """Fills in the products, and 1 / a of the edges that pass (o is 1)."""
    t, rest = load(rule, 0), load(rule, 1)
    for j in range(uint64(len(number))):
        earlier, left = place[j, _EARLIER], j + j + _ONE
        here = load(product, place[j, _NODE])
        if not passes[earlier]:
            side[j] = _NEITHER
            passes[left] = passes[left + _ONE] = False
            store(product, left, here * number[j, _STEP])
            store(product, left + _ONE, here * number[j, _STEP + _ONE])
            continue
        value = row[place[j, _FEATURE]]
        right = uint64(value > number[j, _LIMIT])
        if value != value:
            right = place[j, _NAN_RIGHT]
        wrong = _ONE - right
        side[j] = right
        passes[left + right], passes[left + wrong] = True, False
        here = here * load(inverse, earlier)
        z = number[j, _PART + right]
        a = z + t * (1 - z)
        store(inverse, left + right, 1 / a)
        store(product, left + right, here * (a * number[j, _LEAF + right]))
        lost = number[j, _PART + wrong] * number[j, _LEAF + wrong]
        store(product, left + wrong, here * (rest * lost))


@njit(error_model="numpy")
def _up(number, place, rule, product, inverse, side, shares):  # type: ignore[no-untyped-def]
    """Sums the products over leaves, and adds each split's part to its feature."""
    weight, loss = load(rule, 2), load(rule, 3)
    last = uint64(len(number)) - _ONE
    for back in range(uint64(len(number))):
        j = last - back
        left, right = j + j + _ONE, side[j]
        if right == _NEITHER:
            both = load(product, left) + load(product, left + _ONE)
            store(product, place[j, _NODE], both)
            continue
        passed, failed = load(product, left + right), load(product, left + _ONE - right)
        both = passed + failed
        store(product, place[j, _NODE], both)
        gain = passed * load(inverse, left + right) * (1 - number[j, _PART + right])
        again = both * load(inverse, place[j, _EARLIER]) * number[j, _ABOVE]
        f = place[j, _FEATURE]
        store(shares, f, load(shares, f) + (weight * (gain - again) - loss * failed))
