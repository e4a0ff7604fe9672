"""What learns of a transformer: nothing, an adapter beside it, or all of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encoders.base import EncoderLoadError
from encoders.classify import fit_classes
from encoders.store import load_encoder
from encoders.text import TextConfig, TextEncoder

TEXTS = ["free prize", "see you later today ok home call me", "win", "call me " * 9]


def make_roberta(vocabulary: int) -> torch.nn.Module:
    from transformers import RobertaConfig, RobertaModel

    return RobertaModel(
        RobertaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=20,
            pad_token_id=0,
        )
    )


def make_distilbert(vocabulary: int) -> torch.nn.Module:
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(
        DistilBertConfig(
            vocab_size=vocabulary,
            dim=32,
            n_layers=2,
            n_heads=2,
            hidden_dim=64,
            max_position_embeddings=20,
        )
    )


def make_gpt2(vocabulary: int) -> torch.nn.Module:
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(
        GPT2Config(
            vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, n_positions=20
        )
    )


def make_llama(vocabulary: int) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=20,
        )
    )


FAMILIES = {
    "bert": None,
    "roberta": make_roberta,
    "distilbert": make_distilbert,
    "gpt2": make_gpt2,
    "llama": make_llama,
}


@pytest.fixture(params=list(FAMILIES))
def folder(request: pytest.FixtureRequest, tiny_bert: Path, tmp_path: Path) -> Path:
    """A tiny model of one family, random weights, the tokenizer of the tiny BERT."""
    make: Callable[[int], torch.nn.Module] | None = FAMILIES[request.param]
    if make is None:
        return tiny_bert
    found = tmp_path / request.param
    shutil.copytree(tiny_bert, found)
    words = len((tiny_bert / "vocab.txt").read_text().splitlines())
    torch.manual_seed(0)
    make(words).save_pretrained(found)
    return found


def build(folder: Path, tune: str, **options: int) -> TextEncoder:
    return TextEncoder(
        TextConfig(model=str(folder), width=16, tune=tune, max_tokens=64, **options)
    )


def train(encoder: TextEncoder, seed: int = 0) -> None:
    """A few steps towards vectors drawn at random."""
    prepared = encoder.prepare(TEXTS)
    encoder.network.train().requires_grad_(requires_grad=True)
    aim = torch.randn((len(TEXTS), 16), generator=torch.Generator().manual_seed(seed))
    learner = torch.optim.Adam(encoder.network.parameters(), lr=0.01)
    for _ in range(3):
        loss = (encoder.forward(prepared) - aim).pow(2).mean()
        learner.zero_grad()
        loss.backward()
        learner.step()
    encoder.seal()


def backbone_weights(encoder: TextEncoder) -> NDArray[np.float32]:
    weights = encoder._backbone.model.parameters()
    return torch.cat([weight.flatten() for weight in weights]).numpy().copy()


@pytest.mark.parametrize("tune", ["none", "adapter", "full"])
def test_families_of_models_encode_alike_alone_and_together(
    folder: Path, tune: str
) -> None:
    encoder = build(folder, tune)
    whole = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(whole, alone, atol=1e-5)
    assert encoder.encode([]).shape == (0, 16)
    np.testing.assert_allclose(build(folder, "none").encode(TEXTS), whole, atol=1e-5)


@pytest.mark.parametrize("tune", ["none", "adapter", "full"])
def test_only_what_may_learn_changes_and_survives_the_disk(
    folder: Path, tmp_path: Path, tune: str
) -> None:
    encoder = build(folder, tune)
    before, vectors = backbone_weights(encoder), encoder.encode(TEXTS)
    train(encoder)
    assert np.array_equal(before, backbone_weights(encoder)) == (tune != "full")
    after = encoder.encode(TEXTS)
    assert not np.allclose(vectors, after, atol=1e-3)
    encoder.save(tmp_path / "saved")
    loaded = load_encoder(tmp_path / "saved")
    assert loaded.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(loaded.encode(TEXTS), after, atol=1e-6)


def test_adapter_learns_beside_each_family(folder: Path) -> None:
    encoder = build(folder, "adapter")
    assert encoder.network.adapter is not None
    parts = [part.up.weight for part in encoder.network.adapter.parts]
    assert all(not weight.any() for weight in parts)
    train(encoder)
    assert all(weight.any() for weight in parts)


def test_adapters_are_exchanged_without_loading_the_transformer_again(
    tiny_bert: Path, tmp_path: Path
) -> None:
    saved = {}
    for name, seed in (("first", 1), ("second", 2)):
        encoder = build(tiny_bert, "adapter")
        train(encoder, seed)
        encoder.save(tmp_path / name)
        saved[name] = (encoder.fingerprint, encoder.encode(TEXTS))
    served = load_encoder(tmp_path / "first")
    assert isinstance(served, TextEncoder)
    model = served._backbone.model
    for name in ("second", "first", "second"):
        served.swap_adapter(tmp_path / name)
        fingerprint, vectors = saved[name]
        assert served._backbone.model is model
        assert served.fingerprint == fingerprint
        np.testing.assert_allclose(served.encode(TEXTS), vectors, atol=1e-6)
    assert saved["first"][0] != saved["second"][0]
    assert not np.allclose(saved["first"][1], saved["second"][1], atol=1e-3)
    small = (tmp_path / "first" / "adapter.safetensors").stat().st_size
    assert small < 100_000


def test_adapter_of_another_transformer_or_rank_is_refused(
    tiny_bert: Path, tmp_path: Path
) -> None:
    build(tiny_bert, "adapter").save(tmp_path)
    other = build(tiny_bert, "adapter", rank=4)
    fingerprint = other.fingerprint
    with pytest.raises(EncoderLoadError, match="trained beside"):
        other.swap_adapter(tmp_path)
    with pytest.raises(EncoderLoadError, match="nowhere"):
        other.swap_adapter(tmp_path / "nowhere")
    assert other.fingerprint == fingerprint


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"tune": "half"}, "tune is 'half'"), ({"rank": 0}, "rank is 0")],
)
def test_unknown_ways_to_learn_are_refused(
    options: dict[str, object], reason: str
) -> None:
    with pytest.raises(EncoderLoadError, match=reason):
        TextConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("tune", ["adapter", "full"])
def test_items_settle_a_network_that_holds_the_transformer(
    tiny_bert: Path, tune: str
) -> None:
    texts = [f"win money {number} call me" for number in range(40)]
    frozen, tuned = build(tiny_bert, "none"), build(tiny_bert, tune)
    frozen.fit_items(texts)
    tuned.fit_items(texts)
    np.testing.assert_allclose(
        tuned.encode(TEXTS) @ tuned.encode(TEXTS).T,
        frozen.encode(TEXTS) @ frozen.encode(TEXTS).T,
        atol=1e-3,
    )


def test_each_layer_takes_less_of_the_rate_than_the_one_above(tiny_bert: Path) -> None:
    shares = [share for _, share in build(tiny_bert, "full").rates()]
    assert shares == pytest.approx([1.0, 0.09, 0.1])
    assert [share for _, share in build(tiny_bert, "adapter").rates()] == [1.0, 0.5]
    assert len(build(tiny_bert, "none").rates()) == 1


def test_classes_are_learnt_by_the_transformer_and_its_table_of_words_stays(
    tiny_bert: Path,
) -> None:
    encoder = build(tiny_bert, "full")
    texts = [f"{word} {place}" for word in ("win", "home") for place in range(12)]
    before = {k: v.clone() for k, v in encoder.network.state_dict().items()}
    head = fit_classes(
        encoder, texts, [0] * 12 + [1] * 12, classes=2, seed=0, epochs=6, batch=8
    )
    told = head.predict(encoder.encode(["win now", "home now"]))
    assert told.argmax(axis=1).tolist() == [0, 1]
    after = encoder.network.state_dict()
    table = "transformer.embeddings.word_embeddings.weight"
    assert torch.equal(after[table], before[table])
    query = "transformer.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(after[query], before[query])
