"""Payloads of one modality to vectors of one shared width; knows no stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from encoders.audio import AudioEncoder
from encoders.base import (
    Encoder,
    EncoderConfig,
    EncoderError,
    EncoderLoadError,
    PayloadError,
    read_config,
)
from encoders.image import ImageEncoder
from encoders.store import load_encoders, save_encoders
from encoders.tabular import TabularEncoder
from encoders.text import TextEncoder

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderConfig",
    "EncoderError",
    "EncoderLoadError",
    "PayloadError",
    "build_encoder",
    "load_encoders",
    "save_encoders",
]

#: In the order of masks, gates and fused inputs. Importing these loads no torch.
ENCODERS: dict[str, type[Encoder]] = {
    "tabular": TabularEncoder,
    "text": TextEncoder,
    "image": ImageEncoder,
    "audio": AudioEncoder,
}


def build_encoder(config: Mapping[str, Any] | EncoderConfig) -> Encoder:
    """A new encoder with its initial weights.

    Args:
        config: one of the encoders' config objects, or a mapping with `modality` and
            that encoder's options: `{"modality": "image", "network": "resnet18"}`.

    Raises:
        EncoderLoadError: unknown modality or option, or the encoder cannot be built.
    """
    if isinstance(config, EncoderConfig):
        for encoder_class in ENCODERS.values():
            if type(config) is encoder_class.config_class:
                return encoder_class(config)  # type: ignore[call-arg]
        msg = f"build encoder: no encoder reads a {type(config).__name__}"
        raise EncoderLoadError(msg)
    options = dict(config)
    modality = options.pop("modality", None)
    if modality not in ENCODERS:
        msg = (
            f"build encoder: modality is {modality!r}, must be one of {list(ENCODERS)}"
        )
        raise EncoderLoadError(msg)
    encoder_class = ENCODERS[modality]
    where = f"modalities.{modality}"
    return encoder_class(read_config(encoder_class.config_class, options, where))  # type: ignore[call-arg]
