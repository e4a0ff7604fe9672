"""Changes keep shape and meaning, differ by row, and repeat with the generator."""

from __future__ import annotations

import pytest
import torch

from encoders import EncoderLoadError, build_encoder
from encoders.changes import (
    add_floor,
    blur,
    colour_bands,
    hide_stripes,
    jitter,
    thicken,
)
from encoders.trainable import TrainableEncoder


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_no_amount_changes_nothing() -> None:
    x = torch.rand((3, 1, 9, 7))
    still = jitter(x, drawn(), shift=(0, 0), scale=(0, 0))
    torch.testing.assert_close(still, x)
    torch.testing.assert_close(thicken(x, drawn(), 0.0), x)
    torch.testing.assert_close(blur(x, drawn(), 0.0), x)
    torch.testing.assert_close(colour_bands(x, drawn(), 0.0), x)
    torch.testing.assert_close(hide_stripes(x, drawn(), bands=0, time=0), x)


def test_each_row_is_moved_by_its_own_amount_the_same_every_time() -> None:
    x = torch.zeros((2, 1, 16, 16))
    x[:, :, 6:10, 6:10] = 1.0
    sizes = {"shift": (0.2, 0.2), "scale": (0.1, 0.1)}
    moved = jitter(x, drawn(), turn=0.2, lean=0.2, bend=0.05, **sizes)
    again = jitter(x, drawn(), turn=0.2, lean=0.2, bend=0.05, **sizes)
    assert torch.equal(moved, again)
    assert not torch.allclose(moved[0], moved[1])
    assert float(moved.sum()) == pytest.approx(32.0, rel=0.5)


def test_strokes_grow_or_shrink() -> None:
    x = torch.zeros((40, 1, 9, 9))
    x[:, :, 3:6, 3:6] = 1.0
    area = thicken(x, drawn(), 1.0).sum(dim=(1, 2, 3))
    assert float(area.min()) < 6.0 < 12.0 < float(area.max())
    assert float(area.min()) >= 1.0
    assert float(area.max()) <= 25.0


def test_noise_only_lifts_what_is_below_it() -> None:
    x = torch.tensor([-1.0, 1.0]).view(1, 1, 2, 1).expand(5, 1, 2, 30)
    noisy = add_floor(x, drawn(), low=-0.2, high=0.0, sharpness=9.2)
    assert (noisy[:, :, 0] > -0.6).all()
    torch.testing.assert_close(noisy[:, :, 1], x[:, :, 1], atol=0.01, rtol=0)


def test_stripes_are_hidden_by_the_mean() -> None:
    x = torch.rand((30, 1, 20, 20), generator=drawn())
    hidden = hide_stripes(x, drawn(), bands=0.5, time=0.5)
    changed = hidden != x
    assert 0.2 < float(changed.float().mean()) < 0.6
    mean = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    assert torch.equal(hidden[changed], mean[changed])


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_strong_changes_go_further_and_leave_the_vectors_alone(modality: str) -> None:
    far, prints = [], []
    for changes in ("light", "strong"):
        encoder = build_encoder({"modality": modality, "changes": changes})
        assert isinstance(encoder, TrainableEncoder)
        prints.append(encoder.fingerprint)
        if modality == "image":
            x = torch.zeros((8, 3, 64, 64))
            x[..., 20:40, 20:40] = 200.0
        else:
            x = torch.full((8, 1, 64, 126), -1.0)
            x[..., 20:40, 20:60] = 1.0
        changed = encoder.augment(x, drawn())
        assert changed.shape == x.shape
        assert bool(changed.isfinite().all())
        far.append(float((changed - x).abs().mean()))
    assert far[1] > far[0] > 0
    assert prints[0] == prints[1]
    with pytest.raises(EncoderLoadError, match="changes is 'wild'"):
        build_encoder({"modality": modality, "changes": "wild"})
