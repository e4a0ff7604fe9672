from __future__ import annotations

import numpy as np
import pytest

from encoders.resample import resampled


def tone(rate_hz: int, seconds: float = 0.5) -> np.ndarray:
    at = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.sin(2 * np.pi * 440 * at).astype(np.float32)


@pytest.mark.parametrize("from_hz", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_a_tone_stays_the_same_tone(from_hz):
    out = resampled(tone(from_hz), from_hz, 16_000)
    inner = slice(400, -400)  # the ends see samples that are not there
    assert out.shape == (8_000,)
    assert np.abs(out[inner] - tone(16_000)[inner]).max() < 5e-3


@pytest.mark.parametrize("from_hz", [4_000, 8_000, 22_050, 44_100, 95_975])
def test_it_gives_what_torchaudio_gives(from_hz):
    import torch
    from torchaudio.functional import resample

    noise = np.random.default_rng(0).normal(size=5_001).astype(np.float32)
    exact = torch.from_numpy(noise.astype(np.float64))
    expected = resample(exact, from_hz, 16_000).numpy()
    out = resampled(noise, from_hz, 16_000)
    assert out.dtype == np.float32
    assert out.shape == expected.shape
    assert np.abs(out - expected).max() < 1e-5


def test_the_same_rate_changes_nothing():
    samples = tone(16_000)
    assert resampled(samples, 16_000, 16_000) is samples


def test_what_the_lower_rate_cannot_carry_is_left_out():
    at = np.arange(44_100) / 44_100
    high = np.sin(2 * np.pi * 12_000 * at).astype(np.float32)
    assert np.abs(resampled(high, 44_100, 16_000)[200:-200]).max() < 0.02
