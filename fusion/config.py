"""The shape of a fusion model, checked, and the error of a saved one.

FusionLoadError (a saved fusion cannot be used: the message names file and reason)
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from typing import Any


def pairs_of(modalities: int) -> tuple[tuple[int, int], ...]:
    """Gives every pair of modality positions, first below second, in order."""
    return tuple((i, j) for i in range(modalities) for j in range(i + 1, modalities))


class FusionLoadError(Exception):
    """A saved fusion is missing, damaged, or made for another width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionConfig:
    """Shape of the fusion model and how it is regularised.

    Attributes:
        modalities: names in mask order; the first is the one that is not media.
        width: D, the width of the embeddings and of the fused row.
        dim: K, the width of the tokens that attend to each other.
        layers: stacked attention blocks.
        heads: attention heads per block.
        hidden: width of the head's hidden layer.
        dropout: on tokens while fitting.
        modality_dropout: probability that fitting hides a present modality.
    """

    modalities: tuple[str, ...] = ("tabular", "text", "image", "audio")
    width: int = 128
    dim: int = 16
    layers: int = 1
    heads: int = 2
    hidden: int = 16
    dropout: float = 0.1
    modality_dropout: float = 0.15

    def __post_init__(self) -> None:
        names = self.modalities
        if (
            not isinstance(names, tuple)
            or len(names) < 2
            or len(set(names)) < len(names)
        ):
            msg = f"fusion: modalities must be two or more names, got {names}"
            raise ValueError(msg)
        for name in ("width", "dim", "layers", "heads", "hidden"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                msg = f"fusion: {name} must be a whole number above 0, got {value!r}"
                raise ValueError(msg)
        if self.dim % self.heads:
            msg = f"fusion: dim {self.dim} is not divisible by heads {self.heads}"
            raise ValueError(msg)
        for name in ("dropout", "modality_dropout"):
            if not 0 <= getattr(self, name) < 1:
                msg = f"fusion: {name} must be in [0, 1), got {getattr(self, name)!r}"
                raise ValueError(msg)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Names of the T tokens: the modalities, then pairs such as "image+audio"."""
        names = self.modalities
        pairs = [f"{names[i]}+{names[j]}" for i, j in pairs_of(len(names))]
        return (*names, *pairs)

    @classmethod
    def from_dict(cls, given: Any) -> FusionConfig:
        """Builds a config, refusing unknown keys with the nearest known one."""
        if not isinstance(given, dict):
            msg = f"fusion: expected an object, got {type(given).__name__}"
            raise ValueError(msg)
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
                msg = f"fusion: unknown key '{key}'; the nearest known key is '{near}'"
                raise ValueError(msg)
        values = dict(given)
        if isinstance(values.get("modalities"), list):
            values["modalities"] = tuple(values["modalities"])
        return cls(**values)
