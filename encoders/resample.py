"""Samples of one rate at another: a windowed sinc, a matrix product, no torch.

Legend: `S` samples, `K` samples a filter reads, `P` filters, one for each place that an
output sample can have between two input samples.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: Zero crossings of the sinc on each side.
CROSSINGS = 6
#: The pass band ends this far below the lower of the two Nyquist frequencies.
ROLL_OFF = 0.99
#: Filters kept ready, a set for each pair of rates.
KEPT_FILTERS = 8


def resampled(
    samples: NDArray[np.float32], from_hz: int, to_hz: int
) -> NDArray[np.float32]:
    """The samples (S,) as float32 (ceil(S * to_hz / from_hz),) at another rate.

    Example:
        >>> resampled(np.ones(4, np.float32), 8000, 16000).shape
        (8,)
    """
    if from_hz == to_hz:
        return samples
    step = from_hz // math.gcd(from_hz, to_hz)
    filters_KP, reach = _filters(from_hz, to_hz)
    places = filters_KP.shape[1]
    wanted = -(-len(samples) * places // step)
    padded = np.pad(samples, (reach, reach + step))
    seen = np.lib.stride_tricks.sliding_window_view(padded, len(filters_KP))[::step]
    out: NDArray[np.float32] = (seen @ filters_KP).ravel()[:wanted]
    return out


@lru_cache(maxsize=KEPT_FILTERS)
def _filters(from_hz: int, to_hz: int) -> tuple[NDArray[np.float32], int]:
    """float32 (K, P), and how many samples before its own a filter reads."""
    common = math.gcd(from_hz, to_hz)
    step, places = from_hz // common, to_hz // common
    cut = ROLL_OFF * min(step, places)
    reach = math.ceil(CROSSINGS * step / cut)
    offset_K = np.arange(-reach, reach + step) / step
    at_KP = cut * (offset_K[:, None] - np.arange(places) / places)
    inside = np.clip(at_KP, -CROSSINGS, CROSSINGS)
    window = np.cos(inside * np.pi / CROSSINGS / 2) ** 2
    return (np.sinc(inside) * window * cut / step).astype(np.float32), reach
