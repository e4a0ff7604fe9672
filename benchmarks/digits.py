"""Spoken and written digits for the measurements: items, splits, encoders, damage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from encoders import build_encoder
from encoders.base import MODALITIES
from encoders.trainable import TrainableEncoder

#: Options that fit small gray pictures and clips of one word.
OPTIONS: dict[str, dict[str, Any]] = {
    "image": {"side_px": 32, "colour": "gray"},
    "audio": {
        "clip_s": 1.0,
        "rate_hz": 8000,
        "mels": 40,
        "even_pace": 0.6,
        "voices": 5,
    },
}
CLASSES = 10

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class DataError(Exception):
    """The data folder is not as expected; says which file is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """All items of one modality, decoded.

    Attributes:
        ids: by which links name them.
        decoded: one per id.
        digit: class of each.
        group: speaker of each clip; "" for pictures.
    """

    ids: Ints
    decoded: list[Any]
    digit: Ints
    group: NDArray[np.str_]

    def rows_of(self, ids: Ints) -> Ints:
        """Row of each id, -1 for an id that is -1.

        Raises:
            DataError: an id has no item.
        """
        order = np.argsort(self.ids)
        at = np.searchsorted(self.ids, ids, sorter=order).clip(max=len(order) - 1)
        rows = np.where(ids >= 0, order[at], -1)
        if (self.ids[rows[ids >= 0]] != ids[ids >= 0]).any():
            msg = "read links: an id has no item; is the data complete?"
            raise DataError(msg)
        return rows.astype(np.int64)


def table(data: Path, name: str) -> Any:
    """One Parquet file below the data folder.

    Raises:
        DataError: it is not there.
    """
    if not (data / name).is_file():
        msg = f"read {data / name}: no such file; --data is the folder of data sets"
        raise DataError(msg)
    return pq.read_table(data / name)


def fresh(modality: str, seed: int, changes: str = "light") -> TrainableEncoder:
    """A new encoder of one modality; `changes` are those of its config."""
    options = {"modality": modality, "seed": seed, "changes": changes}
    made = build_encoder({**options, **OPTIONS[modality]})
    assert isinstance(made, TrainableEncoder)
    return made


def read_items(data: Path, modality: str) -> Items:
    """All pictures or clips of av-digits."""
    name, key, content = {
        "image": ("images", "image_id", "png"),
        "audio": ("audio", "audio_id", "wav"),
    }[modality]
    read = table(data, f"av-digits/{name}.parquet")
    encoder = fresh(modality, 0)
    speaker = read["speaker"].to_pylist() if modality == "audio" else [""] * len(read)
    return Items(
        ids=read[key].to_numpy().astype(np.int64),
        decoded=[encoder.decode(payload) for payload in read[content].to_pylist()],
        digit=read["digit"].to_numpy().astype(np.int64),
        group=np.array(speaker),
    )


def read_pairs(data: Path, items: dict[str, Items], split: str) -> tuple[Ints, Ints]:
    """Rows of the pictures and clips of av-digits' pairs of one split."""
    read = table(data, "av-digits/pairs.parquet")
    chosen = np.array(read["split"].to_pylist()) == split
    image, audio = (
        items[m].rows_of(read[f"{m}_id"].to_numpy()[chosen].astype(np.int64))
        for m in ("image", "audio")
    )
    return image, audio


def read_week(
    data: Path, items: dict[str, Items], split: str
) -> tuple[Ints, Ints, Ints]:
    """Rows of pictures and clips (-1: none) of quad-fraud's cases, and their labels."""
    links = table(data, f"quad-fraud/{split}_links.parquet")
    truth = table(data, f"quad-fraud/{split}_truth.parquet")
    where = {t: i for i, t in enumerate(truth["TRANSACTION_ID"].to_pylist())}
    order = [where[t] for t in links["TRANSACTION_ID"].to_pylist()]
    image, audio = (
        items[m].rows_of(links[f"{m}_id"].to_numpy().astype(np.int64))
        for m in ("image", "audio")
    )
    return image, audio, truth["TX_FRAUD"].to_numpy().astype(np.int64)[order]


def as_cases(
    items: dict[str, Items], image: Ints, audio: Ints
) -> tuple[dict[str, list[Any]], Ints]:
    """Items and rows (N, 4) as `fit_encoders` reads them: only items that occur."""
    rows = np.full((len(image), len(MODALITIES)), -1, dtype=np.int64)
    given = {}
    for modality, item in (("image", image), ("audio", audio)):
        known = np.unique(item[item >= 0])
        at = np.searchsorted(known, item).clip(max=len(known) - 1)
        rows[:, MODALITIES.index(modality)] = np.where(item >= 0, at, -1)
        given[modality] = [items[modality].decoded[row] for row in known]
    return given, rows


def damaged(
    modality: str, decoded: list[Any], level: float, choice: np.random.Generator
) -> list[Any]:
    """Each item with a piece lost and noise, more of both the higher the level.

    Every item draws its own share of the level, 0.5 to 1.5 of it.
    """
    made = []
    for item in decoded:
        strength = level * choice.uniform(0.5, 1.5)
        if modality == "image":
            x = item.astype(np.float64)
            wide = int(min(0.9, 0.4 * strength) * x.shape[2])
            at = int(choice.integers(0, x.shape[2] - wide + 1))
            x[:, :, at : at + wide] = 0.0
            x += choice.normal(0.0, 100.0 * strength, x.shape)
            made.append(x.clip(0, 255).astype(np.uint8))
        else:
            loud = np.sqrt(np.square(item[item != 0]).mean()) if item.any() else 1.0
            noise = choice.normal(0.0, 2.0 * strength * loud, len(item))
            x = item + noise
            made.append((x / np.abs(x).max()).astype(np.float32))
    return made
