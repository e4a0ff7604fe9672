"""Hugging Face networks for pictures and sound, by name or folder, rebuilt by config.

Legend: `B` batch, `C` channels, `H` `W` height and width, `S` samples, `D` width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, WhisperFeatureExtractor
from transformers.utils import logging

from encoders.base import EncoderLoadError

#: What is read of a model: safetensors only, as other weight formats can run code.
FILES = ("*.safetensors", "config.json", "preprocessor_config.json")
#: Whisper's frames: 10 ms each, two of them one state of its encoder.
WHISPER_HOP = 160
RATE_HZ = 16_000


def find_model(name: str, *, what: str, download: bool) -> Path:
    """The folder of a model: given, cached, or downloaded.

    Args:
        name: a local folder or a Hugging Face name.
        what: for the message, such as "image network".
        download: whether a name that is not on this machine may be fetched.

    Raises:
        EncoderLoadError: it is nowhere; the message says where to put it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = Path(name)
    failure: Exception | None = None
    if folder.is_dir():
        if (folder / "config.json").is_file() and list(folder.glob("*.safetensors")):
            return folder
        msg = f"load {what} '{name}': config.json or *.safetensors is not in the folder"
        raise EncoderLoadError(msg)
    for local_only in (True, False) if download else (True,):
        try:
            found = snapshot_download(
                name,
                allow_patterns=list(FILES),
                local_files_only=local_only,
                etag_timeout=5,
            )
            return Path(found)
        except (OSError, ValueError, HFValidationError, HfHubHTTPError) as error:
            failure = error
    msg = (
        f"load {what} '{name}': it is neither a network known here, nor a folder on "
        f"this machine, nor in the Hugging Face cache, and could not be downloaded "
        f"({type(failure).__name__}). Put a folder with config.json and "
        f"model.safetensors on this machine and set `network` to its path"
    )
    raise EncoderLoadError(msg) from failure


def read_model(folder: Path, *, what: str) -> tuple[nn.Module, str]:
    """The model with its weights, and its config as JSON: all that rebuilds it.

    Raises:
        EncoderLoadError: the folder cannot be read as a model.
    """
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except Exception as error:  # safetensors and transformers have no common error
        msg = f"load {what} '{folder}': {error}"
        raise EncoderLoadError(msg) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    return encoder_of(model), json.dumps(config.to_dict(), sort_keys=True)


def build_model(architecture: str) -> nn.Module:
    """The model of `read_model`'s JSON, its weights still to come."""
    about = json.loads(architecture)
    config = AutoConfig.for_model(about.pop("model_type"), **about)
    return encoder_of(AutoModel.from_config(config))


def encoder_of(model: Any) -> nn.Module:
    """The model, or its encoder when it has a decoder, too (Whisper)."""
    if hasattr(model.config, "apply_spec_augment"):
        # It draws from numpy's own generator; `augment` changes the items instead.
        model.config.apply_spec_augment = False
    found: nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model
    return found


def states_width(model: Any) -> int:
    """Length of the model's states."""
    for name in ("hidden_size", "d_model"):
        if isinstance(getattr(model.config, name, None), int):
            return int(getattr(model.config, name))
    return int(model.config.hidden_sizes[-1])


class PictureNet(nn.Module):
    """uint8 or float 0..255 (B, 3, H, W): normalised, the mean state, one line to D.

    Args:
        model: a vision model of transformers.
        width: D.
        folder: holds preprocessor_config.json, when there is one: mean and spread of
            the pixels the model was trained on.
    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, model: Any, *, width: int, folder: Path | None = None) -> None:
        super().__init__()
        self.model = model
        self.line = nn.Linear(states_width(model), width)
        about = _preprocessor(folder)
        for name, key in (("mean", "image_mean"), ("spread", "image_std")):
            level = torch.tensor(about.get(key, [0.5] * 3)).view(3, 1, 1)
            self.register_buffer(name, level)
        places = [n for n, _ in model.named_parameters() if "position_emb" in n]
        size = getattr(model.config, "image_size", None) if places else None
        self._size = (size, size) if isinstance(size, int) else size

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Vectors (B, D), not yet of unit length."""
        x = (x_BCHW.float() / 255.0 - self.mean) / self.spread
        if self._size and tuple(x.shape[2:]) != tuple(self._size):
            x = functional.interpolate(x, size=tuple(self._size), mode="bilinear")
        states = self.model(pixel_values=x).last_hidden_state
        mean = states.mean(dim=1) if states.ndim == 3 else states.mean(dim=(2, 3))
        out: torch.Tensor = self.line(mean)
        return out


def _preprocessor(folder: Path | None) -> dict[str, Any]:
    path = folder / "preprocessor_config.json" if folder else None
    if path is None or not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        msg = f"load {path}: {error}"
        raise EncoderLoadError(msg) from error


class SoundNet(nn.Module):
    """A waveform (B, S), or Whisper's log-mel: the mean state, then one line to D.

    Args:
        model: of the wav2vec2 family (reads samples), or Whisper's encoder.
        width: D.
        samples: S, the length of every clip; states past it are padding.

    Raises:
        EncoderLoadError: the model reads something else.
    """

    def __init__(self, model: Any, *, width: int, samples: int) -> None:
        super().__init__()
        self.model = model
        self.line = nn.Linear(states_width(model), width)
        self.whisper = model.config.model_type == "whisper"
        if not self.whisper and not hasattr(model.config, "conv_kernel"):
            msg = (
                f"build audio encoder: a '{model.config.model_type}' network is not "
                f"read; give one of the wav2vec2 family, or Whisper"
            )
            raise EncoderLoadError(msg)
        self._states = -(-samples // (2 * WHISPER_HOP)) if self.whisper else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors (B, D), not yet of unit length."""
        states = self.model(x).last_hidden_state[:, : self._states]
        out: torch.Tensor = self.line(states.mean(dim=1))
        return out

    def features(self, x_BS: NDArray[np.float32]) -> torch.Tensor:
        """What `forward` reads of clips at 16,000 samples per second."""
        if not self.whisper:
            x = torch.from_numpy(x_BS)
            spread, mean = torch.std_mean(x, dim=1, keepdim=True, correction=0)
            return (x - mean) / (spread + 1e-7)
        config: Any = self.model.config
        extractor = WhisperFeatureExtractor(
            feature_size=config.num_mel_bins,
            hop_length=WHISPER_HOP,
            chunk_length=config.max_source_positions * 2 * WHISPER_HOP / RATE_HZ,
        )
        extractor.n_samples = config.max_source_positions * 2 * WHISPER_HOP
        made = extractor(list(x_BS), sampling_rate=RATE_HZ, return_tensors="np")
        return torch.from_numpy(np.asarray(made["input_features"], np.float32))
