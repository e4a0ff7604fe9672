from __future__ import annotations

import json
import shutil

import pytest

from encoders.base import EncoderLoadError
from pipelines.encoder_check import EncoderMismatchError, check_encoders


@pytest.fixture
def copy(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "copy")


def change(copy, **fields):
    path = copy / "encoders" / "image" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_the_encoders_of_a_version_fit_it(model_folder):
    check_encoders(model_folder)


def test_another_fingerprint_is_refused_and_both_are_named(copy):
    change(copy, fingerprint="0123456789abcdef")
    known = json.loads((copy / "manifest.json").read_text())["fingerprints"]["image"]
    with pytest.raises(EncoderMismatchError, match="image is 0123456789abcdef") as told:
        check_encoders(copy)
    assert known in str(told.value)


def test_another_width_is_refused_and_both_are_named(copy):
    change(copy, width=99)
    with pytest.raises(EncoderMismatchError, match=r"of width 99, .* of width 16"):
        check_encoders(copy)


def test_a_damaged_config_is_refused(copy):
    (copy / "encoders" / "image" / "config.json").write_text("{}")
    with pytest.raises(EncoderLoadError, match="missing"):
        check_encoders(copy)
