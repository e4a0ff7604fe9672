"""Feature rows: scaling worked out by hand, missing values, refused rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from encoders.base import EncoderLoadError, PayloadError
from encoders.tabular import TabularConfig, TabularEncoder, robust_scale


@pytest.fixture
def encoder() -> TabularEncoder:
    return TabularEncoder(TabularConfig(features=3, width=16))


def test_scale_is_the_median_and_the_quartiles() -> None:
    column = np.array([[0.0], [1.0], [2.0], [3.0], [1000.0]])
    center, scale = robust_scale(column)
    assert center.tolist() == [2.0]
    np.testing.assert_allclose(scale, [2.0 / 1.349])


def test_scale_of_rare_constant_and_empty_columns() -> None:
    x = np.zeros((10, 3))
    x[0, 0] = 10.0
    x[:, 1] = 7.0
    x[:, 2] = np.nan
    center, scale = robust_scale(x)
    assert center.tolist() == [0.0, 7.0, 0.0]
    np.testing.assert_allclose(scale, [3.0, 1.0, 1.0])


def test_a_missing_value_is_the_median(encoder: TabularEncoder) -> None:
    x = np.random.default_rng(0).normal(5.0, 2.0, (101, 3))
    encoder.fit_scaling(x)
    middle = np.median(x, axis=0)
    missing = [np.nan, middle[1], np.nan]
    vectors = encoder.encode([encoder.decode(middle), encoder.decode(missing)])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)


def test_scaling_is_part_of_the_fingerprint(encoder: TabularEncoder) -> None:
    before = encoder.fingerprint
    encoder.fit_scaling(np.arange(30.0).reshape(10, 3))
    assert encoder.fingerprint != before


def test_largest_values_stay_finite(encoder: TabularEncoder) -> None:
    rows = [[3e38, -3e38, 0.0], [np.nan] * 3]
    encoder.fit_scaling(np.full((5, 3), 1e-30) * np.arange(5)[:, None])
    vectors = encoder.encode([encoder.decode(row) for row in rows])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ([1.0, 2.0], "shape"),
        ([[1.0, 2.0, 3.0]], "shape"),
        ([], "shape"),
        ([1.0, "x", 2.0], "cannot be read as numbers"),
        ([1.0, None, [2.0]], "cannot be read as numbers"),
        ([1.0, float("inf"), 2.0], "feature 1 is inf"),
        ([1.0, 2.0, -1e300], "feature 2 is -1e"),
    ],
)
def test_bad_rows_are_refused(
    encoder: TabularEncoder, payload: Any, reason: str
) -> None:
    with pytest.raises(PayloadError, match=reason):
        encoder.decode(payload)


def test_a_matrix_of_rows_is_encoded_as_it_is(encoder: TabularEncoder) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert np.array_equal(encoder.encode(rows), encoder.encode(list(rows)))


def test_scaling_rows_of_another_shape_is_a_load_error(encoder: TabularEncoder) -> None:
    with pytest.raises(EncoderLoadError, match=r"must be \(N, 3\)"):
        encoder.fit_scaling(np.zeros((4, 2)))


def test_categories_have_vectors_of_their_own() -> None:
    encoder = TabularEncoder(TabularConfig(features=3, width=16, categories=(0, 4, 2)))
    encoder.fit_scaling(np.random.default_rng(0).normal(size=(50, 3)))
    rows = [[1.0, code, 0.0] for code in (0, 1, 2, 3, np.nan, 4, -1, 1.5)]
    vectors = encoder.encode([encoder.decode(row) for row in rows])
    apart = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    assert (apart[:5, :5][~np.eye(5, dtype=bool)] > 1e-3).all()
    np.testing.assert_array_equal(vectors[5:], vectors[[4, 4, 4]])


def test_the_tables_of_two_categories_do_not_overlap() -> None:
    encoder = TabularEncoder(TabularConfig(features=2, width=16, categories=(3, 5)))
    table = encoder.network.table
    assert table is not None
    assert table.num_embeddings == 4 + 6
    used = []
    table.register_forward_hook(lambda _, given, __: used.append(given[0].tolist()))
    encoder.encode([encoder.decode(row) for row in ([np.nan, np.nan], [2, 0], [0, 4])])
    assert used == [[[0, 4], [3, 5], [1, 9]]]


@pytest.mark.parametrize("categories", [(1, 2), (0, 0, -1), (0, 0, 2.0)])
def test_categories_that_do_not_fit_are_refused(categories: Any) -> None:
    with pytest.raises(EncoderLoadError, match="one whole number for each of the 3"):
        TabularConfig(features=3, categories=categories)
