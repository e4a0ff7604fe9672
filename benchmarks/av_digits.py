"""What encoders and their agreement reach on spoken and written digits, by command.

``python -m benchmarks.av_digits --seeds 0 1 2 --json`` measures, for each seed:

agreement  encoders aligned on quad-fraud's train week, without digits: how well the
           cosine tells matching from clashing pairs of the test week (AUC)
image      accuracy on pictures of the test pairs, learnt on those of the train pairs
audio      the same of clips: speakers known, takes 5-9 never heard
speakers   accuracy on each speaker, learnt on the three others
fusion     pairs damaged until each modality alone is at 0.6 to 0.8: accuracy of each,
           of the product of their probabilities, and of that product with a learnt
           gate for each modality
retrieval  mean average precision of test clips among test pictures and back, relevant
           is the same digit: `heard` aligned on the train pairs without labels;
           `unheard` for each speaker left out, by digits learnt from labels
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.digits import (
    CLASSES,
    DataError,
    Floats,
    Ints,
    Items,
    as_cases,
    damaged,
    fresh,
    read_items,
    read_pairs,
    read_week,
)
from benchmarks.opinions import both_ways, fit_gate, gated
from encoders.align import fit_encoders
from encoders.classify import ClassHead, fit_classes
from encoders.practice import AlignConfig
from encoders.trainable import TrainableEncoder

DATA = Path("../shared/data")
#: Often each item is seen: there are many pictures and few clips, and clips of
#: strangers need strong changes, which take longer.
EPOCHS = {"image": 6, "audio": 40}
STRANGERS_EPOCHS = 80
BATCH = {"image": 64, "audio": 32}
RATE = {"image": 2e-3, "audio": 3e-3}
#: No training of a measurement may take longer.
CEILING_S = 3600.0
#: The single accuracy that damage aims at, and the levels it may have.
DAMAGED_ACCURACY = 0.78
LEVELS, HALVINGS = (0.0, 3.0), 8

Reader = Callable[[list[Any]], Floats]


class Bench:
    """One seed's measurements; what several of them need is trained once."""

    def __init__(self, data: Path, seed: int, align: AlignConfig) -> None:
        self.data, self.seed, self.align = data, seed, align
        self.items = {m: read_items(data, m) for m in ("image", "audio")}
        self.train = read_pairs(data, self.items, "train")
        self.test = read_pairs(data, self.items, "test")
        self._readers: dict[str, Reader] = {}

    def agreement(self) -> dict[str, float]:
        """AUC of matching against clashing pairs, both weeks."""
        image, audio, label = read_week(self.data, self.items, "train")
        encoders = self._aligned(image, audio, label)
        vectors = {m: e.encode(self.items[m].decoded) for m, e in encoders.items()}
        found = {}
        for split in ("train", "test"):
            image, audio, _ = read_week(self.data, self.items, split)
            both = (image >= 0) & (audio >= 0)
            image, audio = image[both], audio[both]
            near = (vectors["image"][image] * vectors["audio"][audio]).sum(axis=1)
            match = self.items["image"].digit[image] == self.items["audio"].digit[audio]
            found[f"{split}_auc"] = float(roc_auc_score(match, near))
        return found

    def image(self) -> dict[str, float]:
        """Accuracy on the pictures of the test pairs."""
        return {"accuracy": self._accuracy("image", self.test[0])}

    def audio(self) -> dict[str, float]:
        """Accuracy on the clips of the test pairs."""
        return {"accuracy": self._accuracy("audio", self.test[1])}

    def speakers(self) -> dict[str, float]:
        """Accuracy on each speaker left out, their mean and the worst."""
        clips, found = self.items["audio"], {}
        for speaker in sorted(set(clips.group)):
            rows = np.flatnonzero(clips.group == speaker)
            found[str(speaker)] = self._accuracy("audio", rows, str(speaker))
        each = list(found.values())
        return {**found, "mean": float(np.mean(each)), "worst": min(each)}

    def fusion(self) -> dict[str, float]:
        """Accuracy of test pairs that are damaged, by each, product and gated product.

        A fifth of the train pairs' clips, and the pictures they come with, teach the
        gate; the readers of one modality learn on all other items. The test pairs are
        damaged until each modality alone is at the accuracy aimed at.
        """
        choice = np.random.default_rng(self.seed)
        rows = dict(zip(("image", "audio"), self.train, strict=True))
        tests = dict(zip(("image", "audio"), self.test, strict=True))
        clips = np.unique(self.train[1])
        aside = np.isin(self.train[1], choice.permutation(clips)[: len(clips) // 5])
        learnt, told, found = [], [], {}
        for modality, items in self.items.items():
            known = np.setdiff1d(rows[modality], rows[modality][aside])
            both = [items.decoded[row] for row in known]
            both += damaged(modality, both, 1.2, choice)
            digit = np.tile(items.digit[known], 2)
            read = self._fit(modality, both, digit, changes="light")
            level, test = self._degraded(modality, read, tests[modality])
            pair = [items.decoded[row] for row in rows[modality][aside]]
            learnt.append(np.log(read(damaged(modality, pair, level, choice)) + 1e-6))
            told.append(np.log(read(test) + 1e-6))
            hit = told[-1].argmax(axis=1) == items.digit[tests[modality]]
            found[modality] = float(hit.mean())
        truth = self.items["image"].digit[self.test[0]]
        product = (told[0] + told[1]).argmax(axis=1)
        gate = fit_gate(learnt, self.items["image"].digit[self.train[0][aside]])
        fused = gated(told, gate).argmax(axis=1)
        return {
            **found,
            "product": float((product == truth).mean()),
            "fused": float((fused == truth).mean()),
        }

    def retrieval(self) -> dict[str, float]:
        """Mean average precision both ways, for speakers heard and left out."""
        encoders = self._aligned(*self.train, np.zeros(len(self.train[0]), np.int64))
        pictures, clips = (np.unique(rows) for rows in self.test)
        image, audio = self.items["image"], self.items["audio"]
        near = (
            encoders["audio"].encode([audio.decoded[row] for row in clips])
            @ encoders["image"].encode([image.decoded[row] for row in pictures]).T
        )
        same = audio.digit[clips][:, None] == image.digit[pictures]
        found = both_ways(near.astype(np.float64), same, "heard")
        shown = self._read("image", pictures)
        unheard = []
        for speaker in sorted(set(audio.group)):
            rows = np.flatnonzero(audio.group == speaker)
            likely = self._read("audio", rows, str(speaker)) @ shown.T
            same = audio.digit[rows][:, None] == image.digit[pictures]
            unheard.append(both_ways(likely, same, "unheard"))
        for name in unheard[0]:
            found[name] = float(np.mean([each[name] for each in unheard]))
        return found

    def _aligned(
        self, image: Ints, audio: Ints, label: Ints
    ) -> dict[str, TrainableEncoder]:
        encoders = {m: fresh(m, self.seed) for m in ("image", "audio")}
        given, rows = as_cases(self.items, image, audio)
        fit_encoders(
            encoders,
            given,
            rows,
            label,
            seed=self.seed,
            budget_s=CEILING_S,
            config=self.align,
        )
        return encoders

    def _fit(
        self, modality: str, decoded: list[Any], digit: Ints, *, changes: str
    ) -> Reader:
        encoder = fresh(modality, self.seed, changes)
        strangers = modality == "audio" and changes == "strong"
        head: ClassHead = fit_classes(
            encoder,
            decoded,
            digit,
            classes=CLASSES,
            seed=self.seed,
            epochs=STRANGERS_EPOCHS if strangers else EPOCHS[modality],
            batch=BATCH[modality],
            rate=RATE[modality],
        )
        return lambda items: head.predict(encoder.encode(items)).astype(np.float64)

    def _read(self, modality: str, rows: Ints, left_out: str = "") -> Floats:
        """Probabilities of these items by what was learnt without `left_out`.

        Without a speaker left out, it is learnt on the items of the train pairs.
        """
        items: Items = self.items[modality]
        name = f"{modality} {left_out}"
        if name not in self._readers:
            known = np.unique(self.train[modality == "audio"])
            if left_out:
                known = np.flatnonzero(items.group != left_out)
            decoded = [items.decoded[row] for row in known]
            changes = "strong" if left_out or modality == "image" else "light"
            self._readers[name] = self._fit(
                modality, decoded, items.digit[known], changes=changes
            )
        return self._readers[name]([items.decoded[row] for row in rows])

    def _accuracy(self, modality: str, rows: Ints, left_out: str = "") -> float:
        rows = np.unique(rows)
        told = self._read(modality, rows, left_out).argmax(axis=1)
        return float((told == self.items[modality].digit[rows]).mean())

    def _degraded(
        self, modality: str, read: Reader, rows: Ints
    ) -> tuple[float, list[Any]]:
        """Items never learnt, damaged to the accuracy aimed at, and how far that is.

        Every level draws the same numbers, so more of it is more of the same damage.
        """
        items = self.items[modality]
        decoded = [items.decoded[row] for row in rows]
        low, high = LEVELS
        found = decoded
        for _ in range(HALVINGS):
            level = (low + high) / 2
            draw = np.random.default_rng(self.seed)
            worse = damaged(modality, decoded, level, draw)
            hit = read(worse).argmax(axis=1) == items.digit[rows]
            if hit.mean() > DAMAGED_ACCURACY:
                low, found = level, worse
            else:
                high = level
        return low, found


PARTS = ("agreement", "image", "audio", "speakers", "fusion", "retrieval")


def measure(
    data: Path, seeds: list[int], parts: list[str], align: AlignConfig
) -> dict[str, list[dict[str, float]]]:
    """Per part, one dict of figures per seed; `cpu_s` is what the part cost."""
    found: dict[str, list[dict[str, float]]] = {part: [] for part in parts}
    for seed in seeds:
        bench = Bench(data, seed, align)
        for part in parts:
            began = time.process_time()
            figures = getattr(bench, part)()
            figures["cpu_s"] = time.process_time() - began
            found[part].append(figures)
            line = "  ".join(f"{k} {v:.4f}" for k, v in figures.items())
            print(f"seed {seed} {part}: {line}", file=sys.stderr, flush=True)
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 0 when done, 1 when the data is not there."""
    parser = argparse.ArgumentParser(
        prog="av_digits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    parser.add_argument("--part", choices=PARTS, action="append", dest="parts")
    parser.add_argument("--steps", type=int, default=AlignConfig().steps)
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    given = parser.parse_args(argv)
    align = AlignConfig(steps=given.steps)
    try:
        found = measure(given.data, given.seeds, given.parts or list(PARTS), align)
    except DataError as error:
        print(f"av_digits: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(found, indent=2))
        return 0
    for part, seeds in found.items():
        for name in seeds[0]:
            each = np.array([figures[name] for figures in seeds])
            print(f"{part:10} {name:24} {each.mean():.4f} +- {each.std():.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
