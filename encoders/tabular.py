"""Feature rows to vectors: robust scaling and a small network.

Legend: `N` `B` rows, `F` features, in the order of the model's manifest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.base import EncoderConfig, EncoderLoadError, PayloadError
from encoders.trainable import TrainableEncoder

if TYPE_CHECKING:
    import torch

    from encoders.network import RowMlp

#: The quartiles' distance of a normal distribution, in standard deviations.
NORMAL_IQR = 1.349
#: No finite float32 exceeds this; larger values are refused.
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class TabularConfig(EncoderConfig):
    """Options of the tabular encoder.

    Attributes:
        features: F, how many values a row has.
        hidden: width of the two inner layers.
    """

    features: int
    hidden: int = 64

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        if self.features < 1 or self.hidden < 1:
            msg = (
                f"read tabular config: features is {self.features} and hidden is "
                f"{self.hidden}, both must be at least 1"
            )
            raise EncoderLoadError(msg)


class TabularEncoder(TrainableEncoder):
    """A row of feature values, each scaled by its median and quartiles."""

    modality: ClassVar[str] = "tabular"
    config_class: ClassVar[type[EncoderConfig]] = TabularConfig
    config: TabularConfig
    network: RowMlp

    def __init__(self, config: TabularConfig) -> None:
        from encoders.network import RowMlp, seeded

        self.config = config
        self.width = config.width
        self.network = seeded(
            lambda: RowMlp(
                features=config.features, width=config.width, hidden=config.hidden
            ),
            config.seed,
        )
        self.seal()

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
        self.network.center.copy_(torch.from_numpy(center))
        self.network.scale.copy_(torch.from_numpy(scale))
        self.seal()

    def decode(self, payload: ArrayLike) -> NDArray[np.float32]:
        """The row as float32 (F,); NaN is allowed and means missing."""
        try:
            row = np.asarray(payload, dtype=np.float64)
        except (TypeError, ValueError) as error:
            msg = f"feature row cannot be read as numbers: {error}"
            raise PayloadError(msg) from error
        if row.shape != (self.config.features,):
            msg = (
                f"feature row has shape {row.shape}, must be ({self.config.features},)"
            )
            raise PayloadError(msg)
        if (np.abs(row) > LARGEST).any():
            at = int(np.argmax(np.abs(row) > LARGEST))
            msg = f"feature {at} is {row[at]}, out of range of float32"
            raise PayloadError(msg)
        return row.astype(np.float32)

    def prepare(self, decoded: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        """The rows as they are, float32 (B, F); scaling is the network's first step."""
        import torch

        return torch.from_numpy(np.asarray(decoded, dtype=np.float32))

    def augment(
        self, prepared: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """A tenth of the values made missing."""
        import torch

        lost = torch.rand(prepared.shape, generator=generator) < 0.1
        return prepared.masked_fill(lost, float("nan"))

    def settings(self) -> dict[str, Any]:
        """The config and the version of the preparation."""
        return {**dataclasses.asdict(self.config), "preparation": 1}


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
