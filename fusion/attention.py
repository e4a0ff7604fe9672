"""The gated cross-attention block, and the agreement of pairs of modalities.

Shapes: `B` batch, `M` modalities, `P` pairs of them, `T` tokens, `D` width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fusion.config import pairs_of


def unit(rows: Tensor) -> Tensor:
    """Scales rows to unit length; a row of zeros stays a row of zeros.

    Args:
        rows: (..., D).

    Returns:
        (..., D), each row of length 1 or 0.
    """
    return rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def agreement(x_BMD: Tensor) -> Tensor:
    """The cosine of every pair of modalities, 0 where one of them is all zeros.

    Args:
        x_BMD: (B, M, D).

    Returns:
        (B, P) in the order of `pairs_of`.
    """
    unit_BMD = unit(x_BMD)
    first, second = zip(*pairs_of(x_BMD.shape[1]), strict=True)
    return (unit_BMD[:, list(first)] * unit_BMD[:, list(second)]).sum(-1)


class GatedCrossAttention(nn.Module):
    """Lets every token listen to the other present ones, and weighs what it says.

    Each token attends to the *other* present tokens, never to itself. A sigmoid gate
    per token, from the token and what it heard, scales what leaves the block; the
    gate of an absent one is exactly 0.

    Args:
        tokens: T.
        width: D, divisible by `heads`.
        heads: attention heads.
        dropout: applied to what attention and the feed-forward add.
    """

    def __init__(self, tokens: int, width: int, *, heads: int, dropout: float) -> None:
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
        self.gate_bias = nn.Parameter(torch.zeros(tokens))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Updates the tokens and gates them.

        Args:
            tokens_BTD: (B, T, D). The token of what is absent is a stand-in: it may
                listen, it is never heard.
            mask_BT: (B, T) bool, True where present.

        Returns:
            Tokens (B, T, D) and gates (B, T) in [0, 1], 0 for the absent. A token
            with nobody to listen to hears zeros, so no row can turn into NaN.
        """
        rows, count, width = tokens_BTD.shape
        heads, head_width = self.heads, width // self.heads
        query, key, value = (
            self.query_key_value(self.norm(tokens_BTD))
            .view(rows, count, 3, heads, head_width)
            .permute(2, 0, 3, 1, 4)
        )
        itself = torch.eye(count, dtype=torch.bool, device=mask_BT.device)
        audible = (mask_BT[:, None, :] & ~itself)[:, None]
        scores = query @ key.transpose(-1, -2) / math.sqrt(head_width)
        scores = scores.masked_fill(~audible, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).masked_fill(~audible, 0.0)
        heard = (weights @ value).transpose(1, 2).reshape(rows, count, width)
        heard = self.heard(heard) * audible.any(-1)[:, 0, :, None]

        tokens = tokens_BTD + self.dropout(heard)
        tokens = tokens + self.dropout(self.feed(self.feed_norm(tokens)))
        open_BT = self.gate(torch.cat((tokens_BTD, heard), -1)).squeeze(-1)
        gates = (open_BT + self.gate_bias).sigmoid()
        return tokens, gates * mask_BT
