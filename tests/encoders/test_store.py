"""Encoders saved, loaded, and refused when a file is not what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from encoders import EncoderLoadError, load_encoders, save_encoders
from encoders.base import MODALITIES
from encoders.image import ImageConfig, ImageEncoder
from encoders.tabular import TabularEncoder
from encoders.text import TextConfig, TextEncoder
from encoders.trainable import TrainableEncoder

Fresh = Callable[[], dict[str, TrainableEncoder]]


def test_encoders_come_back_the_same(
    fresh: Fresh, payloads: dict[str, list[Any]], tmp_path: Path
) -> None:
    saved = fresh()
    tabular = saved["tabular"]
    assert isinstance(tabular, TabularEncoder)
    tabular.fit_scaling(np.arange(30.0).reshape(10, 3))
    save_encoders(saved, tmp_path)
    loaded = load_encoders(tmp_path)
    assert set(loaded) == set(MODALITIES)
    for modality, encoder in loaded.items():
        assert encoder.fingerprint == saved[modality].fingerprint
        decoded = [encoder.decode(payload) for payload in payloads[modality]]
        assert np.array_equal(encoder.encode(decoded), saved[modality].encode(decoded))


def test_the_transformer_itself_is_not_copied(fresh: Fresh, tmp_path: Path) -> None:
    save_encoders(fresh(), tmp_path)
    weights = load_file(tmp_path / "text" / "weights.safetensors")
    own = {"center", "scale", "line.weight", "grams.basis", "grams.idf"}
    assert set(weights) == own


def test_a_changed_weight_is_refused_and_both_fingerprints_named(
    tmp_path: Path,
) -> None:
    encoder = ImageEncoder(ImageConfig(width=32))
    save_encoders({"image": encoder}, tmp_path)
    path = tmp_path / "image" / "weights.safetensors"
    weights = load_file(path)
    weights["body.line.bias"][3] += 0.5
    save_file(weights, path)
    with pytest.raises(EncoderLoadError, match=encoder.fingerprint) as caught:
        load_encoders(tmp_path)
    assert "a weight changed" in str(caught.value)
    assert "fingerprint is" in str(caught.value)


def test_a_changed_setting_is_refused_by_name(tmp_path: Path) -> None:
    save_encoders({"image": ImageEncoder(ImageConfig(width=32))}, tmp_path)
    path = tmp_path / "image" / "config.json"
    about = json.loads(path.read_text())
    about["config"]["max_pixels"] = 99
    path.write_text(json.dumps(about))
    with pytest.raises(EncoderLoadError, match="max_pixels changed"):
        load_encoders(tmp_path)


def test_another_backbone_in_the_same_place_is_refused(
    tiny_bert: Path, tmp_path: Path
) -> None:
    place = tmp_path / "bert"
    shutil.copytree(tiny_bert, place)
    encoder = TextEncoder(TextConfig(model=str(place), width=16))
    save_encoders({"text": encoder}, tmp_path / "model")
    weights = load_file(place / "model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, place / "model.safetensors")
    with pytest.raises(EncoderLoadError, match="backbone changed"):
        load_encoders(tmp_path / "model")


def test_missing_and_damaged_files_are_load_errors(tmp_path: Path) -> None:
    with pytest.raises(EncoderLoadError, match=r"no \*/config\.json"):
        load_encoders(tmp_path)
    save_encoders({"image": ImageEncoder(ImageConfig(width=32))}, tmp_path)
    weights = tmp_path / "image" / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EncoderLoadError, match=r"weights\.safetensors"):
        load_encoders(tmp_path)
    weights.unlink()
    with pytest.raises(EncoderLoadError, match=r"weights\.safetensors"):
        load_encoders(tmp_path)
    (tmp_path / "image" / "config.json").write_text("{")
    with pytest.raises(EncoderLoadError, match=r"config\.json"):
        load_encoders(tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    save_encoders({"image": ImageEncoder(ImageConfig(width=32))}, tmp_path)
    path = tmp_path / "image" / "weights.safetensors"
    weights = load_file(path)
    weights["body.line.bias"][0] = float("nan")
    save_file(weights, path)
    with pytest.raises(EncoderLoadError, match=r"body\.line\.bias.*NaN"):
        load_encoders(tmp_path)
