from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.config import FusionConfig, FusionLoadError
from fusion.scorer import FusionScorer
from fusion.store import load_fusion, save_fusion
from tests.fusion.small_model import model


def test_saved_and_loaded_scores_are_identical(tmp_path: Path) -> None:
    made = model()
    save_fusion(made, tmp_path)
    x = np.random.default_rng(5).normal(size=(6, 4, 16)).astype(np.float32)
    mask, tree = np.ones((6, 4), bool), np.linspace(-3, 3, 6)
    before = FusionScorer(made).score(x, mask, tree)
    after = FusionScorer(load_fusion(tmp_path, width=16)).score(x, mask, tree)
    for left, right in zip(before, after, strict=True):
        assert np.array_equal(left, right)


def test_a_width_mismatch_names_both(tmp_path: Path) -> None:
    save_fusion(model(), tmp_path)
    with pytest.raises(FusionLoadError, match=r"width 16.*width 128"):
        load_fusion(tmp_path, width=128)


@pytest.mark.parametrize("left", [0, 5, 300, -1])
def test_cut_weights_are_refused_by_name(tmp_path: Path, left: int) -> None:
    save_fusion(model(), tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(FusionLoadError, match=r"weights\.safetensors"):
        load_fusion(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[1]", "object"),
        ('{"widht": 16}', "nearest known key is 'width'"),
        ('{"width": "wide"}', "whole number"),
        ('{"dim": 9}', "not divisible"),
        ('{"modalities": 3}', "modalities"),
    ],
)
def test_a_bad_config_is_refused_by_name(
    tmp_path: Path, text: str, reason: str
) -> None:
    save_fusion(model(), tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FusionLoadError, match=rf"config\.json.*{reason}"):
        load_fusion(tmp_path)


def test_weights_of_another_shape_and_missing_files_are_refused(
    tmp_path: Path,
) -> None:
    save_fusion(model(FusionConfig(width=16, dim=4, hidden=8)), tmp_path)
    right = tmp_path / "right"
    save_fusion(model(), right)
    (tmp_path / "config.json").write_bytes((right / "config.json").read_bytes())
    with pytest.raises(FusionLoadError, match="expected"):
        load_fusion(tmp_path)
    (right / "weights.safetensors").unlink()
    with pytest.raises(FusionLoadError, match="No such file"):
        load_fusion(right)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    made = model()
    with torch.no_grad():
        made.line[1, 2] = float("nan")
    save_fusion(made, tmp_path)
    with pytest.raises(FusionLoadError, match="'line' holds NaN"):
        load_fusion(tmp_path)
