"""The fusion model: embeddings of a case to a logit, gates and one fused row.

Every modality and every pair of modalities is a token: its reading (see
`fusion.readings`), the evidence in it, and whether it is there at all. The tokens
listen to each other, gates weigh their evidence, and the weighed sum is added to the
log-odds of the tabular model.

Shapes: `B` batch, `M` modalities, `P` pairs of them, `T` tokens (M + P), `D` width of
the embeddings, `K` width of the tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fusion.attention import GatedCrossAttention, agreement, unit
from fusion.config import FusionConfig, pairs_of

__all__ = ["FusionConfig", "FusionModel", "FusionOutput"]

#: Gates of what says something start here, before the sigmoid; of the rest, below 0.
OPEN_GATE = 2.0


class FusionOutput(NamedTuple):
    """What the fusion says about a batch of cases.

    Attributes:
        logit: (B,) the tree's log-odds plus the evidence of the media.
        gates: (B, T) in [0, 1], of modalities, then of pairs; 0 for the absent.
        fused: (B, D) rows of unit length; zeros where nothing is present.
        said: (B, T) log-odds that each token adds where it is fully relied on.
        guess: (B, T) what the others make one expect of a token's evidence.
    """

    logit: Tensor
    gates: Tensor
    fused: Tensor
    said: Tensor
    guess: Tensor


class FusionModel(nn.Module):
    """Adds what the media say, alone and together, to the tree's log-odds.

    Args:
        config: shape of the model.

    Attributes:
        line: (M, D), with `bias` (M,) the reading of each modality's embedding.
        curve: (T, 4) low, rise, slope and turn of `fusion.readings.Curve`.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        modalities, dim = len(config.modalities), config.dim
        pairs = pairs_of(modalities)
        tokens = modalities + len(pairs)
        self._first = [i for i, _ in pairs]
        self._second = [j for _, j in pairs]
        self.line: Tensor
        self.register_buffer("line", torch.zeros(modalities, config.width))
        self.bias: Tensor
        self.register_buffer("bias", torch.zeros(modalities))
        self.curve: Tensor
        self.register_buffer("curve", torch.zeros(tokens, 4))
        self.enter = nn.Parameter(torch.randn(tokens, 2, dim) * 0.3)
        self.present = nn.Parameter(torch.randn(tokens, dim) * 0.1)
        self.missing = nn.Parameter(torch.randn(tokens, dim) * 0.1)
        self.weight = nn.Parameter(torch.ones(tokens))
        self.expect = nn.Parameter(torch.zeros(tokens, dim))
        self.trust_guess = nn.Parameter(torch.zeros(tokens))
        self.blocks = nn.ModuleList(
            GatedCrossAttention(tokens, dim, heads=config.heads, dropout=config.dropout)
            for _ in range(config.layers)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(dim * tokens),
            nn.Dropout(config.dropout),
            nn.Linear(dim * tokens, config.hidden),
            nn.GELU(),
        )
        self.verdict = nn.Linear(config.hidden, 1, bias=False)
        nn.init.zeros_(self.verdict.weight)

    def tokens_there(self, mask: Tensor) -> Tensor:
        """Which tokens are present: (B, T) bool, of modalities `mask` (B, M)."""
        return torch.cat((mask, mask[:, self._first] & mask[:, self._second]), -1)

    def read(self, x: Tensor, mask: Tensor) -> Tensor:
        """The reading of every token.

        Args:
            x: (B, M, D); what absent modalities hold is ignored, NaN included.
            mask: (B, M) bool.

        Returns:
            (B, T): weighted sums of the modalities, then the cosines of the pairs.
        """
        x_BMD = torch.where(mask[..., None], x, torch.zeros_like(x))
        sums_BM = (x_BMD * self.line).sum(-1) + self.bias
        return torch.cat((sums_BM, agreement(x_BMD)), -1)

    def evidence(self, readings: Tensor) -> Tensor:
        """Log-odds (B, T) in readings (B, T), each token's taken alone."""
        return self._curve(self._state(readings))

    def _state(self, readings: Tensor) -> Tensor:
        slope, turn = self.curve[:, 2], self.curve[:, 3]
        return (slope * (readings - turn)).sigmoid()

    def _curve(self, state_BT: Tensor) -> Tensor:
        low, rise = self.curve[:, 0], self.curve[:, 1]
        return low + (state_BT * rise.expm1()).log1p()

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        tree_logit: Tensor,
        readings: Tensor | None = None,
        reliability: Tensor | None = None,
    ) -> FusionOutput:
        """Fuses a batch of cases.

        Args:
            x: (B, M, D) float32 embeddings; values of absent modalities are ignored,
                NaN included.
            mask: (B, M) bool, True where a modality is present.
            tree_logit: (B,) log-odds of the tabular model, or of the prior.
            readings: (B, T), as `read` gives them; while fitting, those of lines
                that never saw the case.
            reliability: (T,) in [0, 1], how far each token is trusted of late.

        Returns:
            A FusionOutput. Where no media are present `logit` is `tree_logit` itself.
        """
        there_BT = self.tokens_there(mask)
        z_BT = self.read(x, mask) if readings is None else readings
        state_BT = self._state(z_BT)
        evidence_BT = self._curve(state_BT) * there_BT

        tree = tree_logit.clamp(-12, 12)
        trusted_BT = evidence_BT
        if reliability is not None:
            trusted_BT = reliability * evidence_BT
            state_BT = reliability * (state_BT - 0.5) + 0.5
        seen_BT2 = torch.stack((2 * state_BT - 1, trusted_BT / 4), -1)
        tabular = torch.stack((torch.tanh(tree / 4), tree / 12), -1)
        seen_BT2 = torch.cat((tabular[:, None], seen_BT2[:, 1:]), 1)
        tokens_BTK = torch.einsum("bti,tik->btk", seen_BT2, self.enter) + self.present
        tokens_BTK = torch.where(there_BT[..., None], tokens_BTK, self.missing)
        gates_BT = there_BT.to(x.dtype)
        for block in self.blocks:
            tokens_BTK, gates_BT = block(tokens_BTK, there_BT)

        guess_BT = (tokens_BTK * self.expect).sum(-1)
        share_BT = gates_BT * self.weight
        added_BT = share_BT * trusted_BT + torch.where(
            there_BT, torch.zeros_like(guess_BT), self.trust_guess * guess_BT
        )
        weighed = torch.where(
            there_BT[..., None], gates_BT[..., None] * tokens_BTK, tokens_BTK
        )
        interplay = self.verdict(self.head(weighed.flatten(1))).squeeze(-1)
        media = mask[:, 1:].any(-1)
        logit = torch.where(
            media, tree_logit + added_BT[:, 1:].sum(-1) + interplay, tree_logit
        )
        x_BMD = torch.where(mask[..., None], x, torch.zeros_like(x))
        fused_BD = unit((gates_BT[:, : mask.shape[1], None] * x_BMD).sum(1))
        if reliability is not None:
            gates_BT = gates_BT * reliability
        return FusionOutput(logit, gates_BT, fused_BD, share_BT * evidence_BT, guess_BT)
