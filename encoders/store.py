"""Encoders on disk: one folder per modality, loaded only if the fingerprint holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoders.base import Encoder, EncoderLoadError


def save_encoders(encoders: Mapping[str, Encoder], folder: Path) -> None:
    """Write `<modality>/config.json` and `<modality>/weights.safetensors` of each."""
    for modality, encoder in encoders.items():
        encoder.save(folder / modality)


def load_encoders(folder: Path) -> dict[str, Encoder]:
    """Every encoder below the folder, by modality.

    Raises:
        EncoderLoadError: one of them is missing, damaged, or not what it says it is.
    """
    places = sorted(path.parent for path in folder.glob("*/config.json"))
    if not places:
        msg = f"load encoders: no */config.json below {folder}"
        raise EncoderLoadError(msg)
    loaded = [load_encoder(place) for place in places]
    return {encoder.modality: encoder for encoder in loaded}


def load_encoder(folder: Path) -> Encoder:
    """The encoder saved in this folder, its fingerprint computed again and compared.

    Raises:
        EncoderLoadError: missing, damaged, or not what its config says it is.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from encoders import build_encoder
    from encoders.trainable import TrainableEncoder

    about = read_about(folder / "config.json")
    encoder = build_encoder({"modality": about["modality"], **about["config"]})
    if not isinstance(encoder, TrainableEncoder):
        msg = f"load {folder}: a {about['modality']} encoder keeps no weights"
        raise EncoderLoadError(msg)
    path = folder / "weights.safetensors"
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        msg = f"load {path}: {error}"
        raise EncoderLoadError(msg) from error
    encoder.restore(weights, str(folder))
    if encoder.fingerprint != about["fingerprint"]:
        changed = _changed(about.get("settings", {}), encoder.settings())
        msg = (
            f"load {folder}: fingerprint is {encoder.fingerprint}, config.json says "
            f"{about['fingerprint']}; {changed} changed since it was saved. Restore "
            f"the saved files, or train again"
        )
        raise EncoderLoadError(msg)
    encoder.serving = about.get("serving")
    return encoder


def read_about(path: Path) -> dict[str, Any]:
    """What a `config.json` says of the encoder beside it.

    Raises:
        EncoderLoadError: it is missing or damaged.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"load {path}: {error}"
        raise EncoderLoadError(msg) from error
    missing = {"modality", "config", "fingerprint"} - set(about)
    if missing:
        msg = f"load {path}: {', '.join(sorted(missing))} missing"
        raise EncoderLoadError(msg)
    return dict(about)


def _changed(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in now if saved.get(name) != now[name]]
    return ", ".join(names) if names else "a weight"
