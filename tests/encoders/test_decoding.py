from __future__ import annotations

import subprocess
import sys

import pytest

from encoders import build_encoder, save_encoders
from encoders.base import EncoderLoadError, LimitError
from encoders.decoding import load_decoders


def test_a_decoder_has_the_limits_of_its_encoder(tmp_path):
    clips = build_encoder({"modality": "audio", "width": 8, "max_bytes": 10})
    rows = build_encoder({"modality": "tabular", "width": 8, "features": 3})
    save_encoders({"audio": clips, "tabular": rows}, tmp_path)
    decoders = load_decoders(tmp_path)
    assert set(decoders) == {"audio"}  # a row needs no decoding apart
    with pytest.raises(LimitError, match="limit is 10"):
        decoders["audio"](b"RIFF" + bytes(20))


def test_a_damaged_config_is_refused(tmp_path):
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "config.json").write_text("{")
    with pytest.raises(EncoderLoadError, match="image"):
        load_decoders(tmp_path)


def test_loading_decoders_loads_no_torch():
    code = "import sys, encoders.decoding; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"
