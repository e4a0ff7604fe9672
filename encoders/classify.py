"""Train one encoder to tell classes, and the line that reads them off its vectors.

Legend: `N` items, `D` width, `K` classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional

from encoders.base import EncoderError
from encoders.device import at_work, learning_device, short_sums
from encoders.pace import WeightAverage, rate_share
from encoders.trainable import TrainableEncoder

#: Told the share done (0..1) and a line a person can read.
Progress = Callable[[float, str], None]

#: Share of the target that is spread over all classes, so no score grows without end.
SMOOTHING = 0.05
#: Unit vectors are stretched by this before the first line reads them.
STRETCH = 10.0
WEIGHT_DECAY = 0.02
AVERAGE_DECAY = 0.99


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassHead:
    """Classes read off vectors.

    Attributes:
        weight: float32 (K, D).
        bias: float32 (K,).
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def predict(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """The probability of each class.

        Args:
            vectors: (N, D) as the trained encoder's `encode` gives them.

        Returns: float32 (N, K), rows that sum to 1.

        Raises:
            EncoderError: the vectors have another width.
        """
        x_ND = np.asarray(vectors, dtype=np.float32)
        if x_ND.ndim != 2 or x_ND.shape[1] != self.weight.shape[1]:
            msg = f"tell classes: vectors are {x_ND.shape}, must be (N, "
            msg += f"{self.weight.shape[1]})"
            raise EncoderError(msg)
        logit = x_ND @ self.weight.T + self.bias
        logit -= logit.max(axis=1, keepdims=True, initial=0.0)
        likely = np.exp(logit)
        share: NDArray[np.float32] = likely / likely.sum(axis=1, keepdims=True)
        return share


def fit_classes(
    encoder: TrainableEncoder,
    decoded: Sequence[Any] | torch.Tensor,
    labels: ArrayLike,
    *,
    classes: int,
    seed: int,
    epochs: int,
    batch: int = 64,
    rate: float = 2e-3,
    device: str = "auto",
    progress: Progress | None = None,
) -> ClassHead:
    """Train the encoder in place with a linear head on its unit vectors, and seal it.

    Cross-entropy with a little smoothing, AdamW, a rise and half a cosine of the rate;
    each batch goes through `encoder.augment`; what is kept is a running average of
    the weights. The same seed gives the same weights on the same machine.

    Args:
        encoder: its `network` learns; whatever `prepare` uses stays as it is.
        decoded: N items from `encoder.decode`, or what `prepare` made of them.
        labels: int (N,), 0..classes-1.
        classes: K.
        seed: of the head, the batches and the changes to the items.
        epochs: how often each item is seen.
        batch: items per step.
        rate: peak learning rate; `encoder.rates` says who takes which share of it.
        device: where it learns; "auto" is a GPU when there is one.
        progress: told after every epoch.

    Raises:
        EncoderError: no items, labels that do not fit them, or no such device.
    """
    y_N = torch.from_numpy(_check(decoded, labels, classes))
    x_N = encoder.prepare_all(decoded)
    at = learning_device(device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = nn.Linear(encoder.width, classes)
        with torch.no_grad():
            head.weight.mul_(STRETCH)
        try:
            with at_work([encoder.network, head], at):
                _learn(encoder, head, x_N, y_N, seed, epochs, batch, rate, at, progress)
        finally:
            encoder.seal()
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    return ClassHead(weight=weight.copy(), bias=bias.copy())


def _learn(
    encoder: TrainableEncoder,
    head: nn.Linear,
    x_N: torch.Tensor,
    y_N: torch.Tensor,
    seed: int,
    epochs: int,
    batch: int,
    rate: float,
    device: torch.device,
    progress: Progress | None,
) -> None:
    choice = np.random.default_rng(seed)
    changes = torch.Generator().manual_seed(seed)
    encoder.network.train()
    learning = nn.ModuleList([encoder.network, head])
    average = WeightAverage({"all": learning}, AVERAGE_DECAY)
    shares = [*encoder.rates(), (list(head.parameters()), 1.0)]
    groups = [{"params": part, "share": share} for part, share in shares]
    weights = [weight for part, _ in shares for weight in part]
    for weight in weights:
        weight.requires_grad = True
    optimiser = torch.optim.AdamW(
        groups, lr=rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    per_epoch = math.ceil(len(y_N) / batch)
    for epoch in range(epochs):
        told = 0.0
        parts = np.array_split(choice.permutation(len(y_N)), per_epoch)
        for at, part in enumerate(parts):
            for group in optimiser.param_groups:
                done = (epoch * per_epoch + at) / (epochs * per_epoch)
                group["lr"] = rate * group["share"] * rate_share(done)
            rows = torch.from_numpy(part)
            x = encoder.augment(x_N[rows], changes).to(device)
            with short_sums(device):
                vectors = encoder.forward(x)
            logit = head(functional.normalize(vectors.float(), dim=1))
            loss = functional.cross_entropy(
                logit, y_N[rows].to(device), label_smoothing=SMOOTHING
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            average.take()
            told += float(loss.detach())
        if progress is not None:
            line = f"classes {epoch + 1}/{epochs}: loss {told / per_epoch:.3f}"
            progress((epoch + 1) / epochs, line)
    average.hand_over()


def _check(
    decoded: Sequence[Any] | torch.Tensor, labels: ArrayLike, classes: int
) -> NDArray[np.int64]:
    y_N = np.asarray(labels, dtype=np.int64)
    if not len(decoded):
        msg = "fit classes: there are no items"
        raise EncoderError(msg)
    if y_N.shape != (len(decoded),):
        msg = f"fit classes: labels are {y_N.shape}, must be ({len(decoded)},)"
        raise EncoderError(msg)
    if y_N.min() < 0 or y_N.max() >= classes:
        msg = (
            f"fit classes: labels are {y_N.min()}..{y_N.max()}, must be "
            f"0..{classes - 1}"
        )
        raise EncoderError(msg)
    return y_N
