"""One batch of cases turned into one loss, and held-out cases turned into a verdict.

Legend: `N` cases, `M` modalities, `D` width, `P` rows of a batch that hold an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from encoders.base import MODALITIES
from encoders.objectives import ContrastiveLoss, label_loss, label_weights
from encoders.trainable import TrainableEncoder

Pair = tuple[str, str]

#: A pair's held-out gain over chance from which on it counts in full.
FULL_TRUST_GAIN = 0.02
#: What a pair that tells nothing still counts, so that a slow one can start.
LEAST_TRUST = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Cases:
    """What encoders learn from.

    Attributes:
        prepared: per modality, one row per distinct item, ready for the network.
        rows: int (N, 4) in the order of `MODALITIES`; the item, or -1 for none.
        labels: int (N,), 0 or 1.
    """

    prepared: Mapping[str, torch.Tensor]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One modality of one batch.

    Attributes:
        at: int (P,), which rows of the batch have it.
        item: int (P,), which item it is.
        vectors: unit rows (P, D), with gradients.
    """

    at: NDArray[np.int64]
    item: NDArray[np.int64]
    vectors: torch.Tensor


class Lesson:
    """Two aims in one loss: find the partner of a case, and tell its label.

    Attributes:
        heads: one line per modality that tells the label; thrown away afterwards.
        gain: per pair of modalities, how far its held-out loss lies below chance, as
            a share of chance; 0 says the two tell nothing of each other.
        trust: per pair, its weight in the loss, from its gain: pairs that only share
            noise would otherwise be learnt by heart.
    """

    def __init__(
        self,
        encoders: Mapping[str, TrainableEncoder],
        cases: Cases,
        *,
        temperature: float,
        label_part: float,
    ) -> None:
        self.encoders = {m: encoders[m] for m in MODALITIES if m in cases.prepared}
        self.cases = cases
        self.label_part = label_part
        self.contrast = ContrastiveLoss(temperature)
        self.weights = label_weights(cases.labels)
        self.pairs: list[Pair] = list(combinations(self.encoders, 2))
        self.gain: dict[Pair, float] = {}
        self.trust: dict[Pair, float] = dict.fromkeys(self.pairs, 1.0)
        self.heads = nn.ModuleDict(
            {m: nn.Linear(e.width, 1) for m, e in self.encoders.items()}
        )

    def loss(
        self, batch: NDArray[np.int64], changes: torch.Generator
    ) -> torch.Tensor | None:
        """The loss of these cases with items changed a little; None if none counts."""
        seen = self._see(batch, changes)
        parts = [self.label_part * part for part in self._told(batch, seen)]
        for pair in self.pairs:
            found = self._partners(pair, batch, seen)
            if found is not None:
                parts.append(self.trust[pair] * found[0])
        return torch.stack(parts).sum() if parts else None

    def judge(self, held_out: NDArray[np.int64], batch: int) -> float:
        """Held-out loss, lower is better; renews `gain` and `trust`.

        A pair never counts worse than chance, so noise cannot choose the weights.
        """
        told: list[float] = []
        found: dict[Pair, list[tuple[float, float]]] = {}
        self.train(on=False)
        with torch.no_grad():
            for start in range(0, len(held_out), batch):
                cases = held_out[start : start + batch]
                seen = self._see(cases, None)
                told += [float(part) for part in self._told(cases, seen)]
                for pair in self.pairs:
                    partners = self._partners(pair, cases, seen)
                    if partners is not None:
                        found.setdefault(pair, []).append(
                            (float(partners[0]), partners[1])
                        )
        self.train(on=True)
        for pair, losses in found.items():
            loss, chance = np.mean(losses, axis=0).tolist()
            gain = max(0.0, 1.0 - loss / chance) if chance > 0 else 0.0
            self.gain[pair] = gain
            self.trust[pair] = min(1.0, max(LEAST_TRUST, gain / FULL_TRUST_GAIN))
        label_part = self.label_part * float(np.mean(told)) if told else 0.0
        return label_part - sum(self.gain.values())

    def train(self, *, on: bool) -> None:
        """Switch every network between training and use."""
        for encoder in self.encoders.values():
            encoder.network.train(on)

    def _see(
        self, batch: NDArray[np.int64], changes: torch.Generator | None
    ) -> dict[str, Seen]:
        """Per modality that two or more cases have: their vectors, each item once."""
        seen = {}
        for modality, encoder in self.encoders.items():
            item = self.cases.rows[batch, MODALITIES.index(modality)]
            at = np.flatnonzero(item >= 0)
            if len(at) < 2:
                continue
            distinct, back = np.unique(item[at], return_inverse=True)
            x = self.cases.prepared[modality][torch.from_numpy(distinct)]
            if changes is not None:
                x = encoder.augment(x, changes)
            unit = functional.normalize(encoder.forward(x), dim=1)
            vectors = unit[torch.from_numpy(back)]
            seen[modality] = Seen(at=at, item=item[at], vectors=vectors)
        return seen

    def _told(
        self, batch: NDArray[np.int64], seen: Mapping[str, Seen]
    ) -> list[torch.Tensor]:
        labels = self.cases.labels[batch]
        return [
            label_loss(self.heads[m](s.vectors)[:, 0], labels[s.at], self.weights)
            for m, s in seen.items()
        ]

    def _partners(
        self, pair: Pair, batch: NDArray[np.int64], seen: Mapping[str, Seen]
    ) -> tuple[torch.Tensor, float] | None:
        """The pair's loss over the cases that hold both, and the loss of chance.

        In a case labelled 1 the modalities may well contradict each other: only the
        others teach what belongs together.
        """
        if pair[0] not in seen or pair[1] not in seen:
            return None
        a, b = seen[pair[0]], seen[pair[1]]
        both, in_a, in_b = np.intersect1d(a.at, b.at, return_indices=True)
        calm = self.cases.labels[batch][both] == 0
        in_a, in_b = in_a[calm], in_b[calm]
        if len(in_a) < 2:
            return None
        return self.contrast(
            a.vectors[in_a], b.vectors[in_b], a.item[in_a], b.item[in_b]
        )
