"""Fitting the fusion: what each token says alone, then how to weigh it.

Shapes: `N` rows, `M` modalities, `T` tokens, `D` shared width.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.config import pairs_of
from fusion.model import OPEN_GATE, FusionConfig, FusionModel
from fusion.readings import Curve, read_agreement, read_embedding

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
    """One run of `fit_fusion`: the readings, then the network that weighs them."""

    tail = 0.15
    most_rows = 512
    rounds = 20
    fewest_steps = 200
    most_steps = 1600
    check_every = 40
    patience = 6
    least_gain = 1e-4
    rate = 1e-3
    decay = 0.05
    average = 0.98
    balance = 0.2
    no_tree = 0.1
    guess_part = 0.05

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
        self.seed = seed
        self.config = config
        self.model = FusionModel(config)
        self.start = time.monotonic()
        self.budget_s = budget_s
        self.progress = progress or (lambda word, done: None)

    def run(self) -> FusionModel:
        """Reads, weighs; gives the model ready to score."""
        self.readings = self._read()
        if self._rise().any():
            self._weigh()
        self.progress("fit", 1.0)
        return self.model.eval()

    def _rise(self) -> Tensor:
        """(T,) above 0 for the tokens that say something."""
        return self.model.curve[:, 1]

    def _read(self) -> Tensor:
        """Fits every reading; gives those of lines that never saw the case (N, T)."""
        mask, y = self.mask.numpy(), self.y.numpy().astype(np.int64)
        with torch.inference_mode():
            there = self.model.tokens_there(self.mask).numpy()
            readings = self.model.read(self.x, self.mask).numpy().astype(np.float64)
        curves = [Curve() for _ in range(there.shape[1])]
        modalities = mask.shape[1]
        for m in range(1, modalities):
            rows = mask[:, m]
            line = read_embedding(self.x[rows, m].numpy(), y[rows], seed=self.seed)
            self.model.line[m] = torch.from_numpy(line.weights)
            self.model.bias[m] = line.bias
            readings[rows, m] = line.unseen
            curves[m] = line.curve
            self.progress("read", (m + 1) / there.shape[1])
        for t, (_, j) in enumerate(pairs_of(modalities), modalities):
            rows = np.flatnonzero(there[:, t])
            order = torch.randperm(len(rows), generator=self.draw).numpy()
            strangers = self.x[rows].clone()
            strangers[:, j] = strangers[order, j]
            cosines = self.model.read(strangers, self.mask[rows])[:, t]
            curves[t] = read_agreement(
                readings[rows, t],
                cosines.numpy().astype(np.float64),
                y[rows],
                seed=self.seed,
            )
            self.progress("read", (t + 1) / there.shape[1])
        self.model.curve.copy_(torch.tensor([astuple(curve) for curve in curves]))
        self._open_gates()
        return torch.from_numpy(readings.astype(np.float32))

    def _open_gates(self) -> None:
        """The network begins as the plain sum of what has something to say."""
        says = self._rise() > 0
        for t, (i, j) in enumerate(pairs_of(self.mask.shape[1]), self.mask.shape[1]):
            says[[i, j]] |= says[t].clone()
        bias = torch.where(says, OPEN_GATE, -OPEN_GATE)
        bias[0] = 0.0
        with torch.no_grad():
            for block in self.model.blocks:
                block.get_parameter("gate_bias").copy_(bias)
            self.model.weight.copy_(1 / bias.sigmoid())

    def _weigh(self) -> None:
        """Fits the network, on balanced batches, from the plain sum on."""
        labels = self.y[self.train]
        ones, zeros = self.train[labels == 1], self.train[labels == 0]
        prior = len(ones) / len(self.train)
        drawn = min(max(prior, self.balance), 1 - self.balance)
        take = round(drawn * self.batch)
        drawn = take / self.batch
        prior_logit = float(np.log(prior / (1 - prior)))
        shift = float(np.log(drawn / (1 - drawn))) - prior_logit
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.rate, weight_decay=self.decay
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
            rows = torch.cat((self._draw(ones, take), self._draw(zeros, len(zeros))))
            rows = rows[: self.batch]
            optimizer.zero_grad()
            self._loss(rows, prior_logit, shift).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                for kept, new in zip(
                    mean.parameters(), self.model.parameters(), strict=True
                ):
                    kept.lerp_(new, 1 - self.average)
        self.model.load_state_dict(best_state)

    def _draw(self, rows: Tensor, count: int) -> Tensor:
        count = min(count, self.batch)
        return rows[torch.randint(len(rows), (count,), generator=self.draw)]

    def _loss(self, rows: Tensor, prior_logit: float, shift: float) -> Tensor:
        """Of cases some of whose modalities are hidden, now and then the tree too."""
        there = self.mask[rows]
        keep = torch.rand(there.shape, generator=self.draw)
        mask = there & (keep >= self.config.modality_dropout)
        treeless = torch.rand(len(rows), generator=self.draw) < self.no_tree
        mask[:, 0] = there[:, 0] & ~treeless
        base = torch.where(treeless, prior_logit, self.tree_logit[rows])
        self.model.train()
        readings = self.readings[rows]
        out = self.model(self.x[rows], mask, base, readings)
        loss = nn.functional.binary_cross_entropy_with_logits(
            out.logit + shift, self.y[rows]
        )
        # what was hidden is known here: the others learn to expect it
        hidden = self.model.tokens_there(there) & ~self.model.tokens_there(mask)
        known = self.model.evidence(readings)
        missed = ((out.guess - known) ** 2)[hidden]
        return loss + self.guess_part * missed.sum() / max(1, hidden.sum())

    def _spent(self, part: float) -> bool:
        return time.monotonic() - self.start > part * self.budget_s

    def _held_out(self, model: FusionModel) -> float:
        model.eval()
        total = 0.0
        with torch.inference_mode():
            for rows in self.held.split(4096):
                out = model(
                    self.x[rows],
                    self.mask[rows],
                    self.tree_logit[rows],
                    self.readings[rows],
                )
                total += float(
                    nn.functional.binary_cross_entropy_with_logits(
                        out.logit, self.y[rows], reduction="sum"
                    )
                )
        return total / max(1, len(self.held))
