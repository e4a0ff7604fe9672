"""The choice of a serving form, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.base import EncoderLoadError
from encoders.packed import FORMS
from encoders.store import load_encoder
from encoders.text import TextConfig, TextEncoder

TEXTS = [f"win money call me {number}" for number in range(20)]


def build(folder: Path, **options: object) -> TextEncoder:
    return TextEncoder(TextConfig(model=str(folder), width=16, **options))  # type: ignore[arg-type]


def test_the_choice_is_measured_and_saved(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build(tiny_bert)
    found = encoder.choose_form(TEXTS)
    assert set(found["measured"]) == {"torch", *FORMS}
    assert found["measured"]["torch"]["gain"] == 1.0
    assert all(about["drift"] <= 1e-5 for about in found["measured"].values())
    assert encoder.config.serve == found["form"]
    encoder.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["serving"] == found
    loaded = load_encoder(tmp_path)
    assert loaded.fingerprint == encoder.fingerprint
    loaded.save(tmp_path / "again")
    again = (tmp_path / "again" / "config.json").read_text()
    assert again == (tmp_path / "config.json").read_text()
    np.testing.assert_allclose(loaded.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_choice_without_texts_stays_with_torch(tiny_bert: Path) -> None:
    encoder = build(tiny_bert)
    fingerprint = encoder.fingerprint
    encoder.choose_form([])
    assert encoder.config.serve in ("torch", *FORMS)
    encoder.serve("torch")
    assert encoder.fingerprint == fingerprint


def test_every_form_has_its_own_fingerprint(tiny_bert: Path) -> None:
    forms = ("torch", *FORMS)
    assert len({build(tiny_bert, serve=form).fingerprint for form in forms}) == 4


def test_unknown_form_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(EncoderLoadError, match="serve is 'onyx'"):
        build(tiny_bert, serve="onyx")


@pytest.mark.parametrize("tune", ["adapter", "full"])
def test_what_learns_later_is_served_too(tiny_bert: Path, tune: str) -> None:
    encoder = build(tiny_bert, tune=tune, serve="float32")
    before = encoder.encode(TEXTS)
    encoder.network.train().requires_grad_(requires_grad=True)
    with torch.no_grad():
        for name, weight in encoder.network.named_parameters():
            if "line" not in name:
                weight.add_(0.05 * torch.randn_like(weight))
    encoder.seal()
    served = encoder.encode(TEXTS)
    assert np.abs(served - before).max() > 1e-3
    encoder.serve("torch")
    np.testing.assert_allclose(encoder.encode(TEXTS), served, atol=1e-5)
