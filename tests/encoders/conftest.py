"""Payloads of every kind, whole and damaged, and encoders small enough to test."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from encoders import build_encoder
from encoders.trainable import TrainableEncoder


def make_wav(
    seconds: float = 0.4,
    rate_hz: int = 8000,
    pitch_hz: float = 440.0,
    channels: int = 1,
) -> bytes:
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    tone = 0.3 * np.sin(2 * np.pi * pitch_hz * t)
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone] * channels, 1), rate_hz, format="WAV")
    return file.getvalue()


def make_picture(side: int = 28, level: int = 200, kind: str = "PNG") -> bytes:
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[: side // 2, : side // 3] = level
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def make_huge_png(wide: int, high: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", wide, high, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(wide + 1) * high, 1)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture(scope="session")
def wav() -> Callable[..., bytes]:
    return make_wav


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    return make_picture


@pytest.fixture(scope="session")
def huge_png() -> bytes:
    return make_huge_png(12_000, 12_000)


@pytest.fixture
def fresh(tiny_bert: Path) -> Callable[[], dict[str, TrainableEncoder]]:
    """New encoders of all four modalities, vectors of 32, three features."""

    def build() -> dict[str, TrainableEncoder]:
        options: dict[str, dict[str, object]] = {
            "tabular": {"features": 3},
            "text": {"model": str(tiny_bert)},
            "image": {},
            "audio": {},
        }
        built = {}
        for modality, given in options.items():
            encoder = build_encoder({"modality": modality, "width": 32, **given})
            assert isinstance(encoder, TrainableEncoder)
            built[modality] = encoder
        return built

    return build


@pytest.fixture
def payloads() -> dict[str, list[object]]:
    """Three different payloads of every modality."""
    return {
        "tabular": [[1.0, 2.0, 3.0], [0.0, float("nan"), -5.0], [1e6, 0.0, 1.0]],
        "text": ["free prize", "see you later today ok home call me", "win"],
        "image": [make_picture(28), make_picture(90, 90, "JPEG"), make_picture(1, 0)],
        "audio": [make_wav(0.4), make_wav(3.0, 44_100, 900.0, 2), make_wav(0.01)],
    }
