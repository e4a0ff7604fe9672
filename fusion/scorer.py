"""A fitted fusion as the running jobs use it: numpy in, numpy out.

Shapes: `B` batch, `M` modalities, `P` pairs of them, `T` tokens (M + P), `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.attention import agreement
from fusion.model import FusionModel


class Fused(NamedTuple):
    """What the fusion says about a batch of cases, all float32.

    Attributes:
        logit: (B,) the tree's log-odds plus the evidence of the media.
        gates: (B, M) in [0, 1], 0 for an absent modality.
        fused: (B, D) rows of unit length; zeros where nothing is present.
        said: (B, T) log-odds that each token adds where it is fully relied on, in the
            order of `FusionConfig.tokens`.
    """

    logit: NDArray[np.float32]
    gates: NDArray[np.float32]
    fused: NDArray[np.float32]
    said: NDArray[np.float32]


class FusionScorer:
    """Fuses batches of cases, and says what moved them.

    Args:
        model: a fitted model; it is switched to evaluation.
        reliability: by token name, how far it is trusted of late, 0..1; 1 where none
            is given.
    """

    def __init__(
        self, model: FusionModel, reliability: Mapping[str, float] | None = None
    ) -> None:
        self.model = model.eval()
        self.config = model.config
        self.tokens = len(model.config.tokens)
        self._trust: Tensor | None = None
        if reliability:
            given = [reliability.get(name, 1.0) for name in self.config.tokens]
            self._trust = torch.tensor(given)

    def score(
        self,
        x: NDArray[np.float32],
        mask: NDArray[np.bool_],
        tree_logit: NDArray[np.floating[Any]],
    ) -> Fused:
        """Fuses a batch of cases.

        Args:
            x: (B, M, D) float32; B may be 0.
            mask: (B, M) bool.
            tree_logit: (B,).
        """
        with torch.inference_mode():
            out = self.model(
                *self._tensors(x, mask, tree_logit), reliability=self._trust
            )
            gates = out.gates[:, : mask.shape[1]]
            parts = (out.logit, gates, out.fused, out.said)
            return Fused(*(part.numpy() for part in parts))

    def evidence(
        self, x: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """What each token says taken alone, before any gate: (B, T) log-odds."""
        with torch.inference_mode():
            there = torch.from_numpy(mask)
            said = self.model.evidence(self.model.read(torch.from_numpy(x), there))
            return (said * self.model.tokens_there(there)).numpy()

    def agreement(
        self, x: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Cosines (B, P) of the pairs of modalities; 0 where one is missing."""
        with torch.inference_mode():
            whole = torch.from_numpy(np.where(mask[..., None], x, np.float32(0)))
            return agreement(whole).numpy()

    def leave_one_out(
        self,
        x: NDArray[np.float32],
        mask: NDArray[np.bool_],
        tree_logit: NDArray[np.floating[Any]],
    ) -> NDArray[np.float32]:
        """Says how much of each logit is owed to each modality's embedding.

        The tree's part stays in place: its own contributions explain that.

        Args:
            x: (B, M, D) float32; B may be 0.
            mask: (B, M) bool.
            tree_logit: (B,).

        Returns:
            (B, M): logit with all, less the logit without that modality; exactly 0
            for an absent one.
        """
        rows, modalities = mask.shape
        keep = np.vstack((np.ones(modalities, bool), ~np.eye(modalities, dtype=bool)))
        masks = (mask[None] & keep[:, None]).reshape(-1, modalities)
        with torch.inference_mode():
            whole, _, base = self._tensors(x, mask, tree_logit)
            out = self.model(
                whole.repeat(modalities + 1, 1, 1),
                torch.from_numpy(masks),
                base.repeat(modalities + 1),
                reliability=self._trust,
            )
            logit = out.logit.numpy().reshape(modalities + 1, rows)
        delta = (logit[0] - logit[1:]).T
        return np.where(mask, delta, np.float32(0))

    def _tensors(
        self,
        x: NDArray[np.float32],
        mask: NDArray[np.bool_],
        tree_logit: NDArray[np.floating[Any]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        want = (len(mask), len(self.config.modalities), self.config.width)
        if x.shape != want or mask.shape != want[:2] or tree_logit.shape != want[:1]:
            msg = (
                f"score: embeddings {x.shape}, mask {mask.shape} and tree_logit"
                f" {tree_logit.shape} do not fit this fusion: expected {want}"
            )
            raise ValueError(msg)
        return (
            torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)),
            torch.from_numpy(np.ascontiguousarray(mask, dtype=np.bool_)),
            torch.from_numpy(np.ascontiguousarray(tree_logit, dtype=np.float32)),
        )
