"""The gated cross-attention block, and the agreement of pairs of modalities.

Shapes: `B` batch, `M` modalities, `D` width of a token, `P` pairs of modalities.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def pairs_of(modalities: int) -> tuple[tuple[int, int], ...]:
    """Gives every pair of modality positions, first below second, in order."""
    return tuple((i, j) for i in range(modalities) for j in range(i + 1, modalities))


def unit(rows: Tensor) -> Tensor:
    """Scales rows to unit length; a row of zeros stays a row of zeros.

    Args:
        rows: (..., D).

    Returns:
        (..., D), each row of length 1 or 0.
    """
    return rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)


class Agreement(nn.Module):
    """How well each pair of modalities agrees: a cosine, 0 where one is missing.

    Args:
        modalities: M.
    """

    def __init__(self, modalities: int) -> None:
        super().__init__()
        pairs = pairs_of(modalities)
        self.first: Tensor
        self.second: Tensor
        self.register_buffer(
            "first", torch.tensor([i for i, _ in pairs], dtype=torch.long), False
        )
        self.register_buffer(
            "second", torch.tensor([j for _, j in pairs], dtype=torch.long), False
        )

    def forward(
        self, x_BMD: Tensor, mask_BM: Tensor, meet: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compares the two modalities of every pair.

        Args:
            x_BMD: (B, M, D) centred embeddings.
            mask_BM: (B, M) bool, True where a modality is present.
            meet: (2, P, D, R) where the first and the second of a pair are projected
                to be compared.

        Returns:
            Cosines (B, P), exactly 0 where either is missing; and both-present
            (B, P) bool.
        """
        first = torch.einsum("bpd,pdr->bpr", x_BMD[:, self.first], meet[0])
        second = torch.einsum("bpd,pdr->bpr", x_BMD[:, self.second], meet[1])
        cosine = (unit(first) * unit(second)).sum(-1)
        both = mask_BM[:, self.first] & mask_BM[:, self.second]
        return torch.where(both, cosine, torch.zeros_like(cosine)), both


class GatedCrossAttention(nn.Module):
    """Lets every modality listen to the other present ones, and weighs what it says.

    Each token attends to the *other* present modalities, never to itself. A sigmoid
    gate per modality, from the token and what it heard, scales what leaves the
    block; the gate of an absent modality is exactly 0.

    Args:
        modalities: M.
        width: D, divisible by `heads`.
        heads: attention heads.
        dropout: applied to what attention and the feed-forward add.
    """

    def __init__(
        self, modalities: int, width: int, *, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.heard = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.gate = nn.Linear(2 * width, 1, bias=False)
        nn.init.zeros_(self.gate.weight)
        self.gate_bias = nn.Parameter(torch.zeros(modalities))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BMD: Tensor, mask_BM: Tensor) -> tuple[Tensor, Tensor]:
        """Updates the tokens and gates them.

        Args:
            tokens_BMD: (B, M, D). The token of an absent modality is a stand-in: it
                may listen, it is never heard.
            mask_BM: (B, M) bool, True where a modality is present.

        Returns:
            Tokens (B, M, D) and gates (B, M) in [0, 1], 0 for the absent. A token
            with nobody to listen to hears zeros, so no row can turn into NaN.
        """
        rows, modalities, width = tokens_BMD.shape
        heads, head_width = self.heads, width // self.heads
        query, key, value = (
            self.query_key_value(self.norm(tokens_BMD))
            .view(rows, modalities, 3, heads, head_width)
            .permute(2, 0, 3, 1, 4)
        )
        itself = torch.eye(modalities, dtype=torch.bool, device=mask_BM.device)
        audible = (mask_BM[:, None, :] & ~itself)[:, None]
        scores = query @ key.transpose(-1, -2) / math.sqrt(head_width)
        scores = scores.masked_fill(~audible, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).masked_fill(~audible, 0.0)
        heard = (weights @ value).transpose(1, 2).reshape(rows, modalities, width)
        heard = self.heard(heard) * audible.any(-1)[:, 0, :, None]

        tokens = tokens_BMD + self.dropout(heard)
        tokens = tokens + self.dropout(self.feed(self.feed_norm(tokens)))
        open_BM = self.gate(torch.cat((tokens_BMD, heard), -1)).squeeze(-1)
        gates = (open_BM + self.gate_bias).sigmoid()
        return tokens, gates * mask_BM
