"""Train encoders so that what arrives together in a case lies together in the space.

Between any two modalities, the item of the same case must be found among the others
of the batch (InfoNCE), without labels. Each pair is judged on items it never saw: one
that tells nothing is given up, and an encoder that no pair taught keeps the weights
it came with.

Legend: `N` cases.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from encoders.base import MODALITIES, EncoderError, fingerprint_of
from encoders.checkpoint import Checkpoint
from encoders.device import at_work, learning_device
from encoders.lesson import Cases, Lesson
from encoders.pace import state_of
from encoders.practice import AlignConfig, Practice, Progress
from encoders.trainable import TrainableEncoder
from encoders.unseen import Pair

#: Decoded items, or what `prepare_items` made of them.
Items = Mapping[str, Sequence[Any] | torch.Tensor]

#: The share of the budget that trials may take.
TRIAL_SHARE = 0.5


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
    given = {m: found for m, found in items.items() if len(found)}
    return {m: encoders[m].prepare_all(found) for m, found in given.items()}


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
    checkpoint: Path | None = None,
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
        checkpoint: file that says at every judgement where the training stands. One
            that was cut off goes on from there, to the same weights; the file stays
            when it is done, and is the caller's to delete.

    Raises:
        EncoderError: `rows` or `labels` do not fit the encoders and items, or there is
            no such device.
        EncoderLoadError: the checkpoint is damaged.
    """
    began = time.monotonic()
    config = config or AlignConfig()
    rows_N4, labels_N = _check(encoders, items, rows, labels)
    prepared = prepare_items(encoders, items)
    cases = Cases(prepared=prepared, rows=rows_N4, labels=labels_N)
    keeper = None
    if checkpoint is not None:
        keeper = Checkpoint(checkpoint, _purpose(encoders, cases, config, seed))
    device = learning_device(config.device)
    try:
        with (
            torch.random.fork_rng(),
            at_work([e.network for e in encoders.values()], device),
        ):
            torch.manual_seed(seed)
            lesson = Lesson(
                encoders,
                cases,
                temperature=config.temperature,
                held_out=config.held_out,
                seed=seed,
                device=device,
            )
            practice = Practice(lesson, config, seed, progress, keeper)
            kept = _learn(lesson, practice, config, began + budget_s)
    finally:
        for encoder in encoders.values():
            encoder.seal()
    seconds = time.monotonic() - began
    return AlignReport(
        steps=practice.steps,
        kept=kept,
        seconds=seconds,
        gain=dict(lesson.gain),
    )


def _learn(
    lesson: Lesson, practice: Practice, config: AlignConfig, until: float
) -> tuple[str, ...]:
    """The modalities that learnt; the others stay as they came.

    Pairs that tell nothing of each other pull their networks nowhere in particular,
    hard enough to keep the others from learning. So each pair is tried alone first.
    """
    given = {m: state_of(e.network) for m, e in lesson.encoders.items()}
    until -= practice.take_up()
    trials_until = time.monotonic() + TRIAL_SHARE * (until - time.monotonic())
    for pair in lesson.pairs[practice.trials :]:
        before = {m: state_of(lesson.encoders[m].network) for m in pair}
        left = len(lesson.pairs) - practice.trials
        spell_s = (trials_until - time.monotonic()) / left
        until_then = time.monotonic() + spell_s
        practice.practise([pair], config.trial_steps, until_then, trial=True)
        proven = lesson.gain.get(pair, 1.0) > 0
        if not proven:
            for modality, state in before.items():
                lesson.encoders[modality].network.load_state_dict(state)
        practice.end_trial(pair, proven=proven)
    if practice.proven:
        practice.practise(practice.proven, config.steps, until)
    paid = {m for p in practice.proven if lesson.gain.get(p, 1.0) > 0 for m in p}
    for modality in given.keys() - paid:
        lesson.encoders[modality].network.load_state_dict(given[modality])
    return tuple(m for m in lesson.encoders if m in paid)


def _purpose(
    encoders: Mapping[str, TrainableEncoder],
    cases: Cases,
    config: AlignConfig,
    seed: int,
) -> str:
    """Names all that the training depends on, but for the time it may take."""
    fingerprints = {m: encoders[m].fingerprint for m in sorted(cases.prepared)}
    given = {**cases.prepared, "rows": cases.rows, "labels": cases.labels}
    settings = {"config": asdict(config), "seed": seed, "encoders": fingerprints}
    return fingerprint_of(given, settings)


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
