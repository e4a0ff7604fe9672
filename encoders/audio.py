"""WAV and FLAC clips to vectors, refused by their header when they are out of limits.

Decoding is soundfile's. Legend: `B` batch, `S` samples, `T` frames of the log-mel.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from encoders.base import (
    EncoderConfig,
    EncoderLoadError,
    LimitError,
    PayloadError,
    payload_bytes,
    settings_of,
)
from encoders.resample import resampled
from encoders.trainable import TrainableEncoder

if TYPE_CHECKING:
    import torch
    from torch import nn

    from encoders.hearing import Hearing

#: A clip whose loudest sample is below this (-120 dB) is silence.
SILENCE_PEAK = 1e-6
#: Rates are rounded to this step before resampling, which bounds the filter's size.
RATE_STEP_HZ = 25
#: Network of our own; any other name is one of Hugging Face's, or a folder.
SMALL = "small"
LIGHT, STRONG = "light", "strong"
BOUNDS = {"clip_s": (0.25, 30), "even_pace": (0, 1), "voices": (1, 16)}


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioConfig(EncoderConfig):
    """Options of the audio encoder.

    Attributes:
        network: "small", or the folder or Hugging Face name of a network of the
            wav2vec2 family or of Whisper.
        download: whether a name that is not on this machine may be fetched.
        architecture: set by the encoder: what rebuilds a network by name.
        changes: how clips are changed in training: "light"; "strong" also changes the
            microphone and the room and hides stripes, and needs more steps.
        clip_s: seconds that are read: the loudest stretch of a longer clip.
        rate_hz: clips are resampled to this rate.
        mels: frequency bands of the log-mel.
        even_pace: how far what sounds is stretched over the whole clip, 0 for not at
            all to 1: for single words, said slowly or quickly.
        voices: with more than 1, a vector is the mean over the clip as so many longer
            and shorter throats would say it; it costs so many times as much.
        max_bytes: longer payloads are refused.
        max_seconds: longer clips are refused before they are decoded.
        min_rate_hz: clips sampled slower are refused.
        max_rate_hz: clips sampled faster are refused.
        max_channels: clips with more channels are refused.
    """

    network: str = SMALL
    download: bool = True
    architecture: str = ""
    changes: str = LIGHT
    clip_s: float = 2.0
    rate_hz: int = 16_000
    mels: int = 64
    even_pace: float = 0.0
    voices: int = 1
    max_bytes: int = 8 * 1024 * 1024
    max_seconds: float = 30.0
    min_rate_hz: int = 4_000
    max_rate_hz: int = 96_000
    max_channels: int = 8

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        if self.rate_hz % RATE_STEP_HZ or not 4_000 <= self.rate_hz <= 96_000:
            msg = (
                f"read audio config: rate_hz is {self.rate_hz}, must be 4000..96000 "
                f"in steps of {RATE_STEP_HZ}"
            )
            raise EncoderLoadError(msg)
        if self.changes not in (LIGHT, STRONG):
            msg = (
                f"read audio config: changes is '{self.changes}', must be "
                f"'{LIGHT}' or '{STRONG}'"
            )
            raise EncoderLoadError(msg)
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                msg = f"read audio config: {name} is {value}, must be {low}..{high}"
                raise EncoderLoadError(msg)


class AudioEncoder(TrainableEncoder):
    """The loudest stretch of a clip, through a network."""

    modality: ClassVar[str] = "audio"
    config_class: ClassVar[type[EncoderConfig]] = AudioConfig
    config: AudioConfig

    def __init__(self, config: AudioConfig | None = None) -> None:
        """Build the network.

        Raises:
            EncoderLoadError: no such network, or it reads another rate.
        """
        given = config or AudioConfig()
        self.width = given.width
        self.network, self._hearing, architecture = build_network(given)
        # The saved config is whole: a copy must not look for the folder again.
        self.config = dataclasses.replace(given, architecture=architecture)
        self.seal()

    def decode(self, payload: bytes) -> NDArray[np.float32]:
        """The stretch that will be read: mono float32 (S,), its peak 1, or silence."""
        return decode_clip(payload, self.config)

    def prepare(self, decoded: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        """Log-mels, float32 (B, 1, mels, T); what a network by name reads, for one."""
        return self._hearing.features(np.asarray(decoded))

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        """See `TrainableEncoder.forward`; one voice is enough to learn from."""
        if self.config.voices == 1 or self.network.training:
            return super().forward(prepared)
        heard = self._hearing.voices(prepared, self.config.voices)
        units = [_unit(super(AudioEncoder, self).forward(voice)) for voice in heard]
        return sum(units[1:], units[0])

    def augment(
        self, prepared: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Another height, pace and start; when strong, another microphone and room."""
        return self._hearing.changed(prepared, generator)

    def settings(self) -> dict[str, Any]:
        """What changes a vector of the config, and the version of the preparation."""
        options = settings_of(self.config, added=("even_pace", "voices"))
        del options["download"], options["changes"]
        options["network"] = Path(options["network"]).name
        return {**options, "preparation": 1}


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return functional.normalize(vectors, dim=1)


def build_network(config: AudioConfig) -> tuple[nn.Module, Hearing, str]:
    """The network, what it reads, and the JSON that rebuilds one by name."""
    from encoders.network import SmallCnn, seeded

    if config.network == SMALL:
        from encoders.hearing import LogMel

        network: nn.Module = seeded(
            lambda: SmallCnn(channels=1, width=config.width, grid=(4, 4)), config.seed
        )
        hearing = LogMel(
            rate_hz=config.rate_hz,
            mels=config.mels,
            strong=config.changes == STRONG,
            even_pace=config.even_pace,
        )
        return network, hearing, ""
    from encoders import pretrained
    from encoders.hearing import Pretrained

    for name, must in (("rate_hz", pretrained.RATE_HZ), ("voices", 1)):
        if getattr(config, name) != must:
            msg = (
                f"build audio encoder: {name} is {getattr(config, name)}, with network "
                f"'{config.network}' it must be {must}"
            )
            raise EncoderLoadError(msg)
    architecture = config.architecture
    if architecture:
        model = pretrained.build_model(architecture)
    else:
        what = "audio network"
        folder = pretrained.find_model(
            config.network, what=what, download=config.download
        )
        model, architecture = pretrained.read_model(folder, what=what)
    samples = round(config.clip_s * config.rate_hz)
    net = seeded(
        lambda: pretrained.SoundNet(model, width=config.width, samples=samples),
        config.seed,
    )
    return net, Pretrained(net), architecture


def decode_clip(payload: Any, config: AudioConfig) -> NDArray[np.float32]:
    """What `AudioEncoder.decode` gives; needs no torch.

    Raises:
        PayloadError: unreadable or out of limits.
    """
    content = payload_bytes(payload, config.max_bytes)
    check_container(content)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as clip:
            check_limits(config, clip.samplerate, clip.channels, clip.frames)
            rate_hz, promised = clip.samplerate, clip.frames
            samples = clip.read(dtype="float32", always_2d=True)
    except PayloadError:
        raise
    except Exception as error:
        msg = f"clip cannot be decoded: {error}"
        raise PayloadError(msg) from error
    if len(samples) != promised:
        msg = f"clip is cut short: {len(samples)} of {promised} samples are there"
        raise PayloadError(msg)
    if not np.isfinite(samples).all():
        msg = "clip holds NaN or infinite samples"
        raise PayloadError(msg)
    mono = samples.mean(axis=1, dtype=np.float64)
    return _at_rate(config, loudest(mono, round(config.clip_s * rate_hz)), rate_hz)


def check_limits(
    limits: AudioConfig, rate_hz: int, channels: int, samples: int
) -> None:
    """Refuse what the header promises, before a sample is decoded.

    Raises:
        PayloadError: no samples.
        LimitError: sampled too slow or too fast, too many channels, or too long.
    """
    if not limits.min_rate_hz <= rate_hz <= limits.max_rate_hz:
        msg = (
            f"clip has {rate_hz} samples per second, the limits are "
            f"{limits.min_rate_hz} to {limits.max_rate_hz}"
        )
        raise LimitError(msg)
    if channels > limits.max_channels:
        msg = f"clip has {channels} channels, the limit is {limits.max_channels}"
        raise LimitError(msg)
    if samples < 1:
        msg = "clip has no samples"
        raise PayloadError(msg)
    if samples > limits.max_seconds * rate_hz:
        seconds = samples / rate_hz
        msg = f"clip is {seconds:.1f} s long, the limit is {limits.max_seconds} s"
        raise LimitError(msg)


def _at_rate(
    config: AudioConfig, mono: NDArray[np.float64], rate_hz: int
) -> NDArray[np.float32]:
    """The stretch with peak 1 at the encoder's rate, padded at the end."""
    out = np.zeros(round(config.clip_s * config.rate_hz), np.float32)
    peak = np.abs(mono).max()
    if peak < SILENCE_PEAK:
        return out
    rounded = round(rate_hz / RATE_STEP_HZ) * RATE_STEP_HZ
    level = (mono / peak).astype(np.float32)
    at_rate = resampled(level, rounded, config.rate_hz)[: len(out)]
    out[: len(at_rate)] = at_rate
    return out


def check_container(content: bytes) -> None:
    """Refuse what is neither FLAC nor a WAV whose data chunk is all there.

    libsndfile knows more formats, and reads what is left of a cut WAV without a word.

    Raises:
        PayloadError: another format, no data chunk, or one that is cut.
    """
    if content[:4] == b"fLaC":
        return
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        msg = "clip is neither WAV nor FLAC"
        raise PayloadError(msg)
    at = 12
    while at + 8 <= len(content):
        name = content[at : at + 4]
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        there = len(content) - at - 8
        if name == b"data":
            if size > there:
                msg = f"clip is cut short: {there} of {size} data bytes are there"
                raise PayloadError(msg)
            return
        at += 8 + size + size % 2
    msg = "clip is cut short: it has no data chunk"
    raise PayloadError(msg)


def loudest(mono: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The stretch of `window` samples with the most energy, the first of equals."""
    if len(mono) <= window:
        return mono
    energy = np.concatenate([[0.0], np.cumsum(np.square(mono))])
    start = int(np.argmax(energy[window:] - energy[:-window]))
    return mono[start : start + window]
