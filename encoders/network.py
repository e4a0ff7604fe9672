"""The small networks: a convolutional one for pictures and log-mels, one for rows.

Legend: `B` batch, `C` channels, `H` `W` height and width, `F` features, `D` width.
Nothing here mixes rows of a batch, so a vector never depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)
#: Numbers that stand for one category.
CATEGORY_WIDTH = 8


def seeded(build: Callable[[], N], seed: int) -> N:
    """What `build` makes with this seed; the process's own generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class ConvBlock(nn.Sequential):
    """3x3 convolution, group normalisation, activation; `stride` 2 halves H and W."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(8, outputs),
            nn.SiLU(),
        )


class SmallCnn(nn.Module):
    """Float (B, C, H, W) to (B, D): five blocks, one grid of averages, one line.

    Args:
        channels: C.
        width: D.
        grid: how many averages are kept along H and W; 1 forgets the position.
    """

    def __init__(self, *, channels: int, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ConvBlock(channels, 16, stride=2),
            ConvBlock(16, 32, stride=2),
            ConvBlock(32, 64, stride=2),
            ConvBlock(64, 96, stride=1),
            ConvBlock(96, 128, stride=2),
        )
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.line = nn.Linear(128 * grid[0] * grid[1], width)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Vectors (B, D), not yet of unit length."""
        x = self.blocks(x_BCHW)
        if x.shape[2:] != self.pool.output_size:  # else each average is of one number
            x = self.pool(x)
        out: torch.Tensor = self.line(x.flatten(1))
        return out


class PixelCnn(nn.Module):
    """Pictures as uint8 or float 0..255, normalised to about -1..1, then a network."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Vectors (B, D), not yet of unit length."""
        out: torch.Tensor = self.body(x_BCHW.float() / 127.5 - 1.0)
        return out


class RowMlp(nn.Module):
    """Raw feature rows (B, F): robust scaling that is kept with the weights, then MLP.

    A value becomes `sign(z) * log1p(|z|)` of `z = (x - center) / scale`, held within
    -10..10; a missing value (NaN) becomes 0, which is what the median gives.

    Args:
        features: F.
        width: D.
        hidden: width of the inner layers.
        categories: per feature how many categories it numbers from 0 on, 0 for a
            quantity; () for quantities alone. What is none of them shares a row of
            the table with what is missing.
    """

    center: torch.Tensor
    scale: torch.Tensor
    sizes: torch.Tensor
    first: torch.Tensor

    def __init__(
        self, *, features: int, width: int, hidden: int, categories: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        sizes = list(categories) or [0] * features
        self._coded = [at for at, size in enumerate(sizes) if size]
        self._plain = [at for at, size in enumerate(sizes) if not size]
        known = torch.tensor([sizes[at] for at in self._coded], dtype=torch.int64)
        self.register_buffer("sizes", known, persistent=False)
        self.register_buffer(
            "first", (known + 1).cumsum(0) - known - 1, persistent=False
        )
        self.table: nn.Embedding | None = None
        if self._coded:
            rows = int((known + 1).sum())
            self.table = nn.Embedding(rows, CATEGORY_WIDTH)
        inputs = len(self._plain) + CATEGORY_WIDTH * len(self._coded)
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, width),
        )

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        """Vectors (B, D), not yet of unit length."""
        z = ((x_BF - self.center) / self.scale).nan_to_num(nan=0.0)
        z = (z.sign() * z.abs().log1p()).clamp(-10.0, 10.0)
        if self.table is not None:
            code_BK = x_BF[:, self._coded]
            known = (code_BK >= 0) & (code_BK < self.sizes)
            known &= code_BK == code_BK.floor()
            row_BK = torch.where(known, code_BK + 1, 0.0).long()
            codes = self.table(row_BK + self.first).flatten(1)
            z = torch.cat([z[:, self._plain], codes], dim=1)
        out: torch.Tensor = self.layers(z)
        return out
