"""Events of an entity: what tells is their order, and the newest of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from encoders import build_encoder
from encoders.base import EncoderLoadError, PayloadError
from encoders.classify import fit_classes
from encoders.tabular import TabularConfig, TabularEncoder


@pytest.fixture
def encoder() -> TabularEncoder:
    return TabularEncoder(TabularConfig(features=2, width=16, steps=30, hidden=32))


def test_a_jump_is_told_by_the_order_of_the_amounts(encoder: TabularEncoder) -> None:
    # the same amounts in both classes: only their order and distance tell
    rng = np.random.default_rng(0)
    histories, labels = [], rng.integers(0, 2, 500)
    for label in labels:
        amount = np.sort(rng.lognormal(3.0, 1.0, int(rng.integers(5, 40))))
        start = rng.permutation(len(amount) - 1)
        order = [*start, len(amount) - 1] if label else [len(amount) - 1, *start]
        histories.append(np.stack([amount[order], rng.normal(size=len(order))], axis=1))
    encoder.fit_scaling(np.concatenate(histories))
    decoded = [encoder.decode(one) for one in histories]
    head = fit_classes(
        encoder, decoded[:400], labels[:400], classes=2, seed=0, epochs=12
    )
    told = head.predict(encoder.encode(decoded[400:]))[:, 1]
    assert roc_auc_score(labels[400:], told) > 0.9


def test_only_the_newest_events_are_read(encoder: TabularEncoder) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 2))
    whole, newest = encoder.encode([encoder.decode(rows), encoder.decode(rows[-30:])])
    np.testing.assert_array_equal(whole, newest)


def test_a_vector_does_not_depend_on_its_neighbours(encoder: TabularEncoder) -> None:
    rng = np.random.default_rng(2)
    decoded = [encoder.decode(rng.normal(size=(n, 2))) for n in (1, 7, 30, 12)]
    together = encoder.encode(decoded)
    alone = np.concatenate([encoder.encode([one]) for one in decoded])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_event_of_missing_values_still_counts(encoder: TabularEncoder) -> None:
    rows = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]])
    vectors = encoder.encode([encoder.decode(rows), encoder.decode(rows[[0, 2]])])
    assert np.isfinite(vectors).all()
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


@pytest.mark.parametrize("payload", [np.zeros((0, 2)), np.zeros((3, 1)), np.zeros(2)])
def test_other_shapes_are_refused(encoder: TabularEncoder, payload: object) -> None:
    with pytest.raises(PayloadError, match=r"must be \(T, 2\), T at least 1"):
        encoder.decode(payload)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("hidden", 30)])
def test_options_out_of_range_are_refused(name: str, value: int) -> None:
    options = {"modality": "tabular", "features": 2, "steps": 30, name: value}
    with pytest.raises(EncoderLoadError, match=f"{name} is {value}"):
        build_encoder(options)
