"""Feature rows to vectors: robust scaling, tables of categories, a small network.

Legend: `N` `B` rows, `F` features, in the order of the model's manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.base import (
    EncoderConfig,
    EncoderLoadError,
    PayloadError,
    settings_of,
)
from encoders.trainable import TrainableEncoder

if TYPE_CHECKING:
    import torch
    from torch import nn

    from encoders.network import RowMlp

#: The quartiles' distance of a normal distribution, in standard deviations.
NORMAL_IQR = 1.349
#: Events of a payload, at most.
MOST_STEPS = 512
#: No finite float32 exceeds this; larger values are refused.
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class TabularConfig(EncoderConfig):
    """Options of the tabular encoder.

    Attributes:
        features: F, how many values a row has.
        hidden: width of the two inner layers.
        categories: per feature how many categories it numbers from 0 on, 0 for a
            quantity: [0, 24, 7] for an amount, an hour and a weekday. Without it all
            are quantities.
        steps: with more than 1, a payload is the last events of an entity, so many at
            most, and an LSTM and a Transformer read them in their order.
    """

    features: int
    hidden: int = 64
    categories: tuple[int, ...] = ()
    steps: int = 1

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        if self.categories and (
            len(self.categories) != self.features
            or not all(type(size) is int and size >= 0 for size in self.categories)
        ):
            msg = (
                f"read tabular config: categories is {list(self.categories)}, must be "
                f"one whole number for each of the {self.features} features"
            )
            raise EncoderLoadError(msg)
        if not 1 <= self.steps <= MOST_STEPS:
            msg = f"read tabular config: steps is {self.steps}, must be 1..{MOST_STEPS}"
            raise EncoderLoadError(msg)
        if self.steps > 1 and self.hidden % 4:
            msg = (
                f"read tabular config: hidden is {self.hidden}, with steps it must be "
                "a multiple of 4"
            )
            raise EncoderLoadError(msg)
        if self.features < 1 or self.hidden < 1:
            msg = (
                f"read tabular config: features is {self.features} and hidden is "
                f"{self.hidden}, both must be at least 1"
            )
            raise EncoderLoadError(msg)


class TabularEncoder(TrainableEncoder):
    """A row of feature values, each scaled by its median and quartiles.

    With `steps` in its config, the rows of an entity's last events, oldest first.
    """

    modality: ClassVar[str] = "tabular"
    config_class: ClassVar[type[EncoderConfig]] = TabularConfig
    config: TabularConfig

    def __init__(self, config: TabularConfig) -> None:
        from encoders.network import seeded

        self.config = config
        self.width = config.width
        self.network = seeded(lambda: build_network(config), config.seed)
        self.seal()

    @property
    def rows(self) -> RowMlp:
        """What reads a single row."""
        rows: RowMlp = self.network if self.config.steps == 1 else self.network.rows  # type: ignore[assignment]
        return rows

    def fit_scaling(self, x_NF: ArrayLike) -> None:
        """Take median and quartiles of each feature from rows the model may learn from.

        A feature whose quartiles meet is scaled by its standard deviation, a constant
        one by 1. Missing values (NaN) do not count.
        """
        import torch

        x = np.asarray(x_NF, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.config.features:
            msg = (
                f"fit scaling: rows of shape {x.shape}, must be "
                f"(N, {self.config.features})"
            )
            raise EncoderLoadError(msg)
        center, scale = robust_scale(x)
        self.rows.center.copy_(torch.from_numpy(center))
        self.rows.scale.copy_(torch.from_numpy(scale))
        self.seal()

    def decode(self, payload: ArrayLike) -> NDArray[np.float32]:
        """The row as float32 (F,); NaN is allowed and means missing.

        With `steps`, the newest rows as float32 (T, F).
        """
        try:
            row = np.asarray(payload, dtype=np.float64)
        except (TypeError, ValueError) as error:
            msg = f"feature row cannot be read as numbers: {error}"
            raise PayloadError(msg) from error
        one, features = self.config.steps == 1, self.config.features
        fits = row.ndim == (1 if one else 2) and row.shape[-1] == features
        if not fits or not len(row):
            wanted = f"({features},)" if one else f"(T, {features}), T at least 1"
            msg = f"feature row has shape {row.shape}, must be {wanted}"
            raise PayloadError(msg)
        if (np.abs(row) > LARGEST).any():
            at = int(np.argmax(np.abs(row) > LARGEST))
            msg = f"feature {at % features} is {row.flat[at]}, out of range of float32"
            raise PayloadError(msg)
        return (row if one else row[-self.config.steps :]).astype(np.float32)

    def prepare(self, decoded: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        """The rows as they are, float32 (B, F); scaling is the network's first step.

        With `steps`, float32 (B, T, F), NaN after the newest event.
        """
        import torch

        if self.config.steps == 1:
            return torch.from_numpy(np.asarray(decoded, dtype=np.float32))
        shape = (len(decoded), self.config.steps, self.config.features)
        x_BTF = torch.full(shape, float("nan"))
        for row, events in zip(x_BTF, decoded, strict=True):
            row[: len(events)] = torch.from_numpy(events)
        return x_BTF

    def augment(
        self, prepared: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """A tenth of the values made missing."""
        import torch

        lost = torch.rand(prepared.shape, generator=generator) < 0.1
        return prepared.masked_fill(lost, float("nan"))

    def settings(self) -> dict[str, Any]:
        """The config and the version of the preparation."""
        options = settings_of(self.config, added=("categories", "steps"))
        return {**options, "preparation": 1}


def build_network(config: TabularConfig) -> nn.Module:
    """The network of single rows, or that of events in their order."""
    from encoders.network import RowMlp
    from encoders.sequence import SequenceNet

    if config.steps == 1:
        return RowMlp(
            features=config.features,
            width=config.width,
            hidden=config.hidden,
            categories=config.categories,
        )
    return SequenceNet(
        features=config.features,
        steps=config.steps,
        width=config.width,
        hidden=config.hidden,
        categories=config.categories,
    )


def robust_scale(
    x_NF: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and spread of each column, NaN left out; (0, 1) for an empty column."""
    center, scale = np.zeros(x_NF.shape[1]), np.ones(x_NF.shape[1])
    for column, values in enumerate(x_NF.T):
        seen = values[np.isfinite(values)]
        if not len(seen):
            continue
        low, center[column], high = np.percentile(seen, [25, 50, 75])
        spread = (high - low) / NORMAL_IQR or seen.std()
        if spread > 1e-9 * max(1.0, abs(center[column])):
            scale[column] = spread
    return center, scale
