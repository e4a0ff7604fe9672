"""Classes: told on unseen items, refused when they do not fit, repeated by a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from encoders.base import EncoderError
from encoders.classify import ClassHead, fit_classes
from encoders.trainable import TrainableEncoder

Make = Callable[..., bytes]
Fresh = Callable[[], dict[str, TrainableEncoder]]


def tones(encoder: TrainableEncoder, wav: Make, each: int) -> tuple[list[Any], Any]:
    """Three heights of a tone, `each` of them, none twice the same."""
    rng = np.random.default_rng(each)
    kind = np.repeat(np.arange(3), each)
    heard = [wav(0.3, 8000, 300.0 * 2**k * rng.uniform(0.95, 1.05)) for k in kind]
    return [encoder.decode(clip) for clip in heard], kind


def test_classes_are_told_on_items_never_seen(fresh: Fresh, wav: Make) -> None:
    encoder = fresh()["audio"]
    before = encoder.fingerprint
    lines: list[str] = []
    head = fit_classes(
        encoder,
        *tones(encoder, wav, 16),
        classes=3,
        seed=0,
        epochs=12,
        batch=16,
        progress=lambda done, line: lines.append(line),
    )
    assert encoder.fingerprint != before
    assert len(lines) == 12
    unseen, kind = tones(encoder, wav, 8)
    likely = head.predict(encoder.encode(unseen))
    assert likely.dtype == np.float32
    np.testing.assert_allclose(likely.sum(axis=1), 1.0, atol=1e-5)
    assert (likely.argmax(axis=1) == kind).mean() > 0.9


def test_the_same_seed_gives_the_same_head(fresh: Fresh, wav: Make) -> None:
    made = []
    for seed in (1, 1, 2):
        encoder = fresh()["audio"]
        items, kind = tones(encoder, wav, 3)
        head = fit_classes(encoder, items, kind, classes=3, seed=seed, epochs=1)
        made.append((encoder.fingerprint, head.weight.tobytes()))
    assert made[0] == made[1]
    assert made[0][0] != made[2][0]


def test_probabilities_are_the_softmax_of_the_line() -> None:
    head = ClassHead(weight=np.eye(2, dtype=np.float32), bias=np.zeros(2, np.float32))
    likely = head.predict([[np.log(3.0), 0.0]])
    assert likely[0].tolist() == pytest.approx([0.75, 0.25])
    assert head.predict(np.empty((0, 2))).shape == (0, 2)
    with pytest.raises(EncoderError, match=r"must be \(N, 2\)"):
        head.predict([[1.0]])


def test_labels_that_do_not_fit_are_refused(fresh: Fresh, wav: Make) -> None:
    encoder = fresh()["audio"]
    items, kind = tones(encoder, wav, 1)
    for given, labels, words in (
        ([], [], "no items"),
        (items, kind[:2], r"must be \(3,\)"),
        (items, kind + 1, r"1\.\.3, must be 0\.\.2"),
    ):
        with pytest.raises(EncoderError, match=words):
            fit_classes(encoder, given, labels, classes=3, seed=0, epochs=1)
