"""A checkpoint: the newest standing, whole, and only for the same training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from encoders.base import EncoderLoadError
from encoders.checkpoint import Checkpoint, Standing


def test_the_newest_standing_is_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "new" / "fraud", "this")
    assert checkpoint.read() is None
    checkpoint.write(Standing({"a": torch.zeros(2)}, {"step": 1}))
    checkpoint.write(Standing({"a": torch.tensor([1.0, 2.0])}, {"step": 2}))
    found = checkpoint.read()
    assert found is not None
    assert found.told == {"step": 2}
    assert found.tensors["a"].tolist() == [1.0, 2.0]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["fraud"]


def test_another_training_does_not_take_it_up(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "fraud", "this").write(Standing({}, {}))
    assert Checkpoint(tmp_path / "fraud", "that").read() is None


def test_a_flipped_bit_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "fraud"
    Checkpoint(path, "this").write(Standing({"a": torch.ones(8)}, {}))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(EncoderLoadError, match=r"hash.*delete the file to begin anew"):
        Checkpoint(path, "this").read()
    path.write_bytes(content[:20])
    with pytest.raises(EncoderLoadError, match=r"go on from .*fraud"):
        Checkpoint(path, "this").read()
