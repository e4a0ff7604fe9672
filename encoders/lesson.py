"""One batch of cases turned into one loss, and unseen items turned into a verdict.

Legend: `N` cases, `D` width, `P` rows of a batch that hold an item.
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
from encoders.objectives import ContrastiveLoss, label_loss, label_weights
from encoders.trainable import CHUNK_ROWS, TrainableEncoder
from encoders.unseen import Pair, split_by_item

#: A pair's gain over chance, on items never seen, from which on it counts in full.
FULL_TRUST_GAIN = 0.02
#: What a pair that tells nothing yet still counts, so that a slow one can start.
LEAST_TRUST = 0.05
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
    """Find the partner of a case; and, when asked, tell its label.

    Attributes:
        extra: what learns beside the networks and is thrown away afterwards: one line
            per modality that tells the label, one temperature per pair.
        gain: per pair of modalities, how far its loss on unseen items lies below
            chance, as a share of chance; 0 says the two tell nothing of each other.
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
        held_out: float,
        seed: int,
    ) -> None:
        self.encoders = {m: encoders[m] for m in MODALITIES if m in cases.prepared}
        self.cases = cases
        self.label_part = label_part
        self.weights = label_weights(cases.labels)
        self.pairs: list[Pair] = list(combinations(self.encoders, 2))
        split = split_by_item(cases.rows, cases.labels, held_out, seed)
        self.learn = split.learn
        self.judges = {p: c for p, c in split.judge.items() if p in self.pairs}
        self.gain: dict[Pair, float] = {}
        self.trust: dict[Pair, float] = dict.fromkeys(self.pairs, 1.0)
        self._heads = nn.ModuleDict(
            {m: nn.Linear(e.width, 1) for m, e in self.encoders.items()}
        )
        self._contrast = nn.ModuleDict(
            {"-".join(pair): ContrastiveLoss(temperature) for pair in self.pairs}
        )
        self.extra = nn.ModuleList([self._heads, self._contrast])

    def useful(self) -> NDArray[np.int64]:
        """Cases with something to learn from: two modalities, or one and its label."""
        needed = 1 if self.label_part else 2
        live = [MODALITIES.index(m) for m in self._live()]
        return np.flatnonzero((self.learn[:, live] >= 0).sum(axis=1) >= needed)

    def loss(
        self, batch: NDArray[np.int64], changes: torch.Generator
    ) -> torch.Tensor | None:
        """The loss of these cases with items changed a little; None if none counts."""
        seen = self._see(batch, changes)
        parts = []
        if self.label_part:
            parts = [self.label_part * part for part in self._told(batch, seen)]
        for pair, trust in self.trust.items():
            found = self._partners(pair, batch, seen) if trust else None
            if found is not None:
                parts.append(trust * found.mean())
        return torch.stack(parts).sum() if parts else None

    def judge(self, batch: int) -> float:
        """Minus the sum of gains on unseen items; renews `gain` and `trust`.

        A pair never counts worse than chance, so noise cannot choose the weights.
        """
        self.train(on=False)
        with torch.no_grad():
            for pair, chosen in self.judges.items():
                if self.trust[pair] and len(chosen) > 1:
                    self.gain[pair] = self._gain(pair, chosen, batch)
                    share = self.gain[pair] / FULL_TRUST_GAIN
                    self.trust[pair] = min(1.0, max(LEAST_TRUST, share))
        self.train(on=True)
        return -sum(self.gain.values())

    def give_up(self) -> None:
        """Stop with the pairs that were judged and found to tell nothing."""
        for pair, gain in self.gain.items():
            if not gain:
                self.trust[pair] = 0.0

    def open_pairs(self) -> bool:
        """Whether anything is left to learn."""
        return bool(self.label_part) or any(self.trust.values())

    def moved(self) -> set[str]:
        """Modalities whose training paid, or could not be judged."""
        if self.label_part:
            return set(self.encoders)
        paid = [p for p in self.pairs if self.gain.get(p, 1.0) > 0]
        return {modality for pair in paid for modality in pair}

    def train(self, *, on: bool) -> None:
        """Switch every network between training and use."""
        for encoder in self.encoders.values():
            encoder.network.train(on)

    def _live(self) -> Iterable[str]:
        if self.label_part:
            return self.encoders
        live = {m for pair, trust in self.trust.items() if trust for m in pair}
        return [m for m in self.encoders if m in live]

    def _see(
        self, batch: NDArray[np.int64], changes: torch.Generator
    ) -> dict[str, Seen]:
        """Per modality that two or more cases have: their vectors, each item once."""
        seen = {}
        for modality in self._live():
            item = self.learn[batch, MODALITIES.index(modality)]
            at = np.flatnonzero(item >= 0)
            if len(at) < 2:
                continue
            encoder = self.encoders[modality]
            distinct, back = np.unique(item[at], return_inverse=True)
            x = self.cases.prepared[modality][torch.from_numpy(distinct)]
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
            label_loss(self._heads[m](s.vectors)[:, 0], labels[s.at], self.weights)
            for m, s in seen.items()
        ]

    def _partners(
        self, pair: Pair, batch: NDArray[np.int64], seen: Mapping[str, Seen]
    ) -> torch.Tensor | None:
        """The pair's loss of each case that holds both.

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
        loss: torch.Tensor = self._contrast["-".join(pair)](
            a.vectors[in_a], b.vectors[in_b], a.item[in_a], b.item[in_b]
        )[0]
        return loss

    def _gain(self, pair: Pair, chosen: NDArray[np.int64], batch: int) -> float:
        """How far below chance the pair's loss on these cases lies, as a share of it.

        Returns: 0 when that could be luck.
        """
        sides = [self._vectors(m, chosen) for m in pair]
        saved, chances = [], []
        for start in range(0, len(chosen), batch):
            part = slice(start, start + batch)
            (item_a, a), (item_b, b) = ((i[part], v[part]) for i, v in sides)
            loss, chance = self._contrast["-".join(pair)](a, b, item_a, item_b)
            saved.append(chance - loss.numpy())
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
        parts = [self.encoders[modality].forward(part) for part in x.split(CHUNK_ROWS)]
        unit = functional.normalize(torch.cat(parts), dim=1)
        return item, unit[torch.from_numpy(back)]
