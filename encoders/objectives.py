"""The loss encoders learn by: who belongs together.

Legend: `P` pairs of one batch, `B` rows, `D` width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

#: A learnt temperature stays within these.
TEMPERATURES = (0.02, 1.0)


class ContrastiveLoss(nn.Module):
    """InfoNCE both ways: each row's partner against the other rows' partners.

    Args:
        temperature: divides the similarities; smaller is stricter. It is learnt, from
            this start, and stays within `TEMPERATURES`.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(
        self,
        a_PD: torch.Tensor,
        b_PD: torch.Tensor,
        item_a: NDArray[np.int64],
        item_b: NDArray[np.int64],
    ) -> tuple[torch.Tensor, NDArray[np.float64]]:
        """The loss of each row, and what guessing would lose.

        Args:
            a_PD: unit rows of one modality.
            b_PD: unit rows of the other; row i belongs to row i.
            item_a: which item each row of `a_PD` is; another row with the same item
                is a second partner, not a stranger, and is left out.
            item_b: the same for `b_PD`.

        Returns: two of (P,), mean of both directions.
        """
        low, high = (-math.log(t) for t in reversed(TEMPERATURES))
        similar = a_PD @ b_PD.T * self.sharpness.clamp(low, high).exp()
        same = (item_a[:, None] == item_a) | (item_b[:, None] == item_b)
        np.fill_diagonal(same, val=False)
        similar = similar.masked_fill(torch.from_numpy(same).to(a_PD.device), -math.inf)
        partner = torch.arange(len(a_PD), device=a_PD.device)
        loss = functional.cross_entropy(similar, partner, reduction="none")
        back = functional.cross_entropy(similar.T, partner, reduction="none")
        return (loss + back) / 2, np.log((~same).sum(axis=1))
