"""Alignment: matching pairs come near, the budget holds, the same seed repeats."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from encoders.align import fit_encoders, prepare_items
from encoders.base import EncoderError
from encoders.practice import AlignConfig
from encoders.trainable import TrainableEncoder

Make = Callable[..., bytes]
Fresh = Callable[[], dict[str, TrainableEncoder]]
Cases = tuple[dict[str, list[Any]], np.ndarray[Any, Any], np.ndarray[Any, Any]]

KINDS = 4


def make_cases(
    encoders: dict[str, TrainableEncoder], picture: Make, wav: Make
) -> Cases:
    """200 cases of four kinds: the tone tells the kind, so does the picture's level.

    A case labelled 1 has a picture of another kind. Text and rows tell nothing.
    """
    rng = np.random.default_rng(0)
    per_kind = 10
    items: dict[str, list[Any]] = {"tabular": [], "text": [], "image": [], "audio": []}
    for kind in range(KINDS):
        for _ in range(per_kind):
            level, pitch = 40 + 60 * kind, 300 * 2**kind * rng.uniform(0.95, 1.05)
            items["image"].append(picture(28, level + int(rng.integers(-8, 9))))
            items["audio"].append(wav(0.3, 8000, pitch))
    items["text"] = ["free prize", "see you", "call me home", "ok"]
    items["tabular"] = list(rng.normal(size=(200, 3)))
    decoded = {
        m: [encoders[m].decode(payload) for payload in given]
        for m, given in items.items()
    }
    labels = (rng.random(200) < 0.2).astype(np.int64)
    heard = rng.integers(0, KINDS, 200)
    shown = (heard + labels * rng.integers(1, KINDS, 200)) % KINDS
    rows = np.stack(
        [
            np.arange(200),
            rng.integers(-1, 4, 200),
            shown * per_kind + rng.integers(0, per_kind, 200),
            heard * per_kind + rng.integers(0, per_kind, 200),
        ],
        axis=1,
    )
    rows[::7, 2] = -1
    rows[3::7, 3] = -1
    return decoded, rows, labels


def closeness(
    encoders: dict[str, TrainableEncoder], items: dict[str, list[Any]]
) -> tuple[float, float]:
    """Mean similarity of picture and tone of the same kind, and of different kinds."""
    similar = (
        encoders["image"].encode(items["image"])
        @ encoders["audio"].encode(items["audio"]).T
    )
    kind = np.arange(len(similar)) // 10
    same = kind[:, None] == kind
    return float(similar[same].mean()), float(similar[~same].mean())


def test_matching_pairs_end_nearer_than_clashing_ones(
    fresh: Fresh, picture: Make, wav: Make
) -> None:
    encoders = fresh()
    items, rows, labels = make_cases(encoders, picture, wav)
    match, clash = closeness(encoders, items)
    assert match - clash < 0.1
    before = {m: e.fingerprint for m, e in encoders.items()}
    lines: list[tuple[float, str]] = []
    report = fit_encoders(
        encoders,
        items,
        rows,
        labels,
        seed=0,
        budget_s=60.0,
        progress=lambda done, line: lines.append((done, line)),
        config=AlignConfig(
            steps=30, trial_steps=15, batch=48, check_every=15, held_out=0.12
        ),
    )
    match, clash = closeness(encoders, items)
    assert match - clash > 0.4, (match, clash)
    assert report.steps == 6 * 15 + 30
    assert report.gain["image", "audio"] > 0.2
    assert [done for done, _ in lines] == pytest.approx(
        [*(at / 8 for at in range(1, 7)), 7 / 8, 1.0]
    )
    assert "image-audio" in lines[-1][1]
    assert report.kept == ("image", "audio")
    changed = {m for m, e in encoders.items() if e.fingerprint != before[m]}
    assert changed == {"image", "audio"}


def test_pairs_known_by_heart_do_not_count(fresh: Fresh, wav: Make) -> None:
    encoders = {m: e for m, e in fresh().items() if m in ("tabular", "audio")}
    rng = np.random.default_rng(0)
    tones = [wav(0.2, 8000, 300.0 + 90 * at) for at in range(24)]
    items = {
        "tabular": list(rng.normal(size=(24, 3)).astype(np.float32)),
        "audio": [encoders["audio"].decode(tone) for tone in tones],
    }
    rows = np.full((600, 4), -1)
    rows[:, 0] = rows[:, 3] = rng.integers(0, 24, 600)
    before = {m: e.fingerprint for m, e in encoders.items()}
    report = fit_encoders(
        encoders,
        items,
        rows,
        np.zeros(600),
        seed=0,
        budget_s=60.0,
        config=AlignConfig(trial_steps=60, batch=48, check_every=20, held_out=0.2),
    )
    assert report.gain == {("tabular", "audio"): 0.0}
    assert report.kept == ()
    assert {m: e.fingerprint for m, e in encoders.items()} == before


def test_the_same_seed_gives_the_same_encoders(
    fresh: Fresh, picture: Make, wav: Make
) -> None:
    prints = []
    for seed in (1, 1, 2):
        encoders = fresh()
        items, rows, labels = make_cases(encoders, picture, wav)
        fit_encoders(
            encoders,
            prepare_items(encoders, items),
            rows,
            labels,
            seed=seed,
            budget_s=60.0,
            config=AlignConfig(
                steps=4, trial_steps=1, batch=32, check_every=2, held_out=0.0
            ),
        )
        prints.append({m: e.fingerprint for m, e in encoders.items()})
    assert prints[0] == prints[1]
    assert all(prints[0][m] != prints[2][m] for m in prints[0])


def test_the_budget_ends_the_training(fresh: Fresh, picture: Make, wav: Make) -> None:
    encoders = fresh()
    items, rows, labels = make_cases(encoders, picture, wav)
    began = time.monotonic()
    report = fit_encoders(
        encoders,
        items,
        rows,
        labels,
        seed=0,
        budget_s=1.5,
        config=AlignConfig(steps=100_000, check_every=5, held_out=0.0),
    )
    assert time.monotonic() - began < 10.0
    assert report.steps < 1000
    decoded = items["image"][:3]
    assert np.isfinite(encoders["image"].encode(decoded)).all()


def test_missing_modalities_no_alarms_and_no_cases_are_fine(
    fresh: Fresh, picture: Make, wav: Make
) -> None:
    encoders = fresh()
    items, rows, _ = make_cases(encoders, picture, wav)
    rows[:, 1] = -1
    config = AlignConfig(steps=2, trial_steps=1, batch=32)
    some = {m: items[m] for m in ("tabular", "image", "audio")}
    report = fit_encoders(
        encoders, some, rows, np.zeros(200), seed=0, budget_s=30, config=config
    )
    assert report.steps == 3  # a trial of each pair
    none = np.empty((0, 4), np.int64)
    report = fit_encoders(encoders, items, none, [], seed=0, budget_s=30, config=config)
    assert report.steps == 0


def test_rows_that_do_not_fit_are_refused(
    fresh: Fresh, picture: Make, wav: Make
) -> None:
    encoders = fresh()
    items, rows, labels = make_cases(encoders, picture, wav)
    with pytest.raises(EncoderError, match=r"must be \(N, 4\)"):
        fit_encoders(encoders, items, rows[:, :3], labels, seed=0, budget_s=1)
    with pytest.raises(EncoderError, match="of 0 and 1"):
        fit_encoders(encoders, items, rows, labels + 1, seed=0, budget_s=1)
    rows[5, 1] = 4
    with pytest.raises(EncoderError, match=r"text item outside -1\.\.3"):
        fit_encoders(encoders, items, rows, labels, seed=0, budget_s=1)
