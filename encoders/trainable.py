"""Encoders whose vector comes out of a torch network: prepare, forward, seal, save.

Legend: `B` batch, `D` shared width. torch is loaded when an encoder is built, not
when this file is imported, so a config can be read without it.
"""

from __future__ import annotations

import dataclasses
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encoders.base import (
    Encoder,
    EncoderConfig,
    EncoderLoadError,
    fingerprint_of,
    unit_rows,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Most items that go through a network at once: bounds memory, not results. A call of
#: the encode job in its usual size (five batches of 16) is not split again.
CHUNK_ROWS = 80


class TrainableEncoder(Encoder):
    """An encoder in three steps: `decode` (payload), `prepare` (tensor), `forward`.

    A subclass sets `config` and `network` in its constructor and ends with `seal()`.

    Attributes:
        config: the options it was built with.
        network: turns prepared items into vectors of width D, before unit length.
        serving: what was measured when its serving form was chosen; saved with it.
    """

    config: EncoderConfig
    network: nn.Module
    serving: dict[str, Any] | None = None

    @abstractmethod
    def prepare(self, decoded: Sequence[Any]) -> torch.Tensor:
        """What the network reads, one row per decoded item; fixed while training."""

    def prepare_all(self, decoded: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        """What the network reads of many items; a tensor is that already."""
        import torch

        if isinstance(decoded, torch.Tensor):
            return decoded
        starts = range(0, len(decoded), CHUNK_ROWS)
        parts = [self.prepare(decoded[at : at + CHUNK_ROWS]) for at in starts]
        return torch.cat(parts) if parts else torch.empty(0)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything besides the weights that can change a vector, as JSON values."""

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        """Vectors (B, D) of prepared items, not yet of unit length, with gradients."""
        vectors: torch.Tensor = self.network(prepared)
        return vectors

    def fit_items(self, decoded: Sequence[Any]) -> None:
        """Start from the items alone, without labels; most encoders need no start.

        An encoder that does something here ends with `seal()`.
        """
        return

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """The weights that learn, and which share of the learning rate they take."""
        return [(list(self.network.parameters()), 1.0)]

    def augment(
        self, prepared: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """The prepared items, changed a little in ways that keep their meaning."""
        return prepared

    def encode(self, decoded: Sequence[Any]) -> NDArray[np.float32]:
        """See `Encoder.encode`."""
        import torch

        vectors = np.empty((len(decoded), self.width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(decoded), CHUNK_ROWS):
                rows = slice(start, start + CHUNK_ROWS)
                vectors[rows] = self.encode_prepared(self.prepare(decoded[rows]))
        return vectors

    def encode_prepared(self, prepared: torch.Tensor) -> NDArray[np.float32]:
        """Like `encode`, for items that went through `prepare` before."""
        import torch

        vectors = np.empty((len(prepared), self.width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(prepared), CHUNK_ROWS):
                rows = slice(start, start + CHUNK_ROWS)
                vectors[rows] = unit_rows(self.forward(prepared[rows]).numpy())
        return vectors

    def seal(self) -> None:
        """End of any change to the weights: fix them and renew the fingerprint."""
        self.network.eval().requires_grad_(requires_grad=False)
        self.fingerprint = fingerprint_of(self.network.state_dict(), self.settings())

    def save(self, folder: Path) -> None:
        """See `Encoder.save`."""
        from safetensors.torch import save_file

        self.seal()
        folder.mkdir(parents=True, exist_ok=True)
        weights = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        save_file(weights, folder / "weights.safetensors")
        about = {
            "modality": self.modality,
            "width": self.width,
            "fingerprint": self.fingerprint,
            "config": dataclasses.asdict(self.config),
            "settings": self.settings(),
        }
        if self.serving:
            about["serving"] = self.serving
        text = json.dumps(about, indent=2, sort_keys=True) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")

    def restore(self, weights: Mapping[str, torch.Tensor], where: str) -> None:
        """Take over saved weights, all of them, and renew the fingerprint.

        Raises:
            EncoderLoadError: a tensor is missing, unknown, misshapen or not finite.
        """
        for name, tensor in weights.items():
            if not bool(tensor.isfinite().all()):
                msg = f"load {where}: tensor '{name}' holds NaN or infinity"
                raise EncoderLoadError(msg)
        try:
            self.network.load_state_dict(dict(weights), strict=True)
        except RuntimeError as error:
            msg = f"load {where}: weights do not fit config.json: {error}"
            raise EncoderLoadError(msg) from error
        self.seal()
