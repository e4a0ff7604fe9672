"""Networks by Hugging Face name or folder: built, trained, saved, refused offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders import EncoderLoadError, build_encoder
from encoders.classify import fit_classes
from encoders.store import load_encoder
from encoders.trainable import TrainableEncoder

Make = Callable[..., bytes]


def tiny_models() -> dict[str, Any]:
    from transformers import (
        ConvNextConfig,
        ConvNextModel,
        ViTConfig,
        ViTModel,
        Wav2Vec2Config,
        Wav2Vec2Model,
        WhisperConfig,
        WhisperModel,
    )

    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    wave = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 4}
    wave |= {"num_conv_pos_embedding_groups": 2, "vocab_size": 8}
    whisper = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    whisper |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    whisper |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 20}
    whisper |= {"num_mel_bins": 20, "max_source_positions": 100}
    whisper |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    whisper |= {"decoder_start_token_id": 1}
    return {
        "vit": ViTModel(ViTConfig(image_size=32, patch_size=8, **small)),
        "convnext": ConvNextModel(
            ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4)
        ),
        "wav2vec2": Wav2Vec2Model(Wav2Vec2Config(**small, **wave)),
        "whisper": WhisperModel(WhisperConfig(**whisper)),
    }


READS = {
    "vit": "image",
    "convnext": "image",
    "wav2vec2": "audio",
    "whisper": "audio",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, model in tiny_models().items():
            made[name] = tmp_path_factory.mktemp(name)
            model.save_pretrained(made[name], safe_serialization=True)
    return made


@pytest.fixture
def build(folders: dict[str, Path]) -> Callable[[str], TrainableEncoder]:
    def built(name: str) -> TrainableEncoder:
        options = {"modality": READS[name], "network": str(folders[name]), "width": 8}
        encoder = build_encoder(options)
        assert isinstance(encoder, TrainableEncoder)
        return encoder

    return built


def decoded_by(
    encoder: TrainableEncoder, payloads: dict[str, list[Any]]
) -> list[np.ndarray[Any, Any]]:
    return [encoder.decode(payload) for payload in payloads[encoder.modality]]


@pytest.mark.parametrize("name", READS)
def test_vectors_are_unit_rows_alone_and_in_company(
    name: str,
    build: Callable[[str], TrainableEncoder],
    payloads: dict[str, list[Any]],
) -> None:
    encoder = build(name)
    decoded = decoded_by(encoder, payloads)
    together = encoder.encode(decoded)
    alone = np.concatenate([encoder.encode([item]) for item in decoded])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert encoder.encode([]).shape == (0, 8)


@pytest.mark.parametrize("name", READS)
def test_it_learns_and_is_rebuilt_without_its_folder(
    name: str,
    build: Callable[[str], TrainableEncoder],
    payloads: dict[str, list[Any]],
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    prints = []
    for _ in range(2):
        encoder = build(name)
        before = encoder.fingerprint
        decoded = decoded_by(encoder, payloads)
        fit_classes(encoder, decoded, [0, 1, 1], classes=2, seed=0, epochs=2)
        prints.append(encoder.fingerprint)
        assert encoder.fingerprint != before
    assert prints[0] == prints[1]
    encoder.save(tmp_path)
    hidden = folders[name].rename(folders[name].with_suffix(".away"))
    try:
        copy = load_encoder(tmp_path)
    finally:
        hidden.rename(folders[name])
    np.testing.assert_allclose(copy.encode(decoded), encoder.encode(decoded), atol=1e-6)


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_silence_gives_a_defined_vector(
    name: str, build: Callable[[str], TrainableEncoder]
) -> None:
    encoder = build(name)
    vector = encoder.encode([np.zeros(32_000, np.float32)])
    np.testing.assert_allclose(np.linalg.norm(vector), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_one_pixel_gives_a_defined_vector(
    name: str, build: Callable[[str], TrainableEncoder], picture: Make
) -> None:
    encoder = build(name)
    vector = encoder.encode([encoder.decode(picture(1, 0))])
    np.testing.assert_allclose(np.linalg.norm(vector), 1.0, atol=1e-6)


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_a_name_that_is_nowhere_says_what_is_missing(
    modality: str, tmp_path: Path
) -> None:
    options = {"modality": modality, "network": "no-one/nothing", "download": False}
    words = rf"load {modality} network 'no-one/nothing': .*set `network` to its path"
    with pytest.raises(EncoderLoadError, match=words):
        build_encoder(options)
    with pytest.raises(EncoderLoadError, match=r"config\.json or \*\.safetensors"):
        build_encoder({**options, "network": str(tmp_path)})


def test_networks_that_do_not_fit_are_refused(folders: dict[str, Path]) -> None:
    audio = {"modality": "audio", "rate_hz": 8000, "network": str(folders["whisper"])}
    with pytest.raises(EncoderLoadError, match=r"rate_hz is 8000, .* must be 16000"):
        build_encoder(audio)
    with pytest.raises(EncoderLoadError, match="a 'vit' network is not read"):
        build_encoder({"modality": "audio", "network": str(folders["vit"])})
    image = {"modality": "image", "network": str(folders["vit"]), "weights": "x"}
    with pytest.raises(EncoderLoadError, match="brings its own"):
        build_encoder(image)
