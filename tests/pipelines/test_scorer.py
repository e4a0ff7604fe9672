import shutil

import numpy as np
import pytest

from automl.registry import ArtefactError, Registry, load_manifest
from pipelines.scorer import Scorer

WIDTH = 16


@pytest.fixture(scope="module")
def scorer(model_folder):
    return Scorer.load(model_folder)


def cases(*present):
    """Rows with the given modalities present, amount 90 and fixed vectors."""
    rows = len(present)
    mask = np.array([[m in names for m in "taiv"] for names in present])
    x = np.tile([90.0, 0.0, 50.0, 50.0, 50.0, 50.0], (rows, 1))
    vectors = np.zeros((rows, 4, WIDTH), dtype=np.float32)
    vectors[:, 1:, 0] = 1.0
    return x, vectors, mask


def logit(score):
    return np.log(score / (1 - score))


def test_the_trees_speak_alone_when_no_medium_is_there(scorer):
    x, vectors, mask = cases("t")
    scored = scorer.score(x, vectors, mask)
    assert scored.tree_logit.tolist() == scorer.tree.predict_logit(x).tolist()
    assert logit(scored.score) == pytest.approx(scored.tree_logit, abs=1e-5)
    assert scored.gates.tolist() == [[1, 0, 0, 0]]
    assert not scored.fused.any()
    assert not scored.vectors[:, 0].any()


def test_without_a_payment_the_prior_stands_in(scorer):
    scored = scorer.score(*cases("a", ""))
    assert scored.tree_logit.tolist() == [-2.0, -2.0]
    assert logit(scored.score[0]) != pytest.approx(-2.0)
    assert logit(scored.score[1]) == pytest.approx(-2.0, abs=1e-6)


def test_media_move_the_score_and_leave_a_unit_vector(scorer):
    scored = scorer.score(*cases("t", "ta", "tai"))
    assert len(set(scored.score.tolist())) == 3
    # nothing is fused where there are no media
    lengths = np.linalg.norm(scored.fused, axis=1)
    assert lengths.tolist() == pytest.approx([0, 1, 1], abs=1e-5)
    assert (scored.gates > 0).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
    ]


def test_alerts_are_at_or_above_the_threshold(scorer):
    x, vectors, mask = cases("t", "t")
    x[1, 0] = 5.0
    scored = scorer.score(x, vectors, mask)
    assert scored.alert.tolist() == [True, False]
    assert (scored.score >= 0.5).tolist() == [True, False]


def test_the_alert_goes_by_the_score_that_is_shown(scorer, monkeypatch):
    monkeypatch.setattr(scorer.tree, "predict_logit", lambda x: np.full(len(x), -1e-7))
    scored = scorer.score(*cases("t"))
    assert (scored.score.tolist(), scored.alert.tolist()) == ([0.5], [True])


def test_a_batch_scores_as_its_rows_do_alone(scorer):
    x, vectors, mask = cases("t", "ta", "i", "tai")
    whole = scorer.score(x, vectors, mask)
    for i in range(4):
        rows = slice(i, i + 1)
        one = scorer.score(x[rows], vectors[rows], mask[rows])
        assert one.score[0] == pytest.approx(whole.score[i], abs=1e-6)


def test_the_inputs_are_left_as_they_were(scorer):
    x, vectors, mask = cases("ta")
    before = vectors.copy()
    scorer.score(x, vectors, mask)
    assert (vectors == before).all()


def test_an_absent_rows_features_may_be_anything(scorer):
    x, vectors, mask = cases("a")
    plain = scorer.score(x, vectors, mask)
    x[:] = np.nan
    assert scorer.score(x, vectors, mask).score == plain.score


def test_reasons_name_features_and_modalities_present(scorer):
    x, vectors, mask = cases("t", "ai", "ta")
    scored = scorer.score(x, vectors, mask)
    found = scorer.reasons(x, scored, mask, [0, 1, 2])
    assert len(found) == 3
    assert "amount" in str(found[0])
    assert "amount" not in str(found[1])
    assert scorer.reasons(x, scored, mask, []) == []


def altered(model_folder, tmp_path, change):
    folder = tmp_path / "v0001"
    shutil.copytree(model_folder, folder)
    change(folder)
    return folder


def cut(name):
    def change(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


@pytest.mark.parametrize(
    "name", ["tree.txt", "fusion/weights.safetensors", "encoders/tabular/config.json"]
)
def test_a_file_cut_short_is_refused_by_name(model_folder, tmp_path, name):
    with pytest.raises(ArtefactError, match=f"{name}: altered or cut short"):
        Scorer.load(altered(model_folder, tmp_path, cut(name)))


def test_a_file_more_or_less_is_refused(model_folder, tmp_path):
    folder = altered(model_folder, tmp_path, lambda f: (f / "x.py").write_text(""))
    with pytest.raises(ArtefactError, match=r"x\.py: extra file"):
        Scorer.load(folder)
    (folder / "x.py").unlink()
    (folder / "fusion/config.json").unlink()
    with pytest.raises(ArtefactError, match=r"config\.json: missing"):
        Scorer.load(folder)


def test_trees_of_another_number_of_features_are_refused(
    model_folder, registry, tmp_path
):
    found = load_manifest(model_folder)
    stage = tmp_path / "stage"
    shutil.copytree(model_folder, stage)
    (stage / "manifest.json").unlink()
    version = Registry(tmp_path / "models").save_next(
        found,
        stage,
        features=found.features[:-1],
        metrics={},
        created_at=found.created_at,
    )
    with pytest.raises(ArtefactError, match="takes 6 features, the manifest names 5"):
        Scorer.load(version.folder)
