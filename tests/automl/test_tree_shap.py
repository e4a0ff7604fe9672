import itertools
import math
import re

import lightgbm
import numpy as np
import pytest

from automl.tree_scan import TreeScan
from automl.tree_shap import TreeShap
from tests.automl.drawn import NOT_PLAIN

FEATURES = 7


def rows(draw, count, features=FEATURES):
    """Rows with whole numbers, ties with thresholds, zeros, infinities and NaN."""
    x = draw.normal(size=(count, features))
    x[:, :3] = (x[:, :3] * 4).round()
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36])
    chosen = draw.random(x.shape) < 0.1
    x[chosen] = draw.choice(odd, chosen.sum())
    return x


def grown(draw, *, features=FEATURES, with_nan=True, **settings):
    x = rows(draw, 3000, features)
    clean = np.nan_to_num(x, posinf=9.0, neginf=-9.0)
    y = clean[:, 0] + clean[:, 1] * clean[:, -1] + draw.normal(size=len(x)) > 1
    given = {"objective": "binary", "num_threads": 1, "verbosity": -1, **settings}
    data = lightgbm.Dataset(x if with_nan else clean, label=y * 1)
    return lightgbm.train(given, data, 20)


def shap_of(booster):
    return TreeShap.of_text(booster.model_to_string())


def by_lightgbm(booster, x):
    return booster.predict(x, pred_contrib=True, num_threads=1)


def is_near(found, expected):
    return np.allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("leaves", [2, 7, 15, 31, 63])
@pytest.mark.parametrize("features", [2, 3, 7, 24])
@pytest.mark.parametrize("with_nan", [True, False])
def test_contributions_are_those_of_lightgbm(leaves, features, with_nan):
    draw = np.random.default_rng(leaves)
    booster = grown(
        draw,
        features=features,
        with_nan=with_nan,
        num_leaves=leaves,
        min_data_in_leaf=3,
    )
    shap = shap_of(booster)
    for count in (1, 2, 15, 16, 17, 200):
        x = rows(draw, count, features)
        expected = by_lightgbm(booster, x)[:, :-1]
        found = shap.contributions(x)
        assert found.shape == (count, features)
        assert is_near(found, expected)


def test_a_chain_of_forty_features_needs_more_points():
    draw = np.random.default_rng(4)
    x = (draw.random((6000, 40)) < 0.08) * 1.0
    # each feature is asked only where all before it are 0
    y = np.where(x.any(axis=1), 40.0 - x.argmax(axis=1), 0.0) * 3
    given = {"num_leaves": 64, "min_data_in_leaf": 1, "verbosity": -1}
    booster = lightgbm.train(given, lightgbm.Dataset(x, label=y), 3)
    assert max(booster.trees_to_dataframe()["node_depth"]) > 33
    found = shap_of(booster).contributions(x[:20])
    # so far down LightGBM itself has lost all but six digits
    assert np.allclose(found, by_lightgbm(booster, x[:20])[:, :-1], rtol=0, atol=1e-3)
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    for row, shares in zip(x[:20], found, strict=True):
        expected = np.zeros(40)
        for tree in trees:
            add_leaves(tree, row, {}, expected)
        assert is_near(shares, expected)


def add_leaves(node, row, path, shares):
    """Adds each leaf's integral; `path` holds o and z of every feature."""
    if "leaf_value" in node:
        t, weight = np.polynomial.legendre.leggauss(40)
        a = {f: (1 - t) / 2 * z + (1 + t) / 2 * o for f, (o, z) in path.items()}
        for f, (o, z) in path.items():
            others = np.prod([a[g] for g in path if g != f], axis=0) * np.ones(40)
            shares[f] += node["leaf_value"] * (o - z) * (weight / 2 * others).sum()
        return
    f = node["split_feature"]
    o, z = path.get(f, (1, 1.0))
    for side, passes in (
        ("left_child", row[f] <= node["threshold"]),
        ("right_child", row[f] > node["threshold"]),
    ):
        child = node[side]
        part = child.get("internal_count", child.get("leaf_count"))
        below = (o * passes, z * part / node["internal_count"])
        add_leaves(child, row, {**path, f: below}, shares)


def test_contributions_and_the_bias_add_up_to_the_score():
    draw = np.random.default_rng(5)
    booster = grown(draw, num_leaves=31)
    x = rows(draw, 100)
    bias = by_lightgbm(booster, x)[:, -1]
    score = TreeScan.of_text(booster.model_to_string()).predict(x)
    assert is_near(shap_of(booster).contributions(x).sum(axis=1) + bias, score)


def test_a_row_gets_the_same_alone_to_the_bit():
    draw = np.random.default_rng(6)
    shap = shap_of(grown(draw, num_leaves=31))
    x = rows(draw, 40)
    whole = shap.contributions(x)
    alone = [shap.contributions(x[i : i + 1])[0] for i in range(len(x))]
    assert np.array(alone).tobytes() == whole.tobytes()


def test_one_split_gives_its_feature_the_way_from_the_mean():
    data = lightgbm.Dataset(
        np.arange(100.0)[:, None],
        label=np.arange(100) >= 75,
        params={"min_data_in_bin": 1, "verbosity": -1},
    )
    given = {"num_leaves": 2, "learning_rate": 1.0, "verbosity": -1}
    shap = shap_of(lightgbm.train(given, data, 1))
    # leaves 0 and 1, three quarters of the rows go left
    found = shap.contributions(np.array([[0.0], [99.0]]))
    assert found[:, 0] == pytest.approx([-0.25, 0.75])


def test_shares_are_means_over_all_orders_of_the_features():
    draw = np.random.default_rng(7)
    booster = grown(draw, features=3, num_leaves=12)
    tree = booster.dump_model()["tree_info"][0]["tree_structure"]
    x = np.array([0.5, -1.0, 0.25])

    def expected(node, known):
        if "leaf_value" in node:
            return node["leaf_value"]
        sides = [node["left_child"], node["right_child"]]
        f = node["split_feature"]
        if f in known:
            return expected(sides[int(x[f] > node["threshold"])], known)
        sizes = [s.get("internal_count", s.get("leaf_count")) for s in sides]
        values = [expected(side, known) for side in sides]
        return np.dot(sizes, values) / node["internal_count"]

    shares = np.zeros(3)
    for order in itertools.permutations(range(3)):
        for i, f in enumerate(order):
            gain = expected(tree, order[: i + 1]) - expected(tree, order[:i])
            shares[f] += gain / math.factorial(3)
    one = TreeShap.of_text(booster.model_to_string(num_iteration=1))
    assert is_near(one.contributions(x[None])[0], shares)


def test_trees_that_did_not_split_give_nothing():
    data = lightgbm.Dataset(np.zeros((50, FEATURES)), label=np.arange(50) % 5 == 0)
    booster = lightgbm.train({"objective": "binary", "verbosity": -1}, data, 3)
    found = shap_of(booster).contributions(np.zeros((4, FEATURES)))
    assert found.tolist() == np.zeros((4, FEATURES)).tolist()


def test_no_rows_give_no_contributions():
    shap = shap_of(grown(np.random.default_rng(2)))
    assert shap.contributions(np.empty((0, FEATURES))).shape == (0, FEATURES)


def test_splits_and_leaves_without_training_rows_are_no_trouble():
    draw = np.random.default_rng(8)
    text = grown(draw, features=2, num_leaves=8).model_to_string()
    text = re.sub(r"leaf_count=\d+", "leaf_count=0", text)
    text = re.sub(r"internal_count=(\d+) \d+", r"internal_count=\1 0", text)
    x = rows(draw, 200, 2)
    total = TreeShap.of_text(text).contributions(x).sum(axis=1)
    bias = TreeScan.of_text(text).predict(x) - total
    assert is_near(bias, bias[0])


@pytest.mark.parametrize("settings", NOT_PLAIN)
def test_other_trees_are_left_to_lightgbm(settings):
    assert shap_of(grown(np.random.default_rng(3), **settings)) is None
