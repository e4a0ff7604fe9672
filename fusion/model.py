"""The fusion model: embeddings of a case to a logit, gates and one fused row.

Shapes: `B` batch, `M` modalities, `D` shared width, `K` token width, `P` pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.attention import Agreement, GatedCrossAttention, pairs_of, unit
from fusion.config import FusionConfig

__all__ = ["FusionConfig", "FusionModel", "FusionOutput", "FusionScorer"]


class FusionOutput(NamedTuple):
    """What the fusion says about a batch of cases.

    Attributes:
        logit: (B,) the tree's log-odds plus the evidence of the media.
        gates: (B, M) in [0, 1], exactly 0 for an absent modality.
        fused: (B, D) rows of unit length; zeros where nothing is present.
    """

    logit: Tensor
    gates: Tensor
    fused: Tensor


class FusionModel(nn.Module):
    """Adds what the media say, alone and together, to the tree's log-odds.

    Args:
        config: shape of the model.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        modalities, dim = len(config.modalities), config.dim
        pairs = len(pairs_of(modalities))
        bound = config.width**-0.5
        self.project = nn.Parameter(
            torch.empty(modalities, config.width, dim).uniform_(-bound, bound)
        )
        self.project_bias = nn.Parameter(torch.zeros(modalities, dim))
        self.missing = nn.Parameter(torch.randn(modalities, dim) * 0.02)
        self.meet = nn.Parameter(torch.zeros(2, pairs, config.width, dim))
        self.share: Tensor
        self.register_buffer("share", torch.eye(config.width).repeat(modalities, 1, 1))
        self.center: Tensor
        self.register_buffer("center", torch.zeros(modalities, config.width))
        self.own = nn.Parameter(torch.zeros(modalities, config.width))
        self.together = nn.Parameter(torch.zeros(3 * pairs + modalities))
        self.agreement = Agreement(modalities)
        self.blocks = nn.ModuleList(
            GatedCrossAttention(
                modalities, dim, heads=config.heads, dropout=config.dropout
            )
            for _ in range(config.layers)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(dim * modalities),
            nn.Linear(dim * modalities, config.hidden),
        )
        self.clues = nn.Linear(3 * pairs + modalities + 1, config.hidden)
        self.verdict = nn.Linear(config.hidden, 1)
        nn.init.zeros_(self.verdict.weight)
        nn.init.zeros_(self.verdict.bias)
        self.drop = nn.Dropout(config.dropout)

    def centered(self, x: Tensor, mask: Tensor) -> Tensor:
        """Takes the usual embedding away, and blanks what is absent.

        Args:
            x: (B, M, D).
            mask: (B, M) bool.

        Returns:
            (B, M, D), zeros for an absent modality whatever `x` holds there.
        """
        return torch.where(mask[..., None], x - self.center, torch.zeros_like(x))

    def shared(self, centered_BMD: Tensor) -> Tensor:
        """Places centred embeddings in the space all modalities share.

        Args:
            centered_BMD: (B, M, D), as `centered` gives them.

        Returns:
            (B, M, D) rows of unit length; a row of zeros stays zeros.
        """
        return unit(torch.einsum("bmd,mde->bme", centered_BMD, self.share))

    def told(self, x_BMD: Tensor, mask: Tensor) -> Tensor:
        """Gives what is known of a case but its own content, for the weighted sum.

        Args:
            x_BMD: (B, M, D) centred embeddings.
            mask: (B, M) bool.

        Returns:
            (B, 3 P + M): cosines of pairs, their squares, and who is present.
        """
        agreement_BP, both_BP = self.agreement(x_BMD, mask, self.meet)
        present_BX = torch.cat((both_BP, mask), -1).to(x_BMD.dtype)
        return torch.cat((agreement_BP, agreement_BP**2, present_BX), -1)

    def forward(self, x: Tensor, mask: Tensor, tree_logit: Tensor) -> FusionOutput:
        """Fuses a batch of cases.

        Args:
            x: (B, M, D) float32 embeddings; values of absent modalities are ignored,
                NaN included.
            mask: (B, M) bool, True where a modality is present.
            tree_logit: (B,) log-odds of the tabular model, or of the prior.

        Returns:
            A FusionOutput. Where no media are present `logit` is `tree_logit` itself.
        """
        x_BMD = self.centered(x, mask)
        shared_BMD = self.shared(x_BMD)
        told_BX = self.told(x_BMD, mask)

        scaled_BMD = x_BMD * self.config.width**0.5
        tokens_BMK = torch.einsum("bmd,mdk->bmk", scaled_BMD, self.project)
        tokens_BMK = torch.where(
            mask[..., None], tokens_BMK + self.project_bias, self.missing
        )
        gates_BM = mask.to(x.dtype)
        for block in self.blocks:
            tokens_BMK, gates_BM = block(tokens_BMK, mask)

        fused_BD = unit((gates_BM[..., None] * shared_BMD).sum(1))
        said_BMK = torch.where(
            mask[..., None], gates_BM[..., None] * tokens_BMK, tokens_BMK
        )
        clues = torch.cat((told_BX, torch.tanh(tree_logit / 4)[:, None]), -1)
        hidden = self.head(self.drop(said_BMK.flatten(1))) + self.clues(clues)
        interplay = self.verdict(nn.functional.gelu(hidden)).squeeze(-1)
        own_BM = (scaled_BMD * self.own).sum(-1)
        evidence = (gates_BM * own_BM).sum(-1) + told_BX @ self.together + interplay
        media = mask[:, 1:].any(-1)
        logit = torch.where(media, tree_logit + evidence, tree_logit)
        return FusionOutput(logit, gates_BM, fused_BD)


class FusionScorer:
    """Numpy in, numpy out: a fitted fusion as the running jobs use it.

    Args:
        model: a fitted model; it is switched to evaluation.
    """

    def __init__(self, model: FusionModel) -> None:
        self.model = model.eval()
        self.config = model.config

    def score(
        self,
        x: NDArray[np.float32],
        mask: NDArray[np.bool_],
        tree_logit: NDArray[np.floating[Any]],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Fuses a batch of cases.

        Args:
            x: (B, M, D) float32; B may be 0.
            mask: (B, M) bool.
            tree_logit: (B,).

        Returns:
            logit (B,), gates (B, M), fused (B, D), all float32.
        """
        with torch.inference_mode():
            out = self.model(*self._tensors(x, mask, tree_logit))
            return out.logit.numpy(), out.gates.numpy(), out.fused.numpy()

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
