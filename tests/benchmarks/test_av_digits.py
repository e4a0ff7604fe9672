from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from benchmarks import av_digits, digits


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten kinds of tone and stripe, two speakers, and pairs of the same kind."""
    rng = np.random.default_rng(0)
    (tmp_path / "av-digits").mkdir()
    (tmp_path / "quad-fraud").mkdir()
    kind = np.arange(80) % 10
    tones, stripes = [], []
    for k in kind:
        clip, picture = io.BytesIO(), io.BytesIO()
        t = np.arange(3000) * (0.15 + 0.2 * k + rng.uniform(-0.02, 0.02))
        soundfile.write(clip, 0.5 * np.sin(t), 8000, format="WAV")
        pixels = np.zeros((28, 28), np.uint8)
        pixels[:, 2 * k + 2 : 2 * k + 5] = rng.integers(150, 255)
        Image.fromarray(pixels).save(picture, "PNG")
        tones.append(clip.getvalue())
        stripes.append(picture.getvalue())
    speaker = ["one", "two"] * 40
    audio = {"audio_id": range(80), "digit": kind, "speaker": speaker, "wav": tones}
    image = {"image_id": range(80), "digit": kind, "png": stripes}
    pairs = {"image_id": range(80), "audio_id": range(80)}
    pairs["split"] = ["train"] * 60 + ["test"] * 20
    week = {"TRANSACTION_ID": range(80), "image_id": range(80)}
    truth = {"TRANSACTION_ID": range(80), "TX_FRAUD": [0] * 80}
    for split in ("train", "test"):
        turned = (np.arange(80) + (np.arange(80) % 3 == 0)) % 80
        links = {**week, "audio_id": turned}
        write(tmp_path, f"quad-fraud/{split}_links", links)
        write(tmp_path, f"quad-fraud/{split}_truth", truth)
    write(tmp_path, "av-digits/audio", audio)
    write(tmp_path, "av-digits/images", image)
    write(tmp_path, "av-digits/pairs", pairs)
    monkeypatch.setattr(av_digits, "EPOCHS", {"image": 2, "audio": 2})
    return tmp_path


def write(folder: Path, name: str, columns: dict[str, object]) -> None:
    table = pa.table({k: pa.array(list(v)) for k, v in columns.items()})
    pq.write_table(table, folder / f"{name}.parquet")


def test_every_part_gives_figures(small: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--data", str(small), "--steps", "3"]
    assert av_digits.main(given) == 0
    printed = capsys.readouterr().out
    for name in ("test_auc", "worst", "product", "unheard_audio_to_image"):
        assert name in printed
    figures = [float(line.split()[2]) for line in printed.splitlines()]
    assert all(figure >= 0.0 for figure in figures)


def test_missing_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert av_digits.main(["--data", str(tmp_path)]) == 1
    assert "images.parquet: no such file" in capsys.readouterr().err


def test_damage_keeps_the_form_and_repeats():
    picture, clip = np.zeros((1, 32, 32), np.uint8), np.ones(100, np.float32)
    for modality, item in (("image", picture), ("audio", clip)):
        one, two = (
            digits.damaged(modality, [item], 1.0, np.random.default_rng(1))[0]
            for _ in range(2)
        )
        assert one.dtype == item.dtype
        assert one.shape == item.shape
        assert np.array_equal(one, two)
        assert not np.array_equal(one, item)
