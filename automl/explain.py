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
    *,
    k: int = 3,
) -> list[dict[str, Any]]:
    """Lists what pushed the log-odds of one case up.

    Args:
        names: (F,) feature names.
        values: (F,) the row's values; a missing one (NaN) is given as None.
        contributions: (F,) what each feature added to the log-odds.
        modality_deltas: what each present modality's embedding added.
        k: most reasons given.

    Returns:
        At most `k` dicts of kind ("feature" or "modality"), name, value and effect,
        strongest first; only what raised the score. `value` is None for a modality.
    """
    if not len(names) == len(values) == len(contributions):
        msg = (
            f"explain: {len(names)} names, {len(values)} values and"
            f" {len(contributions)} contributions do not fit together"
        )
        raise ValueError(msg)
    found: list[dict[str, Any]] = []
    for name, value, effect in zip(names, values, contributions, strict=True):
        number = float(value)
        found.append(
            {
                "kind": "feature",
                "name": name,
                "value": number if math.isfinite(number) else None,
                "effect": float(effect),
            }
        )
    for name, effect in modality_deltas.items():
        found.append(
            {"kind": "modality", "name": name, "value": None, "effect": float(effect)}
        )
    raised = [reason for reason in found if reason["effect"] > 0]
    raised.sort(key=lambda reason: (-reason["effect"], reason["kind"], reason["name"]))
    return raised[:k]
