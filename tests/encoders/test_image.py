"""Pictures: refused by their header, cut ones refused, odd ones defined."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from encoders.base import EncoderLoadError, PayloadError
from encoders.image import ImageConfig, ImageEncoder

Make = Callable[..., bytes]


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder(ImageConfig(width=32))


def as_png(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def test_a_huge_picture_is_refused_before_it_is_decoded(
    encoder: ImageEncoder, huge_png: bytes
) -> None:
    assert len(huge_png) < 1_000_000
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PayloadError, match="12000 x 12000, limit 16000000 pixels"):
            encoder.decode(huge_png)
    assert time.monotonic() - began < 0.4


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_cut_picture_is_refused(
    encoder: ImageEncoder, picture: Make, kind: str, share: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    whole = file.getvalue()
    assert encoder.decode(whole).shape == (3, 64, 64)
    with pytest.raises(PayloadError, match="picture"):
        encoder.decode(whole[: int(share * len(whole))])


def test_what_is_not_a_picture_is_refused(encoder: ImageEncoder, picture: Make) -> None:
    with pytest.raises(PayloadError, match="empty"):
        encoder.decode(b"")
    with pytest.raises(PayloadError, match="neither PNG nor JPEG"):
        encoder.decode(b"hello")
    with pytest.raises(PayloadError, match="neither PNG nor JPEG"):
        encoder.decode(picture(20, 90, "GIF"))
    with pytest.raises(PayloadError, match="picture"):
        encoder.decode(b"\x89PNG\r\n\x1a\n" + b"\x00" * 50)
    small = ImageEncoder(ImageConfig(width=32, max_bytes=100))
    with pytest.raises(PayloadError, match="the limit is 100"):
        small.decode(picture(90, 90, "JPEG"))


def test_damaged_bytes_never_raise_anything_else(
    encoder: ImageEncoder, picture: Make
) -> None:
    rng = np.random.default_rng(1)
    refused = 0
    for kind in ("PNG", "JPEG"):
        whole = np.frombuffer(picture(40, 90, kind), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(8, len(whole), 6)] = rng.integers(0, 256, 6)
            try:
                encoder.decode(damaged.tobytes())
            except PayloadError:
                refused += 1
    assert refused > 20


def test_a_single_pixel_and_a_flat_picture_give_defined_vectors(
    encoder: ImageEncoder,
) -> None:
    for pixels in (np.zeros((1, 1), np.uint8), np.full((50, 50, 3), 128, np.uint8)):
        vector = encoder.encode([encoder.decode(as_png(pixels))])
        np.testing.assert_allclose(np.linalg.norm(vector), 1.0, atol=1e-6)


def test_transparent_parts_are_white(encoder: ImageEncoder) -> None:
    pixels = np.zeros((10, 10, 4), np.uint8)
    pixels[..., 3] = 0
    assert (encoder.decode(as_png(pixels)) == 255).all()


def test_sixteen_bit_gray_keeps_its_upper_byte(encoder: ImageEncoder) -> None:
    pixels = np.full((20, 20), 0x8040, np.uint16)
    assert (encoder.decode(as_png(pixels)) == 0x80).all()


def test_gray_reads_one_channel(picture: Make) -> None:
    gray = ImageEncoder(ImageConfig(colour="gray", side_px=32, width=32))
    decoded = gray.decode(picture(50, 200))
    assert decoded.shape == (1, 32, 32)
    assert gray.encode([decoded]).shape == (1, 32)


def test_a_torchvision_network_starts_from_local_weights(
    tmp_path: Path, picture: Make
) -> None:
    plain = ImageEncoder(ImageConfig(network="resnet18", width=32))
    path = tmp_path / "resnet18.safetensors"
    given = {k: v + 0.01 for k, v in plain.network.body.state_dict().items()}
    save_file({k: v for k, v in given.items() if not k.startswith("fc.")}, path)
    begun = ImageEncoder(ImageConfig(network="resnet18", width=32, weights=str(path)))
    assert begun.fingerprint != plain.fingerprint
    assert begun.config.weights == ""
    vectors = begun.encode([begun.decode(picture(40)), begun.decode(picture(9))])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_options_that_cannot_be_met_are_load_errors(tmp_path: Path) -> None:
    with pytest.raises(EncoderLoadError, match="neither a network known here"):
        ImageEncoder(ImageConfig(network="resnet1", download=False))
    with pytest.raises(EncoderLoadError, match="colour is 'gray'"):
        ImageConfig(network="resnet18", colour="gray")
    with pytest.raises(EncoderLoadError, match="side_px is 4"):
        ImageConfig(side_px=4)
    missing = str(tmp_path / "nothing.safetensors")
    with pytest.raises(EncoderLoadError, match=r"nothing\.safetensors"):
        ImageEncoder(ImageConfig(network="resnet18", weights=missing))
