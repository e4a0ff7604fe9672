"""What every encoder must do: unit rows, alone or in company, again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from encoders import ENCODERS, EncoderLoadError, build_encoder
from encoders.base import MODALITIES
from encoders.tabular import TabularConfig
from encoders.trainable import TrainableEncoder

Fresh = Callable[[], dict[str, TrainableEncoder]]


def test_the_table_is_in_the_order_of_modalities() -> None:
    assert tuple(ENCODERS) == MODALITIES
    assert [c.modality for c in ENCODERS.values()] == list(MODALITIES)


@pytest.mark.parametrize("modality", MODALITIES)
def test_vectors_are_unit_rows_and_do_not_depend_on_the_batch(
    modality: str, fresh: Fresh, payloads: dict[str, list[Any]]
) -> None:
    encoder = fresh()[modality]
    decoded = [encoder.decode(payload) for payload in payloads[modality]]
    together = encoder.encode(decoded)
    alone = np.concatenate([encoder.encode([item]) for item in decoded])
    assert together.shape == (3, 32)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(decoded[::-1]), alone[::-1], atol=1e-5)
    assert np.array_equal(together, encoder.encode(decoded))


@pytest.mark.parametrize("modality", MODALITIES)
def test_same_seed_same_encoder_and_another_seed_another(
    modality: str, fresh: Fresh, payloads: dict[str, list[Any]]
) -> None:
    first, second = fresh()[modality], fresh()[modality]
    decoded = [first.decode(payload) for payload in payloads[modality]]
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.encode(decoded), second.encode(decoded))
    other = build_encoder(
        type(first.config)(
            **{
                name: getattr(first.config, name)
                for name in type(first.config).__dataclass_fields__
            }
            | {"seed": 1}
        )
    )
    assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize("modality", MODALITIES)
def test_an_empty_batch_gives_no_rows(modality: str, fresh: Fresh) -> None:
    assert fresh()[modality].encode([]).shape == (0, 32)


@pytest.mark.parametrize("modality", MODALITIES)
def test_more_items_than_a_chunk_keep_their_order(
    modality: str, fresh: Fresh, payloads: dict[str, list[Any]]
) -> None:
    encoder = fresh()[modality]
    decoded = [encoder.decode(payload) for payload in payloads[modality]]
    vectors = encoder.encode(decoded * 23)
    np.testing.assert_allclose(
        vectors, np.tile(encoder.encode(decoded), (23, 1)), atol=1e-5
    )
    prepared = encoder.prepare(decoded * 23)
    np.testing.assert_allclose(encoder.encode_prepared(prepared), vectors, atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_fingerprint_follows_the_weights(modality: str, fresh: Fresh) -> None:
    encoder = fresh()[modality]
    before = encoder.fingerprint
    with torch.no_grad():
        next(encoder.network.parameters()).view(-1)[0].add_(1e-3)
    encoder.seal()
    assert encoder.fingerprint != before


def test_building_leaves_the_random_numbers_of_the_process_alone(fresh: Fresh) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    fresh()
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def test_build_reads_a_config_object_or_a_mapping() -> None:
    one = build_encoder(TabularConfig(features=4, width=16))
    two = build_encoder({"modality": "tabular", "features": 4, "width": 16})
    assert one.fingerprint == two.fingerprint


def test_build_refuses_an_unknown_modality() -> None:
    with pytest.raises(EncoderLoadError, match="'video', must be one of"):
        build_encoder({"modality": "video"})
