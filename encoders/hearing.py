"""What an audio network reads of clips, and how that is changed in training.

Legend: `B` batch, `S` samples, `T` frames of the log-mel.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.transforms import MelSpectrogram

from encoders.changes import add_floor, colour_bands, hide_stripes, jitter
from encoders.pretrained import RATE_HZ, SoundNet

#: One unit of a log-mel here (and of Whisper's), and a factor of e in power.
DB_PER_UNIT = 40.0
DB_PER_NEPER = 10.0 / math.log(10.0)


class Hearing(Protocol):
    """Clips to what the network reads; and the same, changed a little."""

    def features(self, x_BS: NDArray[np.float32]) -> torch.Tensor:
        """What the network reads of these clips."""

    def changed(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The features as another speaker, microphone or room would give them."""


class LogMel:
    """80 dB below each clip's loudest point as -1..1, float32 (B, 1, mels, T)."""

    def __init__(self, *, rate_hz: int, mels: int, strong: bool) -> None:
        self._strong = strong
        self._mel = MelSpectrogram(
            rate_hz,
            n_fft=2 ** round(math.log2(rate_hz * 0.032)),
            hop_length=rate_hz * 16 // 1000,
            n_mels=mels,
        )

    def features(self, x_BS: NDArray[np.float32]) -> torch.Tensor:
        """See `Hearing`; silence is -1 everywhere."""
        mel = self._mel(torch.from_numpy(x_BS))
        level = mel.clamp(min=1e-10).log10()
        top = level.amax(dim=(1, 2), keepdim=True)
        below = (level - top).clamp(min=-8.0) / 4.0 + 1.0
        silent = (top <= -10.0).expand_as(below)
        out: torch.Tensor = below.masked_fill(silent, -1.0).unsqueeze(1)
        return out

    def changed(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Hearing`."""
        if not self._strong:
            return jitter(x, generator, shift=(0.04, 0.06), scale=(0.08, 0.2))
        x = jitter(x, generator, shift=(0.06, 0.08), scale=(0.12, 0.25), bend=0.02)
        worse = colour_bands(x, generator, most=8.0 / DB_PER_UNIT)
        worse = add_floor(
            worse,
            generator,
            low=1.0 - 80.0 / DB_PER_UNIT,
            high=1.0 - 20.0 / DB_PER_UNIT,
            tilt=25.0 / DB_PER_UNIT,
            sharpness=DB_PER_UNIT / DB_PER_NEPER,
        ).clamp(min=-1.0)
        worse = hide_stripes(worse, generator, bands=0.15, time=0.15)
        half = torch.rand((len(x), 1, 1, 1), generator=generator) < 0.5
        return torch.where(half, worse, x)


class Pretrained:
    """What a Hugging Face network reads: samples, or Whisper's log-mel."""

    def __init__(self, network: SoundNet) -> None:
        self._network = network

    def features(self, x_BS: NDArray[np.float32]) -> torch.Tensor:
        """See `Hearing`."""
        return self._network.features(x_BS)

    def changed(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Hearing`."""
        if self._network.whisper:
            x = jitter(
                x.unsqueeze(1), generator, shift=(0.06, 0.02), scale=(0.12, 0.25)
            )
            x = colour_bands(x, generator, most=8.0 / DB_PER_UNIT)
            return hide_stripes(x, generator, bands=0.15, time=0.05).squeeze(1)
        loudness = torch.rand((len(x), 1), generator=generator) * 0.05
        x = x + torch.randn(x.shape, generator=generator) * loudness
        most = RATE_HZ // 20
        moved = torch.randint(-most, most + 1, (len(x),), generator=generator)
        rolled = [row.roll(by) for row, by in zip(x, moved.tolist(), strict=True)]
        return torch.stack(rolled)
