"""Where a training stands, in one file, so that one cut off goes on from there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from encoders.base import EncoderLoadError, fingerprint_of


@dataclass(frozen=True, slots=True)
class Standing:
    """What a training needs to go on.

    Attributes:
        tensors: weights, moments and states of random generators, by name.
        told: everything else, as JSON values.
    """

    tensors: dict[str, torch.Tensor]
    told: dict[str, Any]


class Checkpoint:
    """One file that always holds a whole standing, the newest.

    Args:
        path: of the file; its folder is made when it is first written.
        purpose: names all that the training depends on; the standing of another
            training is not taken up.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, purpose: str) -> None:
        self.path = path
        self._purpose = purpose

    def read(self) -> Standing | None:
        """Where the same training stood, or None when it never began.

        Raises:
            EncoderLoadError: the file is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as held:
                about = held.metadata() or {}
                if about.get("purpose") != self._purpose:
                    return None
                tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise self._damaged(str(error)) from error
        told = about.get("told", "")
        if about.get("fingerprint") != fingerprint_of(tensors, {"told": told}):
            msg = "its content does not have the hash written beside it"
            raise self._damaged(msg)
        return Standing(tensors, json.loads(told))

    def write(self, standing: Standing) -> None:
        """Put a standing in the place of the last one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        told = json.dumps(standing.told)
        tensors = {
            k: v.detach().cpu().contiguous() for k, v in standing.tensors.items()
        }
        about = {
            "purpose": self._purpose,
            "told": told,
            "fingerprint": fingerprint_of(tensors, {"told": told}),
        }
        fresh = self.path.with_name(self.path.name + ".new")
        save_file(tensors, fresh, metadata=about)
        fresh.replace(self.path)

    def _damaged(self, why: str) -> EncoderLoadError:
        msg = f"go on from {self.path}: {why}; delete the file to begin anew"
        return EncoderLoadError(msg)
