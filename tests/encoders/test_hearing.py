"""Log-mels: what sounds is stretched to an even pace, silence stays silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders.audio import AudioConfig, AudioEncoder
from encoders.base import EncoderLoadError
from encoders.changes import other_voice
from encoders.hearing import LogMel, evened

RATE_HZ = 8000


def hearing(even_pace: float) -> LogMel:
    return LogMel(rate_hz=RATE_HZ, mels=24, strong=True, even_pace=even_pace)


def tone(seconds: float, start_s: float = 0.0, hz: float = 500.0) -> np.ndarray:
    clip = np.zeros(RATE_HZ, np.float32)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    first = round(start_s * RATE_HZ)
    clip[first : first + len(time_s)] = np.sin(2 * np.pi * hz * time_s)
    return clip


def test_four_sounding_frames_of_sixteen_take_eight_at_half_a_stretch() -> None:
    x = torch.full((1, 1, 1, 16), -1.0)
    x[0, 0, 0, 4:8] = torch.tensor([0.0, 0.2, 0.4, 0.6])
    loudness = torch.where(x[0, 0] > -1, 0.0, -9.0)
    out = evened(x, loudness, 0.5)[0, 0, 0]
    np.testing.assert_allclose(out[8:], -1.0)
    steps = [0.0, 0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.6]
    np.testing.assert_allclose(out[:8], steps, atol=1e-6)
    whole = evened(x, loudness, 1.0)[0, 0, 0]
    assert float(whole.min()) >= 0.0


def test_a_word_looks_alike_whenever_and_however_slowly_it_is_said() -> None:
    clips = np.stack([tone(0.3, 0.1), tone(0.3, 0.5), tone(0.6, 0.1)])
    plain, even = hearing(0.0).features(clips), hearing(1.0).features(clips)
    for other in (1, 2):
        apart = (plain[0] - plain[other]).abs().mean()
        assert (even[0] - even[other]).abs().mean() < 0.5 * apart


@pytest.mark.parametrize("even_pace", [0.0, 0.5])
def test_silence_is_minus_one_everywhere(even_pace: float) -> None:
    mel = hearing(even_pace).features(np.zeros((2, RATE_HZ), np.float32))
    assert bool((mel == -1.0).all())


def test_another_voice_moves_pitch_and_pace_together() -> None:
    mel = hearing(0.0).features(np.stack([tone(0.5, 0.0, 800.0)] * 40))
    generator = torch.Generator().manual_seed(0)
    moved = other_voice(mel, generator, most=0.3, top_hz=RATE_HZ / 2)
    band = moved.mean(dim=3)[:, 0].argmax(dim=1).numpy()
    ends = (moved[:, 0].amax(dim=1) > 0.5).sum(dim=1).numpy()
    assert band.max() - band.min() >= 3
    assert np.corrcoef(band, ends)[0, 1] < -0.9  # higher is faster, so shorter
    still = other_voice(mel, generator, most=0.0, top_hz=RATE_HZ / 2)
    np.testing.assert_allclose(still, mel, atol=1e-4)


def test_several_voices_are_heard_as_their_mean() -> None:
    def build(voices: int) -> AudioEncoder:
        return AudioEncoder(AudioConfig(width=16, clip_s=1.0, voices=voices))

    clips = [tone(0.4, 0.1, hz).repeat(2) for hz in (300.0, 900.0)]
    one, three = build(1), build(3)
    assert one.fingerprint != three.fingerprint
    mel = one.prepare(clips)
    plain, mean = one.encode(clips), three.encode(clips)
    np.testing.assert_allclose(mean, three.encode_prepared(mel))
    assert (plain * mean).sum(axis=1).min() > 0.8
    assert np.abs(plain - mean).max() > 1e-4
    three.network.train()  # one is enough to learn from
    np.testing.assert_allclose(three.forward(mel).detach(), one.forward(mel), atol=1e-5)


def test_voices_are_for_the_small_network() -> None:
    with pytest.raises(EncoderLoadError, match=r"voices is 17, must be 1\.\.16"):
        AudioConfig(voices=17)
    with pytest.raises(EncoderLoadError, match="with network 'wav2vec' it must be 1"):
        AudioEncoder(AudioConfig(network="wav2vec", voices=2))
