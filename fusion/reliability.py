"""How far each token of the fusion can be trusted of late, from labels as they mature.

Training is days apart; a modality can go bad within the hour. What each token said of
a case is kept with the decision, so when the label comes it can be asked how much of
it should have been believed.

Shapes: `T` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityConfig:
    """What is held of a token before any label speaks.

    Attributes:
        turns_every: labels of cases a token spoke of, after which one expects it to
            have gone bad, or to have come back. Fewer follow faster, and doubt good
            ones more often.
        least: no token is trusted less, so that it can come back.
        base_rate: share of 1s.
        base_labels: how many labels that is worth; the rate follows those that come.
    """

    turns_every: float = 10_000.0
    least: float = 0.05
    base_rate: float = 0.01
    base_labels: float = 100.0


class Reliability:
    """Weights in `least`..1: how probable it is that a token still tells what it did.

    A token is either as good as when it was fitted, or worth `least` of what it says (a
    filter of two hidden states). Each label shifts the odds of the two by how likely
    the token alone made it. What the others said is left out on purpose: they would
    take the surprise out of a case all knew, and so most of what its label tells.

    Args:
        tokens: T.
        config: what is held before any label.

    Example:
        >>> trust = Reliability(1)
        >>> for label in [0, 1] * 500:  # it is sure, and wrong half the time
        ...     trust.learn(np.array([3.0]), label)
        >>> round(float(trust.weights()[0]), 2)
        0.05
    """

    def __init__(self, tokens: int, config: ReliabilityConfig | None = None) -> None:
        self.config = config or ReliabilityConfig()
        self._good = np.ones(tokens)
        self._ones = self.config.base_rate * self.config.base_labels
        self._labels = self.config.base_labels

    def learn(self, said: NDArray[np.floating[Any]], label: int) -> None:
        """Takes one matured label.

        Args:
            said: (T,) log-odds that each token added, had it been fully trusted; 0
                for the absent.
            label: 0 or 1.
        """
        spoke = said != 0
        self._good += spoke * (1 - 2 * self._good) / self.config.turns_every
        self._ones += label
        self._labels += 1
        base = logit(self._ones / self._labels)
        if_good, if_bad = (
            weight * label * said - np.logaddexp(0, base + weight * said)
            for weight in (1.0, self.config.least)
        )
        self._good = expit(logit(self._good) + if_good - if_bad)

    def weights(self) -> Vector:
        """(T,) how far each token can be trusted now."""
        return self.config.least + (1 - self.config.least) * self._good
