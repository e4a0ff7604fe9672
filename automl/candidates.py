"""Model families that turn feature rows into log-odds, behind one contract.

CandidateError (a candidate cannot be fitted, or a saved one cannot be used)

Shapes: `N` rows, `F` features.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import lightgbm
import numpy as np
from numpy.typing import NDArray

from automl.tree_scan import TreeScan
from automl.tree_shap import TreeShap

Rows = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


#: Opens the last line of a saved file; LightGBM itself ignores that line.
SEAL = "sha256 of the text above: "


class CandidateError(Exception):
    """A candidate cannot be fitted on these rows, or cannot be read back."""


class Candidate(ABC):
    """What every model family offers: fit, score, explain, save.

    A fitted candidate never changes: `fit` gives a new one. The same rows and seed
    give the same scores, to the bit.
    """

    name: str

    @property
    @abstractmethod
    def feature_count(self) -> int:
        """F, the number of features it was fitted on."""

    @classmethod
    @abstractmethod
    def fit(cls, x: Rows, y: Labels, *, seed: int) -> Self:
        """Fits on rows (N, F), NaN allowed, with labels (N,) of 0 and 1.

        Raises:
            CandidateError: the rows do not fit together, or hold one class only.
        """

    @abstractmethod
    def predict_logit(self, x: Rows) -> NDArray[np.float64]:
        """Gives log-odds (N,) for rows (N, F); N may be 0."""

    @abstractmethod
    def contributions(self, x: Rows) -> NDArray[np.float64]:
        """Gives what each feature adds to the log-odds: (N, F)."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Writes the fitted candidate to one file."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Self:
        """Reads a file written by `save`.

        Raises:
            CandidateError: the file is missing, cut short or not such a file.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeConfig:
    """How the boosted trees grow.

    Attributes:
        trees: number of trees.
        rate: learning rate.
        leaves: most leaves in a tree.
        rows_per_leaf: fewest rows in a leaf; lowered for very small training sets.
        columns: part of the features each tree may see.
        bagging: part of the rows each tree is grown on.
        l2: L2 penalty on leaf values.
    """

    trees: int = 150
    rate: float = 0.05
    leaves: int = 15
    rows_per_leaf: int = 20
    columns: float = 0.8
    bagging: float = 0.8
    l2: float = 5.0


def _check(x: Rows, y: Labels) -> None:
    if x.ndim != 2 or y.shape != x.shape[:1] or x.shape[1] == 0:
        msg = f"fit: rows {x.shape} and labels {y.shape} do not fit together"
        raise CandidateError(msg)
    classes = np.unique(y).tolist()
    if not set(classes) <= {0, 1}:
        msg = f"fit: labels must be 0 or 1, got {classes[:5]}"
        raise CandidateError(msg)
    if len(classes) < 2:
        held = f"only label {classes[0]}" if classes else "no rows"
        msg = f"fit: {len(y)} training rows hold {held}; both labels are needed"
        raise CandidateError(msg)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TreeCandidate(Candidate):
    """Gradient-boosted trees (LightGBM): one thread, deterministic.

    Args:
        booster: a fitted booster.
        scan: the same trees as compiled code scores them; None leaves it to LightGBM.
        shap: and as it tells what each feature adds; None leaves that to LightGBM.
    """

    name = "trees"

    def __init__(
        self,
        booster: lightgbm.Booster,
        scan: TreeScan | None = None,
        shap: TreeShap | None = None,
    ) -> None:
        self.booster = booster
        self._features = int(booster.num_feature())
        self._scan = scan
        self._shap = shap

    @property
    def feature_count(self) -> int:
        """F, the number of features it was fitted on."""
        return self._features

    @classmethod
    def fit(
        cls, x: Rows, y: Labels, *, seed: int, config: TreeConfig | None = None
    ) -> Self:
        """Fits on rows (N, F), NaN allowed, with labels (N,) of 0 and 1."""
        _check(x, y)
        config = config or TreeConfig()
        parameters = {
            "objective": "binary",
            "is_unbalance": False,
            "learning_rate": config.rate,
            "num_leaves": config.leaves,
            "min_data_in_leaf": max(1, min(config.rows_per_leaf, len(y) // 20)),
            "feature_fraction": config.columns,
            "bagging_fraction": config.bagging,
            "bagging_freq": 1,
            "lambda_l2": config.l2,
            "seed": seed,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        table = lightgbm.Dataset(
            np.ascontiguousarray(x, dtype=np.float64),
            label=np.asarray(y, dtype=np.float32),
            params={"verbosity": -1, "min_data_in_bin": 1 if len(y) < 1000 else 3},
        )
        return cls(lightgbm.train(parameters, table, num_boost_round=config.trees))

    @classmethod
    def fit_out_of_fold(
        cls,
        x: Rows,
        y: Labels,
        *,
        seed: int,
        folds: int = 5,
        config: TreeConfig | None = None,
    ) -> NDArray[np.float64]:
        """Scores every row by trees that never saw it.

        Args:
            x: (N, F).
            y: (N,) of 0 and 1.
            seed: draws the folds (stratified) and grows the trees.
            folds: number of parts; fewer where a class has fewer rows.
            config: how the trees grow.

        Returns:
            Log-odds (N,).

        Raises:
            CandidateError: as `fit`, or a class has a single row.
        """
        _check(x, y)
        rarest = int(min((y == 0).sum(), (y == 1).sum()))
        if rarest < 2:
            msg = f"fit out of fold: {rarest} row of a class cannot be split in two"
            raise CandidateError(msg)
        draw = np.random.default_rng(seed)
        fold = np.empty(len(y), dtype=np.int64)
        for label in (0, 1):
            rows = draw.permutation(np.flatnonzero(y == label))
            fold[rows] = np.arange(len(rows)) % min(folds, rarest)
        logit = np.empty(len(y), dtype=np.float64)
        for part in range(min(folds, rarest)):
            held = fold == part
            fitted = cls.fit(x[~held], y[~held], seed=seed + part, config=config)
            logit[held] = fitted.predict_logit(x[held])
        return logit

    def predict_logit(self, x: Rows) -> NDArray[np.float64]:
        """Gives the raw scores (N,), which are log-odds, for rows (N, F)."""
        if not len(x):
            return np.empty(0, dtype=np.float64)
        if self._scan is not None:
            return self._scan.predict(self._rows(x))
        raw = self.booster.predict(self._rows(x), raw_score=True, num_threads=1)
        return np.asarray(raw, dtype=np.float64)

    def contributions(self, x: Rows) -> NDArray[np.float64]:
        """Gives what each feature adds to the log-odds (N, F), the bias left out."""
        if not len(x):
            return np.empty((0, self.feature_count), dtype=np.float64)
        if self._shap is not None:
            return self._shap.contributions(self._rows(x))
        parts = self.booster.predict(self._rows(x), pred_contrib=True, num_threads=1)
        return np.asarray(parts, dtype=np.float64)[:, :-1]

    def save(self, path: Path) -> None:
        """Writes LightGBM's text form, and a last line with its SHA-256."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self.booster.model_to_string().rstrip("\n") + "\n"
        path.write_text(text + SEAL + _sha256(text) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file written by `save`, refusing one that is not whole.

        LightGBM ends the whole process on some damaged texts, so nothing reaches it
        unless the last line vouches for the rest.
        """
        try:
            text, _, seal = path.read_text(encoding="utf-8").rpartition(SEAL)
        except (OSError, UnicodeDecodeError) as error:
            msg = f"load trees: {path}: {error}"
            raise CandidateError(msg) from error
        if not text.startswith("tree\n"):
            msg = f"load trees: {path}: cut short, or no trees saved by this program"
            raise CandidateError(msg)
        if seal != _sha256(text) + "\n":
            msg = f"load trees: {path}: altered or cut short: the SHA-256 differs"
            raise CandidateError(msg)
        try:
            booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            msg = f"load trees: {path}: {error}"
            raise CandidateError(msg) from error
        return cls(booster, TreeScan.of_text(text), TreeShap.of_text(text))

    def _rows(self, x: Rows) -> NDArray[np.float64]:
        if x.ndim != 2 or x.shape[1] != self._features:
            msg = f"score: rows {x.shape}, the trees know {self._features} features"
            raise CandidateError(msg)
        return np.ascontiguousarray(x, dtype=np.float64)
