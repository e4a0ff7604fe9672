"""How far each token of the fusion can be trusted of late, from labels as they mature.

Training is days apart; a modality can go bad within the hour. What each token said of
a case is kept with the decision, so when the label comes it can be asked how much of
it should have been believed.

Shapes: `T` tokens, `L` labels.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityConfig:
    """How fast trust follows the labels.

    Attributes:
        half_life: labels after which one counts half.
        least: no token is trusted less, so that it can come back.
        caution: how strongly weights are held at 1: half of it times the square of
            what is missing is added to the loss.
        kept: latest labels that are looked at.
    """

    half_life: float = 500.0
    least: float = 0.05
    caution: float = 1.0
    kept: int = 4000


class Reliability:
    """Weights in `least`..1 that make the latest labels likeliest.

    A case's log-odds are taken as `rest + weights @ said`: what the tree and the
    interplay of all say stands, what each token adds is scaled.

    Args:
        tokens: T.
        config: how fast it follows.

    Example:
        >>> trust = Reliability(1)
        >>> for label in [0, 1] * 500:  # it is sure, and wrong half the time
        ...     trust.learn(np.array([3.0]), 0.0, label)
        >>> float(trust.weights()[0])
        0.05
    """

    def __init__(self, tokens: int, config: ReliabilityConfig | None = None) -> None:
        self.tokens = tokens
        self.config = config or ReliabilityConfig()
        self._latest: deque[tuple[Vector, float, int]] = deque(maxlen=self.config.kept)
        self._weights = np.ones(tokens)

    def __len__(self) -> int:
        return len(self._latest)

    def learn(self, said: NDArray[np.floating[Any]], rest: float, label: int) -> None:
        """Takes one matured label.

        Args:
            said: (T,) log-odds that each token added, had it been fully trusted; 0
                for the absent.
            rest: the case's other log-odds.
            label: 0 or 1.
        """
        self._latest.append((np.asarray(said, np.float64), rest, label))

    def weights(self) -> Vector:
        """(T,) how far each token can be trusted now."""
        if not self._latest:
            return self._weights
        said_LT = np.array([said for said, _, _ in self._latest])
        rest = np.array([rest for _, rest, _ in self._latest])
        y = np.array([label for _, _, label in self._latest], dtype=np.float64)
        age = np.arange(len(y))[::-1]
        counts = 0.5 ** (age / self.config.half_life)
        found = self._weights.copy()
        for _ in range(50):
            chance = expit(rest + said_LT @ found)
            slope = said_LT.T @ (counts * (chance - y))
            slope += self.config.caution * (found - 1)
            curve = (said_LT.T * (counts * chance * (1 - chance))) @ said_LT
            curve[np.diag_indices(self.tokens)] += self.config.caution
            # at a bound only steps that lead away from it
            stuck = ((found <= self.config.least) & (slope > 0)) | (
                (found >= 1) & (slope < 0)
            )
            free = np.flatnonzero(~stuck)
            step = np.zeros(self.tokens)
            step[free] = np.linalg.solve(curve[np.ix_(free, free)], slope[free])
            moved = np.clip(found - step, self.config.least, 1.0)
            done = np.abs(moved - found).max() < 1e-4
            found = moved
            if done:
                break
        self._weights = found
        return found
