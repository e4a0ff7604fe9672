"""What decodes payloads without an encoder's weights, for a process of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from encoders.audio import AudioConfig, decode_clip
from encoders.base import EncoderConfig, read_config
from encoders.image import ImageConfig, decode_picture
from encoders.store import read_about

#: Of the modalities whose payloads are read by much code that was not written here: the
#: class of their options, and what decodes one payload. Neither loads torch.
DECODERS: dict[str, tuple[type[EncoderConfig], Callable[..., Any]]] = {
    "image": (ImageConfig, decode_picture),
    "audio": (AudioConfig, decode_clip),
}


def load_decoders(folder: Path) -> dict[str, Callable[[Any], Any]]:
    """The decoders of the encoders saved below the folder, those of `DECODERS` only.

    Raises:
        EncoderLoadError: a config is missing or damaged.
    """
    found: dict[str, Callable[[Any], Any]] = {}
    for path in sorted(folder.glob("*/config.json")):
        about = read_about(path)
        if about["modality"] in DECODERS:
            config_class, decode = DECODERS[about["modality"]]
            config = read_config(config_class, about["config"], str(path))
            found[about["modality"]] = functools.partial(decode, config=config)
    return found
