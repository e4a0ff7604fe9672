"""Which features and which modalities moved one score, strongest first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def reasons(
    names: Sequence[str],
    values: Sequence[float] | NDArray[np.floating[Any]],
    contributions: Sequence[float] | NDArray[np.floating[Any]],
    modality_deltas: Mapping[str, float],
    agreements: Mapping[str, tuple[float, float]] | None = None,
    *,
    k: int = 4,
) -> list[dict[str, Any]]:
    """Lists what pushed the log-odds of one case up.

    Args:
        names: (F,) feature names.
        values: (F,) the row's values; a missing one (NaN) is given as None.
        contributions: (F,) what each feature added to the log-odds.
        modality_deltas: what each present modality's embedding added.
        agreements: of a pair such as "image+audio" the cosine of its two embeddings,
            and what that added.
        k: most reasons given.

    Returns:
        At most `k` dicts of kind ("feature", "modality" or "agreement"), name, value
        and effect, strongest first; only what raised the score. `value` is None for a
        modality, whose effect includes that of its agreements.
    """
    if not len(names) == len(values) == len(contributions):
        msg = (
            f"explain: {len(names)} names, {len(values)} values and"
            f" {len(contributions)} contributions do not fit together"
        )
        raise ValueError(msg)
    told = [
        ("feature", name, float(value), float(effect))
        for name, value, effect in zip(names, values, contributions, strict=True)
        if effect > 0
    ]
    told += [
        ("modality", name, math.nan, float(effect))
        for name, effect in modality_deltas.items()
        if effect > 0
    ]
    told += [
        ("agreement", name, value, effect)
        for name, (value, effect) in (agreements or {}).items()
        if effect > 0
    ]
    told.sort(key=lambda reason: (-reason[3], reason[0], reason[1]))
    return [
        {
            "kind": kind,
            "name": name,
            "value": value if math.isfinite(value) else None,
            "effect": effect,
        }
        for kind, name, value, effect in told[:k]
    ]
