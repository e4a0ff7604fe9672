"""An alignment that was cut off goes on to the weights it would have had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encoders.align import fit_encoders
from encoders.practice import AlignConfig
from encoders.trainable import TrainableEncoder
from tests.encoders.test_align import make_cases

Make = Callable[..., bytes]
Fresh = Callable[[], dict[str, TrainableEncoder]]
CONFIG = AlignConfig(steps=30, trial_steps=15, batch=48, check_every=15, held_out=0.12)


class CutOffError(Exception):
    """The machine went away."""


@pytest.mark.parametrize("at", [0.3, 0.6], ids=["in a trial", "in the joint lesson"])
def test_it_goes_on_to_the_same_weights(
    fresh: Fresh, picture: Make, wav: Make, tmp_path: Path, at: float
) -> None:
    def fit(encoders: dict[str, TrainableEncoder], cut_at: float) -> list[str]:
        lines = []

        def progress(done: float, line: str) -> None:
            lines.append(line)
            if done >= cut_at:
                raise CutOffError

        media = {m: encoders[m] for m in ("image", "audio")}
        items, rows, labels = make_cases(encoders, picture, wav)
        chosen = {m: items[m] for m in media}
        rows[:, :2] = -1
        try:
            fit_encoders(
                media,
                chosen,
                rows,
                labels,
                seed=1,
                budget_s=60.0,
                progress=progress,
                config=CONFIG,
                checkpoint=tmp_path / "standing" if cut_at <= 2 else None,
            )
        except CutOffError:
            lines.append("cut off")
        return lines

    straight, cut = fresh(), fresh()
    fit(straight, 9.0)
    assert fit(cut, at)[-1] == "cut off"
    resumed = fresh()
    told = fit(resumed, 2.0)
    if at > 0.5:
        assert "goes on" in told[0]
        assert len(told) == 2
    for modality in ("image", "audio"):
        assert resumed[modality].fingerprint == straight[modality].fingerprint
        assert resumed[modality].fingerprint != fresh()[modality].fingerprint
    again = fresh()
    assert "goes on" in fit(again, 2.0)[0]
    assert again["image"].fingerprint == straight["image"].fingerprint
    assert np.isfinite(again["image"].encode([np.zeros((3, 64, 64), np.uint8)])).all()
