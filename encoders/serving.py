"""Which form of the text transformer is fastest here, and what each one loses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encoders.base import EncoderLoadError
from encoders.packed import FORMS

if TYPE_CHECKING:
    from encoders.text import TextEncoder

#: Texts of one call while it is measured, as in a job's micro-batch.
BATCH_TEXTS = 16
#: No vector may turn further from that of torch in float32 than this cosine says.
LEAST_COSINE = 0.99
#: A vector may differ by this between a text alone and among others.
MOST_DRIFT = 1e-5
#: A form must be this much faster than torch to be taken.
LEAST_GAIN = 1.2
ROUNDS = 2
MOST_TEXTS = 64


def choose_form(encoder: TextEncoder, texts: Sequence[str]) -> dict[str, Any]:
    """Switch the encoder to the fastest form that keeps its vectors.

    Args:
        encoder: ends in the chosen form.
        texts: what is read here; at most 64 of them are measured.

    Returns: `form`, and under `measured` per form: `gain` (CPU time of torch over its
        own), `cosine` (the least, to torch in float32), `drift` (the most a vector
        changes by its neighbours).
    """
    step = max(1, len(texts) // MOST_TEXTS)
    some = list(texts[::step][:MOST_TEXTS])
    seconds: dict[str, list[float]] = {}
    vectors: dict[str, NDArray[np.float32]] = {}
    for _ in range(ROUNDS):
        for form in ("torch", *FORMS):
            try:
                encoder.serve(form)
            except EncoderLoadError:
                continue
            encoder.encode(some[:2])
            began = time.process_time()
            vectors[form] = _encode(encoder, some)
            seconds.setdefault(form, []).append(time.process_time() - began)
    measured, best, gain = {}, "torch", LEAST_GAIN
    for form, found in vectors.items():
        encoder.serve(form)
        about = {
            "gain": round(min(seconds["torch"]) / max(min(seconds[form]), 1e-9), 2),
            "cosine": _least_cosine(found, vectors["torch"]),
            "drift": _drift(encoder, some[:BATCH_TEXTS], found[:BATCH_TEXTS]),
        }
        measured[form] = about
        kept = about["cosine"] >= LEAST_COSINE and about["drift"] <= MOST_DRIFT
        if kept and about["gain"] >= gain:
            best, gain = form, about["gain"]
    encoder.serve(best)
    return {"form": best, "measured": measured}


def _encode(encoder: TextEncoder, texts: list[str]) -> NDArray[np.float32]:
    starts = range(0, len(texts), BATCH_TEXTS)
    parts = [encoder.encode(texts[at : at + BATCH_TEXTS]) for at in starts]
    return np.concatenate([np.zeros((0, encoder.width), np.float32), *parts])


def _least_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return round(float((a * b).sum(axis=1).min(initial=1.0)), 5)


def _drift(
    encoder: TextEncoder, texts: list[str], together: NDArray[np.float32]
) -> float:
    alone = [
        encoder.encode([text]) - row for text, row in zip(texts, together, strict=True)
    ]
    return max((float(np.abs(change).max()) for change in alone), default=0.0)
