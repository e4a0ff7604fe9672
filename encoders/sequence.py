"""The last events of an entity as one vector: an LSTM, then attention over its states.

Legend: `B` batch, `T` events, oldest first, `F` features, `H` hidden, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from encoders.network import RowMlp

HEADS = 4


class SequenceNet(nn.Module):
    """Raw feature rows (B, T, F) to (B, D), read off the newest event.

    The LSTM carries the order; attention lets the newest event ask any earlier one,
    by how many events ago it was.

    Args:
        features: F.
        steps: T.
        width: D.
        hidden: H, a multiple of 4.
        categories: see `RowMlp`.
    """

    def __init__(
        self,
        *,
        features: int,
        steps: int,
        width: int,
        hidden: int,
        categories: Sequence[int],
    ) -> None:
        super().__init__()
        self.rows = RowMlp(
            features=features, width=hidden, hidden=hidden, categories=categories
        )
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.age = nn.Embedding(steps, hidden)
        self.attention = nn.TransformerEncoderLayer(
            hidden,
            HEADS,
            dim_feedforward=2 * hidden,
            dropout=0.0,
            batch_first=True,
            norm_first=True,
        )
        self.line = nn.Linear(2 * hidden, width)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """Vectors (B, D), not yet of unit length.

        Args:
            x_BTF: rows after the newest event are NaN throughout.
        """
        there_BT = ~x_BTF.isnan().all(dim=2)
        place_T = torch.arange(x_BTF.shape[1], device=x_BTF.device)
        # an event of missing values alone still has its place
        newest_B = (there_BT * place_T).amax(dim=1)
        there_BT = place_T <= newest_B[:, None]
        row_BTH = self.rows(x_BTF.flatten(0, 1)).unflatten(0, x_BTF.shape[:2])
        state_BTH, _ = self.lstm(row_BTH)
        age_BT = (newest_B[:, None] - place_T).clamp(min=0)
        asked_BTH = self.attention(
            state_BTH + self.age(age_BT), src_key_padding_mask=~there_BT
        )
        each_B = torch.arange(len(x_BTF), device=x_BTF.device)
        newest = torch.cat(
            [asked_BTH[each_B, newest_B], row_BTH[each_B, newest_B]], dim=1
        )
        out: torch.Tensor = self.line(newest)
        return out
