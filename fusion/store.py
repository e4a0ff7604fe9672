"""A fusion on disk: its config and its weights, checked when they are read back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fusion.config import FusionConfig, FusionLoadError
from fusion.model import FusionModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"


def save_fusion(model: FusionModel, folder: Path) -> None:
    """Writes `config.json` and `weights.safetensors` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(model.config), indent=2, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    weights = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)


def load_fusion(folder: Path, *, width: int | None = None) -> FusionModel:
    """Reads a fusion written by `save_fusion`, ready to score.

    Args:
        folder: where `config.json` and `weights.safetensors` lie.
        width: the width of the embeddings it will be given, checked when given.

    Raises:
        FusionLoadError: a file is missing or damaged, or the width is another one.
    """
    config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    try:
        config = FusionConfig.from_dict(json.loads(config_path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        msg = f"load fusion: {config_path}: {error}"
        raise FusionLoadError(msg) from error
    if width is not None and config.width != width:
        msg = (
            f"load fusion: {config_path}: it was made for embeddings of width"
            f" {config.width}, the encoders give width {width}"
        )
        raise FusionLoadError(msg)
    try:
        weights = load_file(weights_path)
    except (OSError, SafetensorError) as error:
        msg = f"load fusion: {weights_path}: {error}"
        raise FusionLoadError(msg) from error
    model = FusionModel(config)
    expected = model.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        want = tuple(expected[name].shape) if name in expected else "no such tensor"
        got = tuple(weights[name].shape) if name in weights else "nothing"
        if want != got:
            msg = f"load fusion: {weights_path}: '{name}' holds {got}, expected {want}"
            raise FusionLoadError(msg)
        if not torch.isfinite(weights[name]).all():
            msg = f"load fusion: {weights_path}: '{name}' holds NaN or infinity"
            raise FusionLoadError(msg)
    model.load_state_dict(weights)
    return model.eval()
