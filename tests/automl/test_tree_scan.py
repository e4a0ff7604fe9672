import lightgbm
import numpy as np
import pytest

from automl.tree_scan import TreeScan
from tests.automl.drawn import NOT_PLAIN

FEATURES = 7


def rows(draw, count):
    """Rows with whole numbers, ties with thresholds, zeros, infinities and NaN."""
    x = draw.normal(size=(count, FEATURES))
    x[:, :3] = (x[:, :3] * 4).round()
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36])
    chosen = draw.random(x.shape) < 0.1
    x[chosen] = draw.choice(odd, chosen.sum())
    return x


def grown(draw, *, with_nan=True, **settings):
    x = rows(draw, 3000)
    if not with_nan:
        x = np.nan_to_num(x, posinf=9.0, neginf=-9.0)
    clean = np.nan_to_num(x, posinf=9.0, neginf=-9.0)
    y = (clean[:, 0] + clean[:, 1] * clean[:, 4] + draw.normal(size=len(x)) > 1) * 1
    given = {"objective": "binary", "num_threads": 1, "verbosity": -1, **settings}
    return lightgbm.train(given, lightgbm.Dataset(x, label=y), 20)


def scan_of(booster):
    return TreeScan.of_text(booster.model_to_string())


@pytest.mark.parametrize("leaves", [2, 7, 15, 31, 64])
@pytest.mark.parametrize("with_nan", [True, False])
def test_scores_are_those_of_lightgbm_to_the_bit(leaves, with_nan):
    draw = np.random.default_rng(leaves)
    booster = grown(draw, with_nan=with_nan, num_leaves=leaves, min_data_in_leaf=3)
    scan = scan_of(booster)
    for count in (1, 2, 8, 9, 127, 128, 129, 500):
        x = rows(draw, count)
        expected = booster.predict(x, raw_score=True)
        assert scan.predict(x).tobytes() == expected.tobytes()


def test_a_row_at_a_threshold_goes_left():
    booster = grown(np.random.default_rng(1), num_leaves=4)
    text = booster.model_to_string()
    at = float(text.split("threshold=")[1].split()[0])
    x = np.full((3, FEATURES), [[at], [np.nextafter(at, 9)], [np.nextafter(at, -9)]])
    found = TreeScan.of_text(text).predict(x)
    assert found.tolist() == booster.predict(x, raw_score=True).tolist()


def test_trees_that_did_not_split_give_their_one_value():
    x = np.zeros((50, FEATURES))
    data = lightgbm.Dataset(x, label=np.arange(50) % 5 == 0)
    given = {"objective": "binary", "verbosity": -1}
    booster = lightgbm.train(given, data, 3)
    found = scan_of(booster).predict(x[:4])
    assert found.tolist() == booster.predict(x[:4], raw_score=True).tolist()
    assert found[0] == pytest.approx(np.log(0.2 / 0.8))


def test_no_rows_give_no_scores():
    scan = scan_of(grown(np.random.default_rng(2)))
    assert scan.predict(np.empty((0, FEATURES))).tolist() == []


@pytest.mark.parametrize("settings", NOT_PLAIN)
def test_other_trees_are_left_to_lightgbm(settings):
    assert scan_of(grown(np.random.default_rng(3), **settings)) is None
