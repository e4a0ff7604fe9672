"""Transformers without padding: the same states, and neighbours change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encoders.backbone import NO_TOKEN, Backbone
from encoders.base import EncoderLoadError
from encoders.packed import FORMS

TEXTS = [
    "free prize",
    "win",
    "see you later today ok home call me",
    "call me",
    "win money " * 20,
]


def states(folder: Path, form: str) -> NDArray[np.float32]:
    return Backbone(folder, max_tokens=64, form=form).pooled(TEXTS).numpy()


@pytest.mark.parametrize(
    ("form", "loss"), [("float32", 1e-5), ("bfloat16", 2e-2), ("int8", 2e-2)]
)
def test_forms_give_the_states_of_the_model_itself(
    tiny_bert: Path, form: str, loss: float
) -> None:
    plain, packed = states(tiny_bert, "torch"), states(tiny_bert, form)
    assert packed.dtype == np.float32
    assert np.abs(packed - plain).max() / np.abs(plain).max() < loss


def test_roberta_counts_its_places_from_after_the_padding(
    tiny_bert: Path, tmp_path: Path
) -> None:
    from transformers import RobertaConfig, RobertaModel

    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        if (tiny_bert / name).exists():
            (tmp_path / name).write_bytes((tiny_bert / name).read_bytes())
    config = RobertaConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=70,
        pad_token_id=0,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    plain, packed = states(tmp_path, "torch"), states(tmp_path, "float32")
    np.testing.assert_allclose(packed, plain, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_text_alone_has_the_very_same_states(tiny_bert: Path, form: str) -> None:
    backbone = Backbone(tiny_bert, max_tokens=64, form=form)
    together = backbone.pooled(TEXTS)
    for row, text in enumerate(TEXTS):
        assert torch.equal(backbone.pooled([text])[0], together[row])
    assert torch.equal(backbone.pooled(TEXTS[::-1]), together.flip(0))


def test_no_texts_have_no_states(tiny_bert: Path) -> None:
    for form in ("torch", *FORMS):
        backbone = Backbone(tiny_bert, max_tokens=64, form=form)
        assert backbone.pooled([]).shape == (0, 32)


def test_gradients_go_through_the_model_itself(tiny_bert: Path) -> None:
    backbone = Backbone(tiny_bert, max_tokens=64, form="int8")
    backbone.model.requires_grad_(requires_grad=True)
    ids = backbone.tokens(["win money"])
    assert (ids != NO_TOKEN).any()
    backbone.states(ids).sum().backward()
    grads = [weight.grad is not None for weight in backbone.model.parameters()]
    assert any(grads)


def test_types_built_otherwise_are_refused_by_name(
    tiny_bert: Path, tmp_path: Path
) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    for path in tiny_bert.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = DistilBertConfig(vocab_size=40, dim=32, n_layers=1, n_heads=2)
    DistilBertModel(config).save_pretrained(tmp_path)
    with pytest.raises(EncoderLoadError, match="only as torch, its type is 'distil"):
        Backbone(tmp_path, max_tokens=64, form="bfloat16")
