"""Fitting the fusion: the alignment of pairs, then the supervised objective.

Shapes: `N` rows, `B` batch, `M` modalities, `D` shared width.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.alignment import align
from fusion.attention import pairs_of
from fusion.evidence import Matrix, choose_sum
from fusion.model import FusionConfig, FusionModel

Progress = Callable[[str, float], None]


class FusionFitError(Exception):
    """The rows given cannot fit a fusion: the message says why."""


def fit_fusion(
    x: NDArray[np.float32],
    mask: NDArray[np.bool_],
    y: NDArray[np.integer[Any]],
    tree_logit: NDArray[np.floating[Any]],
    *,
    config: FusionConfig,
    seed: int,
    budget_s: float,
    progress: Progress | None = None,
) -> FusionModel:
    """Fits a fusion on joined rows; the last tenth decides when to stop.

    Args:
        x: (N, M, D) float32 embeddings, in event-time order.
        mask: (N, M) bool, True where present.
        y: (N,) labels 0 or 1.
        tree_logit: (N,) out-of-fold log-odds of the tabular model.
        config: shape of the model.
        seed: same seed and rows, same model, unless the budget cuts it short.
        budget_s: wall-clock seconds to spend at most.
        progress: called with a word and the done part in [0, 1].

    Returns:
        The model with the best held-out loss, ready to score.

    Raises:
        FusionFitError: shapes differ, a label is not 0 or 1, or one class is missing.
    """
    _check(x, mask, y, tree_logit, config)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(1)
        try:
            torch.manual_seed(seed)
            fit = _Fit(x, mask, y, tree_logit, config, seed, budget_s, progress)
            return fit.run()
        finally:
            torch.set_num_threads(threads)


def untaught_fusion(config: FusionConfig, *, seed: int) -> FusionModel:
    """A fusion of first weights alone, for tasks whose cases never have media."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FusionModel(config).eval()


def _check(
    x: NDArray[np.float32],
    mask: NDArray[np.bool_],
    y: NDArray[np.integer[Any]],
    tree_logit: NDArray[np.floating[Any]],
    config: FusionConfig,
) -> None:
    want = (len(y), len(config.modalities), config.width)
    if x.shape != want or mask.shape != want[:2] or tree_logit.shape != want[:1]:
        msg = (
            f"fit fusion: x {x.shape}, mask {mask.shape}, tree_logit"
            f" {tree_logit.shape} do not fit {want}"
        )
        raise FusionFitError(msg)
    classes = set(np.unique(y).tolist())
    if classes != {0, 1}:
        msg = f"fit fusion: labels must hold both 0 and 1, got {sorted(classes)}"
        raise FusionFitError(msg)


def _tail_split(y: NDArray[np.integer[Any]], part: float) -> tuple[Tensor, Tensor]:
    """Splits row numbers: the last `part` of each class, in order, is held out."""
    held = np.zeros(len(y), bool)
    for label in (0, 1):
        of_class = np.flatnonzero(y == label)
        if len(of_class) > 1:
            held[of_class[-max(1, round(part * len(of_class))) :]] = True
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(
        np.flatnonzero(held)
    )


class _Fit:
    """One run of `fit_fusion`: the rows as tensors, and the two stages."""

    tail = 0.15
    most_rows = 256
    rounds = 30
    fewest_steps = 100
    most_steps = 1600
    check_every = 40
    patience = 5
    least_gain = 1e-3
    rates: ClassVar = {"meet": 0.0, "own": 0.0, "together": 0.0, "rest": 3e-4}
    most_zeros = 20_000
    open_gate = 2.0
    decay = 0.05
    average = 0.98
    balance = 0.25

    def __init__(
        self,
        x: NDArray[np.float32],
        mask: NDArray[np.bool_],
        y: NDArray[np.integer[Any]],
        tree_logit: NDArray[np.floating[Any]],
        config: FusionConfig,
        seed: int,
        budget_s: float,
        progress: Progress | None,
    ) -> None:
        self.x = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        self.mask = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.bool_))
        self.y = torch.from_numpy(np.asarray(y, dtype=np.float32))
        self.tree_logit = torch.from_numpy(np.asarray(tree_logit, dtype=np.float32))
        self.train, self.held = _tail_split(y, self.tail)
        self.draw = torch.Generator().manual_seed(seed)
        self.batch = min(self.most_rows, max(32, len(self.train) // 4))
        steps = self.rounds * len(y) // self.batch
        self.steps = min(max(steps, self.fewest_steps), self.most_steps)
        self.config = config
        self.seed = seed
        self.model = FusionModel(config)
        self.start = time.monotonic()
        self.budget_s = budget_s
        self.progress = progress or (lambda word, done: None)

    def run(self) -> FusionModel:
        """Centres, aligns, fits; gives the model ready to score."""
        self._align()
        self._weigh()
        self._supervise()
        self.progress("fit", 1.0)
        return self.model.eval()

    def _spent(self, part: float) -> bool:
        return time.monotonic() - self.start > part * self.budget_s

    def _align(self) -> None:
        """Takes centre, shared space and agreement from what comes together."""
        rows = self.train.numpy()
        found = align(
            self.x.numpy()[rows],
            self.mask.numpy()[rows],
            self.y.numpy()[rows],
            directions=self.config.dim,
            seed=self.seed,
        )
        with torch.no_grad():
            self.model.center.copy_(torch.from_numpy(found.center))
            self.model.share.copy_(torch.from_numpy(found.share))
            self.model.meet.copy_(torch.from_numpy(found.meet))

    def _weigh(self) -> None:
        """Fits the weighted sum, exactly, on every 1 and a draw of the 0s."""
        zeros = self.train[self.y[self.train] == 0]
        order = torch.randperm(len(zeros), generator=self.draw)
        zeros = zeros[order[: self.most_zeros]]
        part = len(zeros) / int((self.y[self.train] == 0).sum())
        rows = torch.cat((self.train[self.y[self.train] == 1], zeros, self.held))
        held = np.arange(len(rows)) >= len(rows) - len(self.held)
        y = self.y[rows].numpy().astype(np.float64)
        weight = np.where((y == 0) & ~held, 1 / part, 1.0)
        mask = self.mask[rows]
        with torch.inference_mode():
            x_BMD = self.model.centered(self.x[rows], mask)
            told = self.model.told(x_BMD, mask).numpy().astype(np.float64)
        scaled = x_BMD.numpy().astype(np.float64) * self.config.width**0.5
        base, own = choose_sum(
            told,
            [scaled[:, m] for m in range(1, scaled.shape[1])],
            y,
            self.tree_logit[rows].numpy().astype(np.float64),
            weight,
            held,
        )
        self._take(base, np.stack((np.zeros_like(own[0]), *own)))

    def _take(self, together: Matrix, own_MD: Matrix) -> None:
        """Puts the sum into the model, and opens the gates of those it listens to."""
        used = own_MD.any(-1)
        for place, (i, j) in enumerate(pairs_of(len(own_MD))):
            if self.model.meet[:, place].any():
                used[[i, j]] = True
        used_M = torch.from_numpy(used)
        bias = torch.where(used_M, self.open_gate, -self.open_gate)
        bias[0] = 0.0
        with torch.no_grad():
            for block in self.model.blocks:
                block.get_parameter("gate_bias").copy_(bias)
            own = torch.from_numpy(own_MD) / bias.sigmoid()[:, None]
            self.model.own.copy_(own)
            self.model.together.copy_(torch.from_numpy(together))

    def _supervise(self) -> None:
        """Fits the evidence on top of the tree's log-odds."""
        labels = self.y[self.train]
        ones, zeros = self.train[labels == 1], self.train[labels == 0]
        prior = len(ones) / len(self.train)
        drawn = min(max(prior, self.balance), 1 - self.balance)
        take = round(drawn * self.batch)
        drawn = take / self.batch
        shift = float(np.log(drawn / (1 - drawn)) - np.log(prior / (1 - prior)))
        groups: dict[float, list[nn.Parameter]] = {}
        for name, weight in self.model.named_parameters():
            word = name.split(".")[0]
            rate = self.rates.get(word, self.rates["rest"])
            groups.setdefault(rate, []).append(weight)
        optimizer = torch.optim.AdamW(
            [
                {"params": weights, "lr": rate, "weight_decay": self.decay}
                for rate, weights in groups.items()
            ]
        )
        mean = copy.deepcopy(self.model)
        best, bad = float("inf"), 0
        best_state = copy.deepcopy(mean.state_dict())
        for step in range(self.steps + 1):
            if step % self.check_every == 0:
                loss = self._held_out(mean)
                if loss < best * (1 - self.least_gain):
                    best, bad = loss, 0
                    best_state = copy.deepcopy(mean.state_dict())
                else:
                    bad += 1
                self.progress("fit", step / self.steps)
                if bad > self.patience or self._spent(0.95):
                    break
            rows = torch.cat(
                (
                    ones[torch.randint(len(ones), (take,), generator=self.draw)],
                    zeros[
                        torch.randint(
                            len(zeros), (self.batch - take,), generator=self.draw
                        )
                    ],
                )
            )
            keep = torch.rand(self.mask[rows].shape, generator=self.draw)
            mask = self.mask[rows] & (keep >= self.config.modality_dropout)
            self.model.train()
            out = self.model(self.x[rows], mask, self.tree_logit[rows])
            loss_now = nn.functional.binary_cross_entropy_with_logits(
                out.logit + shift, self.y[rows]
            )
            optimizer.zero_grad()
            loss_now.backward()
            optimizer.step()
            with torch.no_grad():
                for kept, new in zip(
                    mean.parameters(), self.model.parameters(), strict=True
                ):
                    kept.lerp_(new, 1 - self.average)
        self.model.load_state_dict(best_state)

    def _held_out(self, model: FusionModel) -> float:
        model.eval()
        total = 0.0
        with torch.inference_mode():
            for rows in self.held.split(4096):
                out = model(self.x[rows], self.mask[rows], self.tree_logit[rows])
                total += float(
                    nn.functional.binary_cross_entropy_with_logits(
                        out.logit, self.y[rows], reduction="sum"
                    )
                )
        return total / max(1, len(self.held))
