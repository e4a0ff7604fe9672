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

#: The share of the steps, and the judgements, after which a pair that tells nothing
#: is given up.
PATIENCE = 0.3
LEAST_JUDGEMENTS = 3
#: How much of the averaged weights stays at each step.
AVERAGE_DECAY = 0.98


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignConfig:
    """How the encoders are trained.

    Attributes:
        steps: batches; they decide how long the training is.
        batch: cases per step.
        rate: peak learning rate.
        temperature: divides the similarities of the contrastive lesson, at the start.
        label_part: weight of a second lesson, in which each modality alone tells the
            label. Off by default: items repeat, so it learns by heart which of them
            were labelled 1, and what is fitted on the vectors later is misled.
        held_out: share of each modality's items kept aside to judge by.
        check_every: steps between two judgements.
    """

    steps: int = 480
    batch: int = 128
    rate: float = 2e-3
    temperature: float = 0.1
    label_part: float = 0.0
    held_out: float = 0.08
    check_every: int = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignReport:
    """What the training did.

    Attributes:
        steps: batches seen; fewer than asked when the budget did not allow them.
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
            label_part=config.label_part,
            held_out=config.held_out,
            seed=seed,
        )
        try:
            steps = _learn(lesson, config, seed, began + budget_s, progress)
        finally:
            for encoder in encoders.values():
                encoder.seal()
    seconds = time.monotonic() - began
    return AlignReport(
        steps=steps,
        kept=tuple(m for m in lesson.encoders if m in lesson.moved()),
        seconds=seconds,
        gain=dict(lesson.gain),
    )


def _learn(
    lesson: Lesson,
    config: AlignConfig,
    seed: int,
    until: float,
    progress: Progress | None,
) -> int:
    """Steps done; the encoders end with averaged weights, or those they came with."""
    choice = np.random.default_rng(seed)
    changes = torch.Generator().manual_seed(seed)
    networks = {m: e.network for m, e in lesson.encoders.items()}
    average = WeightAverage(networks, AVERAGE_DECAY)
    given = average.copy()
    weights = _open(lesson)
    optimiser = torch.optim.AdamW(weights, lr=config.rate, weight_decay=0.02)
    learn = lesson.useful()
    step, began = 0, time.monotonic()
    planned = wanted = config.steps if len(learn) > 1 else 0
    for batch in _batches(learn, config.batch, choice):
        if step >= planned or time.monotonic() >= until:
            break
        for group in optimiser.param_groups:
            group["lr"] = config.rate * rate_share(step / planned)
        loss = lesson.loss(batch, changes)
        step += 1
        if loss is not None:
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            average.take()
        if step % config.check_every and step < planned:
            continue
        wait = max(PATIENCE * planned, LEAST_JUDGEMENTS * config.check_every)
        _judge(lesson, average, config.batch, patient=step < wait)
        if progress is not None:
            progress(step / planned, _line(lesson, step, planned))
        per_step_s = (time.monotonic() - began) / step
        fitting = step + int((until - time.monotonic()) / per_step_s)
        planned = min(wanted, max(step, fitting)) if lesson.open_pairs() else step
    average.hand_over()
    for modality in networks.keys() - lesson.moved():
        networks[modality].load_state_dict(given[modality])
    return step


def _judge(
    lesson: Lesson, average: WeightAverage, batch: int, *, patient: bool
) -> None:
    """Renew gains and trust by the averaged weights."""
    average.swap()
    lesson.judge(batch)
    average.swap()
    if not patient:
        lesson.give_up()


def _open(lesson: Lesson) -> list[nn.Parameter]:
    """Every weight that learns, ready for gradients."""
    lesson.train(on=True)
    networks = [encoder.network for encoder in lesson.encoders.values()]
    for network in networks:
        network.requires_grad_(requires_grad=True)
    learning = [*networks, lesson.extra]
    return [weight for network in learning for weight in network.parameters()]


def _batches(
    learn: NDArray[np.int64], size: int, choice: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Batches without end, none of no cases; each case once before any comes again."""
    size = min(size, len(learn))
    while size:
        order = choice.permutation(learn)
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def _line(lesson: Lesson, step: int, planned: int) -> str:
    gains = [f"{a}-{b} {g:.0%}" for (a, b), g in lesson.gain.items() if g > 0]
    found = ", ".join(gains) or "no pair above chance yet"
    return f"align {step}/{planned}: held-out gain {found}"


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
