from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from automl.candidates import CandidateError, TreeCandidate
from automl.evaluate import auc


def rows(count: int = 600, seed: int = 0) -> tuple[Any, Any]:
    """Feature 0 carries the label, feature 1 is noise, feature 2 is often missing."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, 3))
    y = (x[:, 0] + 0.5 * draw.normal(size=count) > 1).astype(np.int64)
    x[::2, 2] = np.nan
    return x, y


@pytest.fixture(scope="module")
def trees() -> TreeCandidate:
    return TreeCandidate.fit(*rows(), seed=1)


def test_it_learns_on_rows_it_has_not_seen(trees: TreeCandidate) -> None:
    x, y = rows(seed=5)
    assert auc(y, trees.predict_logit(x)) > 0.9


def test_the_logit_is_log_odds(trees: TreeCandidate) -> None:
    x, y = rows()
    chance = 1 / (1 + np.exp(-trees.predict_logit(x)))
    assert abs(chance.mean() - y.mean()) < 0.02


def test_contributions_and_the_bias_add_up_to_the_logit(trees: TreeCandidate) -> None:
    x, _ = rows()
    parts = trees.contributions(x)
    assert parts.shape == (600, 3)
    bias = trees.predict_logit(x) - parts.sum(1)
    assert np.allclose(bias, bias[0])
    assert np.abs(parts[:, 0]).mean() > 3 * np.abs(parts[:, 1]).mean()


def test_same_seed_same_scores_to_the_bit(trees: TreeCandidate) -> None:
    x, y = rows()
    again = TreeCandidate.fit(x, y, seed=1).predict_logit(x)
    assert np.array_equal(again, trees.predict_logit(x))
    other = TreeCandidate.fit(x, y, seed=2).predict_logit(x)
    assert not np.array_equal(other, trees.predict_logit(x))


def test_a_row_scores_the_same_alone(trees: TreeCandidate) -> None:
    x, _ = rows(20)
    whole = trees.predict_logit(x)
    assert all(trees.predict_logit(x[i : i + 1])[0] == whole[i] for i in range(20))


def test_an_empty_batch_gives_empty_arrays(trees: TreeCandidate) -> None:
    assert trees.predict_logit(np.empty((0, 3))).shape == (0,)
    assert trees.contributions(np.empty((0, 3))).shape == (0, 3)


def test_another_number_of_features_is_refused(trees: TreeCandidate) -> None:
    with pytest.raises(CandidateError, match="know 3 features"):
        trees.predict_logit(np.zeros((2, 4)))


def test_saved_and_loaded_scores_are_identical(
    trees: TreeCandidate, tmp_path: Path
) -> None:
    trees.save(tmp_path / "tree.txt")
    x, _ = rows()
    back = TreeCandidate.load(tmp_path / "tree.txt")
    assert back.feature_count == 3
    assert np.array_equal(back.predict_logit(x), trees.predict_logit(x))
    found, expected = back.contributions(x), trees.contributions(x)
    assert np.allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.9, 0.995])
def test_a_cut_file_is_refused_by_name(
    trees: TreeCandidate, tmp_path: Path, part: float
) -> None:
    path = tmp_path / "tree.txt"
    trees.save(path)
    text = path.read_text()
    path.write_text(text[: int(part * len(text))])
    with pytest.raises(CandidateError, match=r"tree\.txt"):
        TreeCandidate.load(path)


def test_a_file_with_trees_taken_out_is_refused(
    trees: TreeCandidate, tmp_path: Path
) -> None:
    path = tmp_path / "tree.txt"
    trees.save(path)
    text = path.read_text()
    cut = text.index("Tree=2\n"), text.index("Tree=3\n")
    path.write_text(text[: cut[0]] + text[cut[1] :])
    with pytest.raises(CandidateError, match=r"tree\.txt"):
        TreeCandidate.load(path)


def test_lightgbm_itself_reads_the_file(trees: TreeCandidate, tmp_path: Path) -> None:
    trees.save(tmp_path / "tree.txt")
    x, _ = rows()
    booster = lightgbm.Booster(model_file=str(tmp_path / "tree.txt"))
    raw = booster.predict(x, raw_score=True)
    assert np.array_equal(raw, trees.predict_logit(x))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tree.txt"
    with pytest.raises(CandidateError, match="No such file"):
        TreeCandidate.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CandidateError, match="decode"):
        TreeCandidate.load(path)
    path.write_text("tree\nend of trees\nend of parameters\n")
    with pytest.raises(CandidateError, match=r"tree\.txt: cut short"):
        TreeCandidate.load(path)


def test_one_class_is_refused_clearly() -> None:
    with pytest.raises(CandidateError, match="30 training rows hold only label 0"):
        TreeCandidate.fit(np.zeros((30, 2)), np.zeros(30, int), seed=0)
    with pytest.raises(CandidateError, match="no rows"):
        TreeCandidate.fit(np.zeros((0, 2)), np.zeros(0, int), seed=0)
    with pytest.raises(CandidateError, match="0 or 1"):
        TreeCandidate.fit(np.zeros((3, 2)), np.array([0, 1, 2]), seed=0)


def test_very_few_rows_can_be_fitted() -> None:
    x = np.arange(12.0)[:, None]
    trees = TreeCandidate.fit(x, (x[:, 0] > 5).astype(int), seed=0)
    low, high = trees.predict_logit(np.array([[1.0], [10.0]]))
    assert low < high


def test_out_of_fold_scores_do_not_know_their_own_row() -> None:
    x = np.random.default_rng(0).normal(size=(400, 5))
    y = np.random.default_rng(1).integers(2, size=400)
    seen = TreeCandidate.fit(x, y, seed=0).predict_logit(x)
    unseen = TreeCandidate.fit_out_of_fold(x, y, seed=0)
    assert auc(y, seen) > 0.9
    assert 0.4 < auc(y, unseen) < 0.6
    again = TreeCandidate.fit_out_of_fold(x, y, seed=0)
    assert np.array_equal(unseen, again)


def test_out_of_fold_needs_two_of_each_class() -> None:
    y = np.zeros(20, int)
    y[3] = 1
    with pytest.raises(CandidateError, match="cannot be split"):
        TreeCandidate.fit_out_of_fold(np.zeros((20, 1)), y, seed=0)
    y[4] = 1
    scores = TreeCandidate.fit_out_of_fold(np.arange(20.0)[:, None], y, seed=0)
    assert np.isfinite(scores).all()
