"""Synthetic voice clips for the demo: an amount spoken digit by digit, as WAV bytes."""

from __future__ import annotations

import io
import wave
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

RATE_HZ = 8000
MIN_S, MAX_S = 0.8, 1.5
_SYLLABLE_S = 0.17
_GAP_S = 0.05
#: First and second formant of each digit's vowel, in Hz: far apart in vowel space.
_FORMANTS_HZ = (
    (300, 870),
    (270, 2290),
    (660, 1720),
    (520, 1190),
    (730, 1090),
    (530, 1840),
    (390, 1990),
    (440, 1020),
    (850, 1610),
    (300, 3000),
)


def spoken_amount(
    rng: np.random.Generator, *, amount: float, pitch_hz: float, robotic: bool = False
) -> bytes:
    """A clip of 0.8 to 1.5 s, 8 kHz, 8 bit, that says the whole units of `amount`.

    Args:
        rng: drives intonation, tempo, loudness and background noise.
        amount: its whole part is spoken, at most five digits.
        pitch_hz: of the speaker, 80 to 260.
        robotic: flat pitch, even loudness, square syllables, no background.
    """
    digits = [int(digit) for digit in str(int(amount))[:5]]
    level = round(pitch_hz / 8.0)
    parts: list[Samples] = []
    gap = np.zeros(int(_GAP_S * RATE_HZ), np.float32)
    for place, digit in enumerate(digits):
        if robotic:
            parts += [_syllable(level, digit, True), gap]
            continue
        bend = 1.06 - 0.03 * place + rng.normal(0.0, 0.03)
        loudness = np.float32(rng.uniform(0.7, 1.0))
        parts += [_bent(_syllable(level, digit, False), bend) * loudness, gap]
    speech = np.concatenate(parts)
    lead = int(rng.uniform(0.03, 0.1) * RATE_HZ)
    length = int(np.clip(lead + len(speech), MIN_S * RATE_HZ, MAX_S * RATE_HZ))
    clip = np.zeros(length, np.float32)
    clip[lead : lead + len(speech)] = speech[: length - lead]
    if not robotic:
        clip += rng.standard_normal(length, dtype=np.float32) * np.float32(0.02)
    return _wav(clip)


def _bent(samples: Samples, factor: float) -> Samples:
    """The same sound faster and higher (factor > 1), or slower and lower."""
    positions = np.arange(0, len(samples) - 1, factor)
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)


@lru_cache(maxsize=1024)
def _syllable(level: int, digit: int, robotic: bool) -> Samples:
    """Harmonics of the pitch (`level` times 8 Hz) under the digit's two formants."""
    seconds = np.arange(int(_SYLLABLE_S * RATE_HZ)) / RATE_HZ
    glide = 0.0 if robotic else 0.08
    pitch = 8.0 * level * (1.0 + glide * (0.5 - seconds / _SYLLABLE_S))
    phase = 2.0 * np.pi * np.cumsum(pitch) / RATE_HZ
    sound = np.zeros_like(seconds)
    first, second = _FORMANTS_HZ[digit]
    for harmonic in range(1, int(3600 // (8 * level)) + 1):
        hertz = harmonic * 8.0 * level
        weight = np.exp(-(((hertz - first) / 120.0) ** 2))
        weight += 0.6 * np.exp(-(((hertz - second) / 180.0) ** 2))
        sound += (weight + (0.15 if robotic else 0.02)) * np.sin(harmonic * phase)
    shape = np.ones_like(seconds) if robotic else np.sin(np.pi * seconds / _SYLLABLE_S)
    sound *= shape / np.abs(sound).max()
    return (0.9 * sound).astype(np.float32)


def _wav(samples: Samples) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(RATE_HZ)
        file.writeframes(
            (np.clip(samples, -1, 1) * 127 + 128).astype(np.uint8).tobytes()
        )
    return out.getvalue()
