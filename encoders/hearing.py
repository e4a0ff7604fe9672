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

from encoders.changes import (
    add_floor,
    at_speed,
    colour_bands,
    hide_stripes,
    jitter,
    other_voice,
    sampled,
)
from encoders.pretrained import RATE_HZ, SoundNet

#: One unit of a log-mel here (and of Whisper's), and a factor of e in power.
DB_PER_UNIT = 40.0
#: Gain in speed of another speaker, at most: in training, and where voices are heard.
OTHER_SPEED, VOICE_SPEED = 0.25, 0.1
#: Frames this far below the loudest one are not part of what sounds: 35 dB.
SOUND_RANGE = 3.5
DB_PER_NEPER = 10.0 / math.log(10.0)


class Hearing(Protocol):
    """Clips to what the network reads; and the same, changed a little."""

    def features(self, x_BS: NDArray[np.float32]) -> torch.Tensor:
        """What the network reads of these clips."""

    def changed(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The features as another speaker, microphone or room would give them."""

    def voices(self, x: torch.Tensor, count: int) -> list[torch.Tensor]:
        """The features as so many throats, from longer to shorter, would give them."""


class LogMel:
    """80 dB below each clip's loudest point as -1..1, float32 (B, 1, mels, T)."""

    def __init__(
        self, *, rate_hz: int, mels: int, strong: bool, even_pace: float
    ) -> None:
        self._strong = strong
        self._even = even_pace
        self._top_hz = rate_hz / 2
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
        out: torch.Tensor = below.unsqueeze(1)
        if self._even:
            out = evened(out, level.amax(dim=1), self._even)
        return out.masked_fill((top <= -10.0).unsqueeze(1), -1.0)

    def changed(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Hearing`."""
        if not self._strong:
            return jitter(x, generator, shift=(0.04, 0.06), scale=(0.08, 0.2))
        x = other_voice(x, generator, most=OTHER_SPEED, top_hz=self._top_hz)
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
        many = torch.rand((len(x), 1, 1, 1), generator=generator) < 0.8
        return torch.where(many, worse, x)

    def voices(self, x: torch.Tensor, count: int) -> list[torch.Tensor]:
        """See `Hearing`."""
        ends = math.log1p(VOICE_SPEED)
        speeds = torch.linspace(-ends, ends, count).exp().tolist()
        rows = (len(x), 1)
        return [at_speed(x, torch.full(rows, v), self._top_hz) for v in speeds]


def evened(
    x_B1MT: torch.Tensor, loudness_BT: torch.Tensor, share: float
) -> torch.Tensor:
    """What sounds moved to the start and stretched over the clip.

    Args:
        x_B1MT: log-mels, -1 where there is nothing.
        loudness_BT: of each frame, log10 of power; what sounds lies within 35 dB of the
            loudest.
        share: of the whole stretch, in logarithms: with 0.5 what took a quarter of the
            clip takes half of it.
    """
    high, frames = x_B1MT.shape[2:]
    place_T = torch.arange(frames)
    sounds_BT = loudness_BT > loudness_BT.amax(dim=1, keepdim=True) - SOUND_RANGE
    first_B1 = torch.where(sounds_BT, place_T, frames).amin(dim=1, keepdim=True)
    last_B1 = torch.where(sounds_BT, place_T, -1).amax(dim=1, keepdim=True)
    length_B1 = (last_B1 - first_B1 + 1).float()
    wide_B1 = frames * (length_B1 / frames) ** (1.0 - share)
    from_BT = first_B1 + (place_T + 0.5) * length_B1 / wide_B1 - 0.5
    from_BT = torch.minimum(torch.maximum(from_BT, first_B1), last_B1)
    across_BT = (2 * from_BT + 1) / frames - 1
    down_M = (2 * torch.arange(high) + 1) / high - 1
    out = sampled(x_B1MT, across_BT, down_M.expand(len(x_B1MT), high))
    beyond_BT = place_T >= wide_B1
    return out.masked_fill(beyond_BT[:, None, None], -1.0)


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

    def voices(self, x: torch.Tensor, count: int) -> list[torch.Tensor]:
        """See `Hearing`; a network by name hears each clip once."""
        return [x]
