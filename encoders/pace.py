"""How a training goes on: the learning rate over the steps, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

#: The share of the steps in which the learning rate rises to its peak.
WARM_SHARE = 0.15


def rate_share(done: float) -> float:
    """The learning rate as a share of its peak: a short rise, then half a cosine.

    Args:
        done: share of the steps that are done, 0..1.

    Example:
        >>> [round(rate_share(done), 3) for done in (0.0, 0.15, 1.0)]
        [0.05, 1.0, 0.0]
    """
    if done < WARM_SHARE:
        return 0.05 + 0.95 * done / WARM_SHARE
    return 0.5 * (1.0 + math.cos(math.pi * (done - WARM_SHARE) / (1.0 - WARM_SHARE)))


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the weights, safe to keep."""
    return {k: v.detach().clone() for k, v in network.state_dict().items()}


class WeightAverage:
    """A running average of the weights of networks, steadier than the last weights.

    Args:
        networks: by name; they are read, never changed, until `hand_over`.
        decay: how much of the average stays at each step, once it has warmed up.

    Attributes:
        steps: taken so far.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self._networks = dict(networks)
        self._decay = decay
        self.steps = 0
        self._mean = {
            name: state_of(network) for name, network in self._networks.items()
        }

    def take(self) -> None:
        """Count the weights as they are now."""
        self.steps += 1
        # A young average forgets faster, so the first random weights do not linger.
        keep = min(self._decay, self.steps / (self.steps + 9.0))
        with torch.no_grad():
            for name, network in self._networks.items():
                mean = self._mean[name]
                for key, now in network.state_dict().items():
                    if now.is_floating_point():
                        mean[key].lerp_(now, 1.0 - keep)
                    else:
                        mean[key].copy_(now)

    def take_up(self, mean: Mapping[str, torch.Tensor], steps: int) -> None:
        """Go on from an average of so many steps, its tensors named NETWORK.KEY."""
        self.steps = steps
        for name, own in self._mean.items():
            for key, value in own.items():
                value.copy_(mean[f"{name}.{key}"])

    def copy(self) -> dict[str, dict[str, torch.Tensor]]:
        """The average as state dicts by name, safe to keep."""
        return {
            name: {k: v.clone() for k, v in mean.items()}
            for name, mean in self._mean.items()
        }

    def swap(self) -> None:
        """Exchange the weights with their average; a second call exchanges back."""
        for name, network in self._networks.items():
            own = state_of(network)
            network.load_state_dict(self._mean[name])
            self._mean[name] = own

    def hand_over(self) -> None:
        """Give every network its average."""
        for name, network in self._networks.items():
            network.load_state_dict(self._mean[name])
