"""Fusion on quad-fraud: all four modalities, what is missing, and plainer ways.

COMPOSED data: every item is real, the links between them were drawn with known
probabilities. It says whether a pipeline joins, encodes, fuses and survives missing
modalities, and nothing about real fraud.

Legend: `N` cases, `M` modalities, `T` tokens, `D` width.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from automl.candidates import TreeCandidate
from automl.evaluate import auc, average_precision, ece
from automl.registry import Registry
from automl.task import TaskSpec
from benchmarks.planted import planted
from benchmarks.quad_fraud_archive import build_archive, quad_task
from benchmarks.reliability_diagram import Curve, curve_of, svg_of
from connectors.records import MODALITIES
from encoders import load_encoders
from fusion.config import FusionConfig
from fusion.scorer import FusionScorer
from fusion.store import load_fusion
from fusion.train import fit_fusion
from pipelines.fitted_rows import FittedRows
from pipelines.offline import Joined, embed, join, labels_of
from pipelines.scorer import ENCODERS_FOLDER, FUSION_FOLDER, TREE_FILE, Scorer
from pipelines.train import TrainConfig, train

TRAIN_WEEK = ("2018-05-09", "2018-05-16")
TEST_WEEK = ("2018-05-23", "2018-05-30")
MEDIA_COLUMNS: dict[str, int] = {name: i for i, name in enumerate(MODALITIES) if i}
_EXAMPLE = """example:
  python -m benchmarks.quad_fraud --data ../shared/data --seeds 0 1 2 --json
"""

Figures = dict[str, tuple[float, float]]


class Week:
    """The cases of one split, encoded: features, vectors, mask and labels."""

    def __init__(self, joined: Joined, y: NDArray[np.int64], folder: Path) -> None:
        self.joined = joined
        self.y = y
        self.x = joined.features
        self.mask = joined.mask
        self.vectors = embed(joined, load_encoders(folder / ENCODERS_FOLDER))


def week_of(data: Path, split: str, folder: Path, days: tuple[str, str]) -> Week:
    """The linked cases of a split, read by the encoders and features of a model."""
    spec = TaskSpec.from_json(Scorer.load(folder).manifest.task)
    archive = build_archive(data, split=split, history=True)
    links = pq.read_table(data / f"quad-fraud/{split}_links.parquet")
    linked = set(map(str, links["TRANSACTION_ID"].to_pylist()))
    encoders = load_encoders(folder / ENCODERS_FOLDER)
    joined = join(spec, archive, encoders).between(*days)
    kept = [row for row, case in enumerate(joined.case_id) if case in linked]
    joined = joined.take(np.array(kept))
    return Week(joined, labels_of(archive, joined.case_id), folder)


def judged(week: Week, score: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """AUC and average precision."""
    return auc(week.y, score), average_precision(week.y, score)


def through_the_product(scorer: Scorer, week: Week, seed: int) -> Figures:
    """Scores of the test week with everything, and with parts withheld or shuffled."""

    def scored(mask: NDArray[np.bool_], vectors: Any = week.vectors) -> Any:
        return judged(week, scorer.score(week.x, vectors, mask).score)

    found = {"all": scored(week.mask)}
    for name, column in MEDIA_COLUMNS.items():
        mask = week.mask.copy()
        mask[:, column] = False
        found[f"without {name}"] = scored(mask)
    mask = week.mask.copy()
    mask[:, 1:] = False
    found["without media"] = scored(mask)
    mask = week.mask.copy()
    mask[:, 0] = False
    found["media alone"] = scored(mask)
    for alone, columns in (("text alone", (1,)), ("image + audio alone", (2, 3))):
        some = np.zeros_like(mask)
        some[:, columns] = mask[:, columns]
        found[alone] = scored(some)
    mixed = shuffled(week, MEDIA_COLUMNS["image"], seed)
    found["images shuffled"] = scored(week.mask, mixed)
    return found


def shuffled(week: Week, column: int, seed: int) -> NDArray[np.float32]:
    """Vectors (N, M, D) where one modality of a case is that of another case."""
    there = np.flatnonzero(week.mask[:, column])
    vectors = week.vectors.copy()
    order = np.random.default_rng(seed).permutation(there)
    vectors[there, column] = week.vectors[order, column]
    return vectors


def turned_random(scorer: Scorer, week: Week, seed: int) -> dict[str, dict[str, float]]:
    """Modalities that tell nothing from a planted moment on, by the token they move."""
    healthy = scorer.score(week.x, week.vectors, week.mask)
    found = {}
    for name, token in (("text", "text"), ("image", "image+audio")):
        mixed = shuffled(week, MEDIA_COLUMNS[name], seed)
        random = scorer.score(week.x, mixed, week.mask)
        column = scorer.fusion.config.tokens.index(token)
        found[name] = planted(healthy, random, week.y, column, seed)
    return found


def calibration(scorer: Scorer, week: Week) -> dict[str, tuple[float, float, Curve]]:
    """Of complete and of incomplete cases: calibration error, base rate, diagram."""
    count = week.mask.sum(axis=1)
    everything = scorer.score(week.x, week.vectors, week.mask).score
    bare = week.mask.copy()
    bare[:, 1:] = False
    alone = scorer.score(week.x, week.vectors, bare).score
    groups = {
        "all four there": (count == len(MODALITIES), everything),
        "some missing": (count < len(MODALITIES), everything),
        "media withheld": (count > 0, alone),
    }
    return {
        name: (
            ece(week.y[rows], score[rows]),
            float(week.y[rows].mean()),
            curve_of(week.y[rows], score[rows]),
        )
        for name, (rows, score) in groups.items()
    }


def beside(train_week: Week, week: Week, folder: Path, seed: int) -> Figures:
    """The same encoders and trees, fused in plainer ways or without one modality."""
    tree = TreeCandidate.load(folder / TREE_FILE)
    tree_logit = tree.predict_logit(week.x)
    oof = TreeCandidate.fit_out_of_fold(train_week.x, train_week.y, seed=seed)
    fusion = FusionScorer(load_fusion(folder / FUSION_FOLDER))
    evidence = fusion.evidence(week.vectors, week.mask)
    found = {
        "tabular": judged(week, tree_logit),
        "sum of modalities": judged(week, tree_logit + evidence[:, 1:4].sum(axis=1)),
        "sum of modalities and agreements": judged(
            week, tree_logit + evidence[:, 1:].sum(axis=1)
        ),
        "late MLP": judged(week, _late_mlp(train_week, oof, week, tree_logit, seed)),
    }
    shape = FusionConfig(modalities=MODALITIES, width=week.vectors.shape[2])
    for name, column in MEDIA_COLUMNS.items():
        masks = [one.mask.copy() for one in (train_week, week)]
        for mask_N in masks:
            mask_N[:, column] = False
        other = fit_fusion(
            train_week.vectors,
            masks[0],
            train_week.y,
            oof,
            config=shape,
            seed=seed,
            budget_s=600.0,
        )
        out = FusionScorer(other).score(week.vectors, masks[1], tree_logit)
        found[f"trained without {name}"] = judged(week, out.logit)
    return found


def _late_mlp(
    train_week: Week,
    oof: NDArray[np.float64],
    week: Week,
    tree_logit: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float64]:
    """A network on vectors one after the other, the mask and the tree's log-odds."""
    from sklearn.neural_network import MLPClassifier

    def rows(of: Week, logit: NDArray[np.float64]) -> NDArray[np.float64]:
        media = of.vectors[:, 1:] * of.mask[:, 1:, None]
        parts = (media.reshape(len(media), -1), of.mask[:, 1:], logit[:, None] / 4)
        return np.hstack(parts)

    zeros = np.flatnonzero(train_week.y == 0)
    ones = np.flatnonzero(train_week.y == 1)
    draw = np.random.default_rng(seed)
    some = np.concatenate((ones, draw.choice(zeros, min(len(zeros), 20 * len(ones)))))
    net = MLPClassifier((64,), alpha=1.0, early_stopping=True, random_state=seed)
    net.fit(rows(train_week, oof)[some], train_week.y[some])
    return np.asarray(net.predict_proba(rows(week, tree_logit))[:, 1])


def run(data: Path, seed: int, budget_s: float) -> dict[str, Any]:
    """One seed: `sluice train` on the train week, and the test week judged."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as home:
        archive = build_archive(data, split="train", history=True)
        version = train(
            archive,
            quad_task(),
            "quad-fraud",
            Registry(Path(home)),
            since=TRAIN_WEEK[0],
            until=TRAIN_WEEK[1],
            config=TrainConfig(seed=seed, align_budget_s=budget_s),
            say=lambda line: print(line, file=sys.stderr),
        )
        trained_s = time.process_time() - began
        folder = version.folder
        week = week_of(data, "test", folder, TEST_WEEK)
        train_week = week_of(data, "train", folder, TRAIN_WEEK)
        fitted = FittedRows.read(folder)
        assert np.array_equal(fitted.y, train_week.y)
        scorer = Scorer.load(folder)
        found = through_the_product(scorer, week, seed)
        calibrated = calibration(scorer, week)
        random = turned_random(scorer, week, seed)
        found |= beside(train_week, week, folder, seed)
    return {
        "seed": seed,
        "train_cpu_s": round(trained_s),
        "cases": len(week.y),
        "frauds": int(week.y.sum()),
        "figures": found,
        "calibration": calibrated,
        "turned_random": random,
    }


def main(argv: list[str] | None = None) -> int:
    """Print the figures of every seed, their mean and their spread."""
    parser = argparse.ArgumentParser(
        prog="quad_fraud",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=3600.0, metavar="S")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--diagram", type=Path, metavar="SVG", help="of the last seed")
    options = parser.parse_args(argv)
    runs = [run(options.data, seed, options.budget) for seed in options.seeds]
    if options.diagram is not None:
        curves = {name: one[2] for name, one in runs[-1]["calibration"].items()}
        title = f"quad-fraud (composed), test week, seed {runs[-1]['seed']}"
        options.diagram.write_text(svg_of(curves, title), encoding="utf-8")
    if options.json:
        print(json.dumps(runs))
        return 0
    for name in runs[0]["figures"]:
        both = np.array([one["figures"][name] for one in runs])
        mean, spread = both.mean(axis=0), np.ptp(both, axis=0)
        print(
            f"{name:34s} AUC {mean[0]:.4f} ({spread[0]:.4f})"
            f"  AP {mean[1]:.4f} ({spread[1]:.4f})"
        )
    for name in runs[0]["calibration"]:
        errors = [one["calibration"][name][0] for one in runs]
        base = runs[0]["calibration"][name][1]
        print(f"{name:34s} ECE {np.mean(errors):.4f} (base rate {base:.4f})")
    for name in runs[0]["turned_random"]:
        told = [one["turned_random"][name] for one in runs]
        mean = {key: np.mean([one[key] for one in told]) for key in told[0]}
        parts = ", ".join(f"{key} {value:.3f}" for key, value in mean.items())
        print(f"{name + ' turned random':34s} {parts}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
