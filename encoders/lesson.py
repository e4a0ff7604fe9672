"""A batch of cases turned into a loss, and unseen items turned into a verdict.

Legend: `N` cases, `D` width, `P` cases of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from encoders.base import MODALITIES
from encoders.device import short_sums
from encoders.objectives import ContrastiveLoss
from encoders.trainable import CHUNK_ROWS, TrainableEncoder
from encoders.unseen import Pair, split_by_item

#: A pair is believed when its gain is this large, and this many standard errors.
LEAST_GAIN = 0.01
SURE_ERRORS = 3.0


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


class Lesson:
    """Find the partner of a case among those of other cases, one pair at a time.

    In a case labelled 1 the modalities may well contradict each other: only the
    others teach what belongs together.

    Attributes:
        pairs: pairs of modalities that two or more cases hold.
        contrast: the loss of each pair; its temperature learns, too.
        gain: per pair, how far its loss on unseen items lies below chance, as a share
            of chance; 0 says the two tell nothing of each other. A pair that cannot
            be judged has none.
    """

    def __init__(
        self,
        encoders: Mapping[str, TrainableEncoder],
        cases: Cases,
        *,
        temperature: float,
        held_out: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.encoders = {m: encoders[m] for m in MODALITIES if m in cases.prepared}
        self.cases = cases
        self.device = device
        split = split_by_item(cases.rows, cases.labels, held_out, seed)
        self._learn = split.learn
        self._judges = split.judge
        self.gain: dict[Pair, float] = {}
        every = combinations(self.encoders, 2)
        self.pairs: list[Pair] = [p for p in every if len(self.cases_of(p)) > 1]
        self.contrast = nn.ModuleDict(
            {"-".join(pair): ContrastiveLoss(temperature) for pair in self.pairs}
        ).to(device)

    def cases_of(self, pair: Pair) -> NDArray[np.intp]:
        """Cases that teach the pair: they hold both, and are not labelled 1."""
        columns = [MODALITIES.index(modality) for modality in pair]
        both = (self._learn[:, columns] >= 0).all(axis=1)
        return np.flatnonzero(both & (self.cases.labels == 0))

    def rates(self, pairs: Iterable[Pair]) -> list[tuple[list[nn.Parameter], float]]:
        """The weights that learn from these pairs, ready for gradients.

        Beside each group, which share of the learning rate it takes.
        """
        pairs = list(pairs)
        contrast = [w for p in pairs for w in self.contrast["-".join(p)].parameters()]
        found = [(contrast, 1.0)]
        for modality in sorted({modality for pair in pairs for modality in pair}):
            self.encoders[modality].network.train()
            found += self.encoders[modality].rates()
        for weights, _ in found:
            for weight in weights:
                weight.requires_grad = True
        return found

    def loss(
        self, pair: Pair, batch: NDArray[np.intp], changes: torch.Generator
    ) -> torch.Tensor:
        """The pair's loss over these cases, with their items changed a little."""
        sides = []
        for modality in pair:
            item = self._learn[batch, MODALITIES.index(modality)]
            distinct, back = np.unique(item, return_inverse=True)
            encoder = self.encoders[modality]
            x = self.cases.prepared[modality][torch.from_numpy(distinct)]
            x = encoder.augment(x, changes).to(self.device)
            with short_sums(self.device):
                vectors = encoder.forward(x)
            unit = functional.normalize(vectors.float())
            sides.append((item, unit[torch.from_numpy(back).to(self.device)]))
        (item_a, a), (item_b, b) = sides
        loss: torch.Tensor = self.contrast["-".join(pair)](a, b, item_a, item_b)[0]
        return loss.mean()

    def judge(self, pairs: Iterable[Pair], batch: int) -> None:
        """Renews the gain of these pairs, on items that were never learnt from."""
        for pair in pairs:
            chosen = self._judges[pair]
            if len(chosen) > 1:
                with torch.no_grad():
                    self.gain[pair] = self._gain(pair, chosen, batch)

    def _gain(self, pair: Pair, chosen: NDArray[np.int64], batch: int) -> float:
        """How far below chance the pair's loss on these cases lies, as a share of it.

        Returns: 0 when that could be luck.
        """
        sides = [self._vectors(m, chosen) for m in pair]
        saved, chances = [], []
        for start in range(0, len(chosen), batch):
            part = slice(start, start + batch)
            (item_a, a), (item_b, b) = ((i[part], v[part]) for i, v in sides)
            loss, chance = self.contrast["-".join(pair)](a, b, item_a, item_b)
            saved.append(chance - loss.cpu().numpy())
            chances.append(chance)
        below, chance_N = np.concatenate(saved), np.concatenate(chances)
        if chance_N.mean() <= 0:
            return 0.0
        gain = float(below.mean() / chance_N.mean())
        error = float(below.std() / chance_N.mean() / len(below) ** 0.5)
        return gain if gain >= max(LEAST_GAIN, SURE_ERRORS * error) else 0.0

    def _vectors(
        self, modality: str, chosen: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], torch.Tensor]:
        """Items of the cases and their unit vectors, as they are in use."""
        item = self.cases.rows[chosen, MODALITIES.index(modality)]
        distinct, back = np.unique(item, return_inverse=True)
        x = self.cases.prepared[modality][torch.from_numpy(distinct)]
        encoder = self.encoders[modality]
        encoder.network.eval()
        with short_sums(self.device):
            parts = [encoder.forward(p.to(self.device)) for p in x.split(CHUNK_ROWS)]
        encoder.network.train()
        unit = functional.normalize(torch.cat(parts).float(), dim=1)
        return item, unit[torch.from_numpy(back).to(self.device)]
