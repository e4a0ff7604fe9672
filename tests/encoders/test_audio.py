"""Clips: refused by their header, cut ones refused, silence defined."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from encoders.audio import AudioConfig, AudioEncoder, loudest
from encoders.base import EncoderLoadError, PayloadError

Make = Callable[..., bytes]


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    return AudioEncoder(AudioConfig(width=32))


def as_wav(samples: list[float] | np.ndarray, rate_hz: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV", subtype="FLOAT")
    return file.getvalue()


def as_flac(samples: np.ndarray, rate_hz: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="FLAC")
    return file.getvalue()


def with_rate(wav: bytes, rate_hz: int) -> bytes:
    return wav[:24] + struct.pack("<I", rate_hz) + wav[28:]


@pytest.mark.parametrize("kept", [20, 44, 46, 0.5, 0.99])
def test_a_cut_wav_is_refused(encoder: AudioEncoder, wav: Make, kept: float) -> None:
    whole = wav()
    cut = whole[: int(kept if kept > 1 else kept * len(whole))]
    with pytest.raises(PayloadError, match="cut short"):
        encoder.decode(cut)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_cut_flac_is_refused(encoder: AudioEncoder, share: float) -> None:
    noise = np.random.default_rng(0).normal(size=20_000) * 0.1
    whole = as_flac(noise)
    assert encoder.decode(whole).shape == (32_000,)
    with pytest.raises(PayloadError, match="clip"):
        encoder.decode(whole[: int(share * len(whole))])


@pytest.mark.parametrize("rate_hz", [0, 1, 3_999, 96_001, 2_000_000_000])
def test_absurd_rates_are_refused(
    encoder: AudioEncoder, wav: Make, rate_hz: int
) -> None:
    with pytest.raises(PayloadError, match="clip"):
        encoder.decode(with_rate(wav(), rate_hz))


def test_an_odd_rate_needs_no_huge_filter(encoder: AudioEncoder, wav: Make) -> None:
    odd = encoder.encode([encoder.decode(with_rate(wav(1.0, 44_100), 44_101))])
    even = encoder.encode([encoder.decode(wav(1.0, 44_100))])
    assert float(odd[0] @ even[0]) > 0.999


def test_long_many_channelled_and_large_clips_are_refused(
    encoder: AudioEncoder, wav: Make
) -> None:
    with pytest.raises(PayloadError, match=r"30\.5 s long, the limit is 30\.0 s"):
        encoder.decode(wav(30.5, 4_000))
    with pytest.raises(PayloadError, match="9 channels, the limit is 8"):
        encoder.decode(wav(0.1, 8_000, 440.0, 9))
    with pytest.raises(PayloadError, match="the limit is 1000"):
        AudioEncoder(AudioConfig(width=32, max_bytes=1000)).decode(wav())


def test_what_is_not_a_clip_is_refused(encoder: AudioEncoder) -> None:
    with pytest.raises(PayloadError, match="empty"):
        encoder.decode(b"")
    with pytest.raises(PayloadError, match="neither WAV nor FLAC"):
        encoder.decode(b"OggS" + b"\x00" * 60)
    with pytest.raises(PayloadError, match="clip cannot be decoded"):
        encoder.decode(b"fLaC" + b"\x00" * 60)
    with pytest.raises(PayloadError, match="no samples"):
        encoder.decode(as_wav([]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_no_numbers_are_refused(
    encoder: AudioEncoder, bad: float
) -> None:
    with pytest.raises(PayloadError, match="NaN or infinite"):
        encoder.decode(as_wav([0.1, bad, 0.2]))


def test_damaged_bytes_never_raise_anything_else(
    encoder: AudioEncoder, wav: Make
) -> None:
    rng = np.random.default_rng(1)
    refused = 0
    flac = as_flac(rng.normal(size=3000) * 0.1)
    for whole in (wav(0.1), flac):
        for _ in range(80):
            damaged = np.frombuffer(whole, np.uint8).copy()
            damaged[rng.integers(4, 60, 4)] = rng.integers(0, 256, 4)
            try:
                encoder.decode(damaged.tobytes())
            except PayloadError:
                refused += 1
    assert refused > 40


@pytest.mark.parametrize("samples", [[0.0] * 800, [1e-9], [0.5], [1e30, -1e30]])
def test_silence_and_single_samples_give_defined_vectors(
    encoder: AudioEncoder, samples: list[float]
) -> None:
    vector = encoder.encode([encoder.decode(as_wav(samples))])
    np.testing.assert_allclose(np.linalg.norm(vector), 1.0, atol=1e-6)


def test_silence_is_minus_one_everywhere(encoder: AudioEncoder) -> None:
    mel = encoder.prepare([encoder.decode(as_wav([0.0] * 800))])
    assert mel.shape == (1, 1, 64, 126)
    assert bool((mel == -1.0).all())


def test_loudness_channels_and_container_do_not_matter(
    encoder: AudioEncoder, wav: Make
) -> None:
    tone = np.sin(np.arange(4000) * 0.3)
    quiet, loud = as_flac(0.1 * tone), as_flac(0.9 * tone)
    both = as_wav(np.stack([tone, tone], 1) * 0.5)
    vectors = encoder.encode([encoder.decode(p) for p in (quiet, loud, both)])
    assert float((vectors @ vectors.T).min()) > 0.999


def test_the_loudest_stretch_of_a_long_clip_is_read() -> None:
    samples = np.array([0.0, 1.0, 0.0, 5.0, -4.0, 0.0, 2.0])
    assert loudest(samples, 2).tolist() == [5.0, -4.0]
    assert loudest(samples, 7).tolist() == samples.tolist()
    assert loudest(np.zeros(5), 2).tolist() == [0.0, 0.0]


def test_options_out_of_range_are_load_errors() -> None:
    with pytest.raises(EncoderLoadError, match="rate_hz is 8001"):
        AudioConfig(rate_hz=8001)
    with pytest.raises(EncoderLoadError, match="clip_s is 0"):
        AudioConfig(clip_s=0.0)
