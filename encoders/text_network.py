"""What stands on a transformer's states: n-grams beside them, and one line to D.

Legend: `B` batch, `H` width of the states, `R` columns they come from, `S` slots for
n-grams, `K` width of their basis, `D` shared width. No row of a batch sees another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from encoders.adapter import Adapter
from encoders.backbone import Backbone
from encoders.ngrams import CHAR_SLOTS, SLOTS

#: Hashed n-grams: characters in the lower half, words and shapes in the upper.
BUCKETS = 2**15
#: Directions kept of the n-grams; more when the vectors are wider than this.
BASIS_WIDTH = 256
#: Shares of the learning rate: of an adapter, of a transformer's last layer, and of
#: each layer against the one above it.
ADAPTER_SHARE = 0.5
TOP_SHARE = 0.1
SHARE_DOWN = 0.9
#: Under this a spread is none: the state is the same for every text.
LEAST_SPREAD = 1e-6


class GramBasis(nn.Module):
    """N-gram rows (B, 2S) to K numbers: tf-idf, each kind of unit length, then a basis.

    Before `encoders.text_start` settles them, every n-gram weighs alike and the basis
    is random signs, which keep angles roughly.
    """

    idf: torch.Tensor
    basis: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        signs = torch.randint(0, 2, (BUCKETS, width), dtype=torch.int8) * 2 - 1
        self.register_buffer("idf", torch.ones(BUCKETS))
        # Half precision on disk and in memory; sums are of float32.
        self.register_buffer("basis", signs.half() / width**0.5)

    def weigh(self, rows_B2S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Buckets, int64 (B, S), and tf-idf with each kind of unit length, (B, S)."""
        bucket = rows_B2S[:, :SLOTS].long()
        weight = rows_B2S[:, SLOTS:] * self.idf[bucket]
        parts = weight.split([CHAR_SLOTS, SLOTS - CHAR_SLOTS], dim=1)
        unit = [functional.normalize(part, dim=1) for part in parts]
        return bucket, torch.cat(unit, dim=1)

    def forward(self, rows_B2S: torch.Tensor) -> torch.Tensor:
        """Float32 (B, K)."""
        bucket, weight = self.weigh(rows_B2S)
        used, at = bucket.unique(return_inverse=True)
        basis = self.basis[used].float()
        out: torch.Tensor = functional.embedding_bag(
            at, basis, mode="sum", per_sample_weights=weight
        )
        return out


class TextNetwork(nn.Module):
    """Prepared rows to vectors (B, D): both readings of a text, then one line.

    Rows are (B, R + 2S): R token ids when the transformer or an adapter of it learns
    with this network, otherwise the R = H mean states it gave once; then n-grams.

    Args:
        backbone: the transformer; its weights belong to this network only with `tune`
            "full".
        width: D.
        ngrams: whether n-grams stand beside the states; without, rows are (B, R).
        tune: "none", "adapter" or "full".
        rank: of the adapter.

    Attributes:
        hidden: H.
        read: R, columns of a row before the n-grams.
    """

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, backbone: Backbone, *, width: int, ngrams: bool, tune: str, rank: int
    ) -> None:
        super().__init__()
        self.hidden = backbone.hidden
        self.read = self.hidden if tune == "none" else backbone.max_tokens
        self._backbone = backbone
        self.tune = tune
        self.register_buffer("center", torch.zeros(self.hidden))
        self.register_buffer("scale", torch.ones(self.hidden))
        basis = max(BASIS_WIDTH, width) if ngrams else 0
        self.grams = GramBasis(basis) if ngrams else None
        self.line = nn.Linear(self.hidden + basis, width, bias=False)
        with torch.no_grad():
            self.line.weight.zero_()
            nn.init.orthogonal_(self.line.weight[:, : self.hidden])
        self.adapter = Adapter(backbone.model, rank=rank) if tune == "adapter" else None
        self.transformer = backbone.model if tune == "full" else None

    def train(self, mode: bool = True) -> TextNetwork:
        """See `Module.train`; what was made of the weights for serving is forgotten."""
        self._backbone.renew()
        super().train(mode)
        return self

    def _apply(self, fn: Callable[..., torch.Tensor], recurse: bool = True) -> Self:
        """See `Module._apply`: the transformer goes along to another device."""
        self._backbone.model._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """The weights that learn, and which share of the learning rate they take.

        The line takes all of it, an adapter half; a transformer a tenth in its last
        layer and less in each one below. Its table of words stays as it is.
        """
        found = [(list(self.line.parameters()), 1.0)]
        if self.adapter is not None:
            found.append((list(self.adapter.parameters()), ADAPTER_SHARE))
        if self.transformer is not None:
            found += layer_rates(self.transformer)
        return found

    def split(
        self, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the states come from (B, R), buckets (B, S) and amounts (B, S)."""
        slots = (rows.shape[1] - self.read) // 2
        first, bucket, amount = rows.split([self.read, slots, slots], dim=1)
        return first, bucket, amount

    def states(self, rows: torch.Tensor) -> torch.Tensor:
        """The mean states of prepared rows, float32 (B, H)."""
        first = rows[:, : self.read]
        return first if self.tune == "none" else self._backbone.states(first.long())

    def standard(self, states_BH: torch.Tensor) -> torch.Tensor:
        """The states, each against its usual value and spread."""
        return (states_BH - self.center) / self.scale

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Vectors (B, D), not yet of unit length."""
        found = self.standard(self.states(rows))
        if self.grams is not None:
            found = torch.cat([found, self.grams(rows[:, self.read :])], dim=1)
        out: torch.Tensor = self.line(found)
        return out


def layer_rates(transformer: nn.Module) -> list[tuple[list[nn.Parameter], float]]:
    """The weights of each layer, deepest first, and what share of the rate it takes.

    A layer is what carries a number in its name; embeddings are left out.
    """
    layers: dict[int, list[nn.Parameter]] = {}
    tables = {
        id(weight)
        for name, module in transformer.named_modules()
        for weight in module.parameters(recurse=False)
        if isinstance(module, nn.Embedding) or name.startswith("embeddings")
    }
    for name, weight in transformer.named_parameters():
        number = re.search(r"\.(\d+)\.", name)
        if id(weight) not in tables and number is not None:
            layers.setdefault(int(number.group(1)), []).append(weight)
    top = max(layers, default=0)
    return [
        (weights, TOP_SHARE * SHARE_DOWN ** (top - number))
        for number, weights in sorted(layers.items())
    ]
