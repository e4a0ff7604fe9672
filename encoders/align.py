"""Train encoders so that what arrives together in a case lies together in the space.

Between any two modalities, the item of the same case must be found among the others
of the batch (InfoNCE), without labels. Each pair is judged on items it never saw: one
that tells nothing is given up, and an encoder that no pair taught keeps the weights
it came with.

Legend: `N` cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from encoders.base import MODALITIES, EncoderError
from encoders.lesson import Cases, Lesson
from encoders.pace import WeightAverage, rate_share
from encoders.trainable import CHUNK_ROWS, TrainableEncoder
from encoders.unseen import Pair

#: Told the share done (0..1) and a line a person can read.
Progress = Callable[[float, str], None]
#: Decoded items, or what `prepare_items` made of them.
Items = Mapping[str, Sequence[Any] | torch.Tensor]

#: The share of the budget that trials may take.
TRIAL_SHARE = 0.5
#: How much of the averaged weights stays at each step.
AVERAGE_DECAY = 0.98


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignConfig:
    """How the encoders are trained.

    Attributes:
        steps: batches of what is learnt together; they decide how long it takes.
        trial_steps: batches in which a pair alone must show that it can be learnt.
        batch: cases per step.
        rate: peak learning rate.
        temperature: divides the similarities of the contrastive lesson, at the start.
        held_out: share of each modality's items kept aside to judge by.
        check_every: steps between two judgements.
    """

    steps: int = 480
    trial_steps: int = 40
    batch: int = 128
    rate: float = 2e-3
    temperature: float = 0.1
    held_out: float = 0.08
    check_every: int = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignReport:
    """What the training did.

    Attributes:
        steps: batches seen, trials included; fewer than asked when the budget did not
            allow them.
        kept: modalities that learnt; the others have the weights they came with.
        seconds: wall clock, preparation included.
        gain: per pair of modalities, how far its loss on items never seen lies below
            chance, as a share of chance; 0 says the two tell nothing of each other.
    """

    steps: int
    kept: tuple[str, ...]
    seconds: float
    gain: dict[Pair, float]


def prepare_items(
    encoders: Mapping[str, TrainableEncoder], items: Items
) -> dict[str, torch.Tensor]:
    """What each encoder's network reads, one row per item; the costly step for text."""
    prepared = {}
    for modality, given in items.items():
        if not len(given):
            continue
        if isinstance(given, torch.Tensor):
            prepared[modality] = given
            continue
        starts = range(0, len(given), CHUNK_ROWS)
        parts = [
            encoders[modality].prepare(given[at : at + CHUNK_ROWS]) for at in starts
        ]
        prepared[modality] = torch.cat(parts)
    return prepared


def fit_encoders(
    encoders: Mapping[str, TrainableEncoder],
    items: Items,
    rows: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int,
    budget_s: float,
    progress: Progress | None = None,
    config: AlignConfig | None = None,
) -> AlignReport:
    """Train the encoders in place on the cases, and seal them with new fingerprints.

    The same seed gives the same weights on the same machine, unless the budget is too
    small for the steps: then there are as many as fit.

    Args:
        encoders: by modality.
        items: the distinct items of each modality, decoded or prepared.
        rows: int (N, 4) in the order of `MODALITIES`: which item of each modality a
            case has, -1 for none.
        labels: int (N,), 0 or 1.
        seed: of the split, the batches and the changes to the items.
        budget_s: ceiling on the wall clock, preparation included.
        progress: told after every judgement.
        config: how to train.

    Raises:
        EncoderError: `rows` or `labels` do not fit the encoders and items.
    """
    began = time.monotonic()
    config = config or AlignConfig()
    rows_N4, labels_N = _check(encoders, items, rows, labels)
    prepared = prepare_items(encoders, items)
    cases = Cases(prepared=prepared, rows=rows_N4, labels=labels_N)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lesson = Lesson(
            encoders,
            cases,
            temperature=config.temperature,
            held_out=config.held_out,
            seed=seed,
        )
        try:
            steps, kept = _learn(lesson, config, seed, began + budget_s, progress)
        finally:
            for encoder in encoders.values():
                encoder.seal()
    seconds = time.monotonic() - began
    return AlignReport(
        steps=steps,
        kept=kept,
        seconds=seconds,
        gain=dict(lesson.gain),
    )


def _learn(
    lesson: Lesson,
    config: AlignConfig,
    seed: int,
    until: float,
    progress: Progress | None,
) -> tuple[int, tuple[str, ...]]:
    """Steps done, and the modalities that learnt; the others stay as they came.

    Pairs that tell nothing of each other pull their networks nowhere in particular,
    hard enough to keep the others from learning. So each pair is tried alone first.
    """
    run = _Run(lesson, config, seed, progress)
    given = {m: _state(e.network) for m, e in lesson.encoders.items()}
    proven: list[Pair] = []
    trials_until = time.monotonic() + TRIAL_SHARE * (until - time.monotonic())
    for left, pair in zip(range(len(lesson.pairs), 0, -1), lesson.pairs, strict=True):
        before = {m: _state(lesson.encoders[m].network) for m in pair}
        spell = (trials_until - time.monotonic()) / left
        until_then = time.monotonic() + spell
        run.practise([pair], config.trial_steps, until_then, trial=True)
        if lesson.gain.get(pair, 1.0) > 0:
            proven.append(pair)
            continue
        for modality, state in before.items():
            lesson.encoders[modality].network.load_state_dict(state)
    if proven:
        run.practise(proven, config.steps, until)
    paid = {m for p in proven if lesson.gain.get(p, 1.0) > 0 for m in p}
    for modality in given.keys() - paid:
        lesson.encoders[modality].network.load_state_dict(given[modality])
    return run.steps, tuple(m for m in lesson.encoders if m in paid)


class _Run:
    """Batches, changes and steps of one training."""

    def __init__(
        self,
        lesson: Lesson,
        config: AlignConfig,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.lesson = lesson
        self.config = config
        self.progress = progress
        self.choice = np.random.default_rng(seed)
        self.changes = torch.Generator().manual_seed(seed)
        self.steps = 0
        self.planned = len(lesson.pairs) * config.trial_steps + config.steps

    def practise(
        self, pairs: Sequence[Pair], steps: int, until: float, *, trial: bool = False
    ) -> None:
        """So many steps, or as many as fit, the pairs in turn; the average is kept."""
        lesson, config = self.lesson, self.config
        moving = {m: lesson.encoders[m].network for pair in pairs for m in pair}
        average = WeightAverage(moving, AVERAGE_DECAY)
        weights = lesson.weights(pairs)
        optimiser = torch.optim.AdamW(weights, lr=config.rate, weight_decay=0.02)
        batches = {
            pair: _batches(lesson.cases_of(pair), config.batch, self.choice)
            for pair in pairs
        }
        began, planned, step = time.monotonic(), steps, 0
        while step < planned and (time.monotonic() < until or not step):
            pair = pairs[step % len(pairs)]
            # the rate rises slowly in a trial, too: it is the start of a training
            whole = config.steps if trial else planned
            for group in optimiser.param_groups:
                group["lr"] = config.rate * rate_share(min(1.0, step / max(1, whole)))
            optimiser.zero_grad(set_to_none=True)
            lesson.loss(pair, next(batches[pair]), self.changes).backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            average.take()
            step += 1
            per_step_s = (time.monotonic() - began) / step
            fitting = step + int((until - time.monotonic()) / per_step_s)
            planned = min(steps, max(step, fitting))
            if step % config.check_every == 0 or step >= planned:
                average.swap()
                lesson.judge(pairs, config.batch)
                average.swap()
                self._tell(self.steps + step, pairs)
        average.hand_over()
        self.steps += step

    def _tell(self, steps: int, pairs: Sequence[Pair]) -> None:
        if self.progress is None:
            return
        told = [f"{a}-{b} {self.lesson.gain.get((a, b), 0.0):.0%}" for a, b in pairs]
        line = f"align {steps}: found above chance among items never seen: "
        self.progress(min(1.0, steps / self.planned), line + ", ".join(told))


def _state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in network.state_dict().items()}


def _batches(
    learn: NDArray[np.intp], size: int, choice: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Batches without end; each case once before any comes again."""
    size = min(size, len(learn))
    while True:
        order = choice.permutation(learn)
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def _check(
    encoders: Mapping[str, TrainableEncoder],
    items: Items,
    rows: ArrayLike,
    labels: ArrayLike,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and labels as arrays, when they fit the encoders and items."""
    rows_N4 = np.asarray(rows, dtype=np.int64)
    labels_N = np.asarray(labels, dtype=np.int64)
    if rows_N4.ndim != 2 or rows_N4.shape[1] != len(MODALITIES):
        msg = f"fit encoders: rows are {rows_N4.shape}, must be (N, {len(MODALITIES)})"
        raise EncoderError(msg)
    if labels_N.shape != rows_N4.shape[:1] or not np.isin(labels_N, (0, 1)).all():
        msg = f"fit encoders: labels are {labels_N.shape}, must be (N,) of 0 and 1"
        raise EncoderError(msg)
    for modality, item in zip(MODALITIES, rows_N4.T, strict=True):
        known = len(items.get(modality, ()))
        if known and modality not in encoders:
            msg = f"fit encoders: {modality} items are given, but no such encoder"
            raise EncoderError(msg)
        if ((item < -1) | (item >= known)).any():
            msg = f"fit encoders: rows name a {modality} item outside -1..{known - 1}"
            raise EncoderError(msg)
    return rows_N4, labels_N
