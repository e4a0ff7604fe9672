"""Whether a model's encoders are those its manifest was written for."""

from __future__ import annotations

from pathlib import Path

from automl.manifest import load_manifest
from encoders.base import EncoderError
from encoders.store import read_about


class EncoderMismatchError(EncoderError):
    """An encoder is not the one the model was fitted with; both are named."""


def check_encoders(model_folder: Path) -> None:
    """Compare what the encoders say of themselves with the manifest, before any vector.

    That they are what they say is checked where they are loaded.

    Raises:
        EncoderMismatchError: another width, another fingerprint, or one not there.
        EncoderLoadError: a config is damaged.
    """
    manifest = load_manifest(model_folder)
    paths = sorted((model_folder / "encoders").glob("*/config.json"))
    for path in paths:
        about = read_about(path)
        modality, fingerprint = about["modality"], about["fingerprint"]
        known = manifest.fingerprints.get(modality)
        width = about.get("width", manifest.width)
        if known == fingerprint and width == manifest.width:
            continue
        msg = (
            f"check encoders of {model_folder}: the encoder of {modality} is "
            f"{fingerprint} of width {width}, the model takes {known} of width "
            f"{manifest.width}. Restore the version's files, or train again"
        )
        raise EncoderMismatchError(msg)
