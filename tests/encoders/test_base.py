"""Unit rows, fingerprints, and options that are refused by name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from encoders.base import (
    EncoderError,
    EncoderLoadError,
    PayloadError,
    fingerprint_of,
    payload_bytes,
    read_config,
    unit_rows,
)
from encoders.image import ImageConfig
from encoders.tabular import TabularConfig


def test_rows_get_length_one_and_no_direction_becomes_the_first_axis() -> None:
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [0.0, -2e30]]))
    expected = [[0.6, 0.8], [1.0, 0.0], [1.0, 0.0], [0.0, -1.0]]
    np.testing.assert_allclose(rows, expected, atol=1e-7)
    assert rows.dtype == np.float32


def test_rows_with_nan_are_named_not_returned() -> None:
    with pytest.raises(EncoderError, match=r"rows \[1\] hold NaN"):
        unit_rows(np.array([[1.0, 0.0], [np.nan, 0.0]]))


def test_fingerprint_depends_on_weights_names_shapes_and_settings() -> None:
    weights = {"a": np.array([1.0, 2.0], np.float32)}
    prints = {
        fingerprint_of(weights, {"x": 1}),
        fingerprint_of({"a": np.array([1.0, 2.5], np.float32)}, {"x": 1}),
        fingerprint_of({"b": weights["a"]}, {"x": 1}),
        fingerprint_of({"a": weights["a"].reshape(2, 1)}, {"x": 1}),
        fingerprint_of(weights, {"x": 2}),
    }
    assert len(prints) == 5
    assert all(len(text) == 16 for text in prints)
    assert fingerprint_of(dict(weights), {"x": 1}) in prints


def test_unknown_option_names_the_nearest_known_one() -> None:
    with pytest.raises(EncoderLoadError, match=r"'max_pixel'.*'max_pixels'"):
        read_config(ImageConfig, {"max_pixel": 5}, "modalities.image")


@pytest.mark.parametrize("value", ["64", 6.4, True])
def test_option_of_the_wrong_type_is_refused(value: object) -> None:
    with pytest.raises(EncoderLoadError, match=r"'side_px' is .* must be int"):
        read_config(ImageConfig, {"side_px": value}, "modalities.image")


def test_missing_option_and_zero_width_are_refused() -> None:
    with pytest.raises(EncoderLoadError, match="'features' is missing"):
        read_config(TabularConfig, {}, "modalities.tabular")
    with pytest.raises(EncoderLoadError, match="width is 0"):
        TabularConfig(features=3, width=0)


def test_payload_must_be_bytes_present_and_short_enough() -> None:
    assert payload_bytes(memoryview(b"abc"), 3) == b"abc"
    with pytest.raises(PayloadError, match="is str, must be bytes"):
        payload_bytes("abc", 3)
    with pytest.raises(PayloadError, match="empty"):
        payload_bytes(b"", 3)
    with pytest.raises(PayloadError, match="4 bytes, the limit is 3"):
        payload_bytes(b"abcd", 3)


def test_importing_the_room_loads_no_torch() -> None:
    code = "import sys, encoders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
