"""Events as 64-bit keys: what an account compares instead of three texts an event."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from automl.keys import text_keys

#: What makes two rows the same event: case_id, modality, event_id; None if unreadable.
EventKey = tuple[str | None, str | None, str | None]

_CASE, _MODALITY = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


def event_keys(
    case_id: pa.Array, modality: pa.Array | str, event_id: pa.Array
) -> npt.NDArray[np.uint64]:
    """uint64 (B,), one key for each event; two events share one with 2**-64.

    Args:
        case_id: B texts.
        modality: B texts, or the one of all rows.
        event_id: B texts.
    """
    if isinstance(modality, str):
        modality = pa.array([modality], pa.string())
    kinds = text_keys(modality)
    found = text_keys(case_id) * _CASE + text_keys(event_id) + kinds * _MODALITY
    return found ^ (found >> np.uint64(29))


@lru_cache(maxsize=1 << 18)
def key_of_event(event: EventKey) -> int:
    """The key of one event."""
    case_id, modality, event_id = (pa.array([part], pa.string()) for part in event)
    return int(event_keys(case_id, modality, event_id)[0])
