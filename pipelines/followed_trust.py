"""Weights of the modalities that follow matured labels, as versions of the champion."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from automl.manifest import MANIFEST_FILE
from automl.registry import ModelVersion, Registry
from connectors.labels import Label
from connectors.records import MODALITIES
from fusion.config import FusionConfig
from fusion.reliability import Reliability

logger = logging.getLogger(__name__)

TOKENS = FusionConfig(modalities=MODALITIES).tokens
#: A weight that moved so far since the champion's is worth a version.
LEAST_MOVE = 0.15
#: Labels between two looks.
EVERY_LABELS = 100
#: Decisions kept while their labels are to come.
MOST_WAITING = 500_000


class FollowedTrust:
    """Puts labels and what each modality had said together, and looks now and then.

    Args:
        registry: holds the versions that decided.
        name: of the model.
    """

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name
        self._trust = Reliability(len(TOKENS))
        self._said: dict[str, NDArray[np.float64]] = {}
        self._labels: dict[str, int] = {}
        self._used: dict[int, NDArray[np.float64]] = {}
        self._next_at = EVERY_LABELS
        self._learnt = 0

    def take_decisions(self, batch: pa.RecordBatch) -> None:
        """Keep what each modality said of the cases that have media."""
        said = batch.column("evidence")
        media = np.flatnonzero(np.diff(said.offsets.to_numpy()))
        if not len(media):
            return
        told = batch.select(["case_id", "evidence"]).take(pa.array(media))
        for row in told.to_pylist():
            case = row["case_id"]
            self._said.pop(case, None)  # the last decision of a case counts, and is new
            self._said[case] = np.array(row["evidence"])
            if case in self._labels:
                self._learn(case, self._labels.pop(case))
        while len(self._said) > MOST_WAITING:
            del self._said[next(iter(self._said))]

    def take_labels(self, labels: Iterable[Label]) -> None:
        """Learn from the labels of known decisions; the others wait for theirs."""
        for one in labels:
            if one.case_id in self._said:
                self._learn(one.case_id, one.label)
            else:
                self._labels[one.case_id] = one.label
        while len(self._labels) > MOST_WAITING:
            del self._labels[next(iter(self._labels))]

    def next_version(self) -> ModelVersion | None:
        """The champion with the weights of now, stored and not yet promoted.

        None while too few labels came, or no weight moved far enough.
        """
        if self._learnt < self._next_at:
            return None
        self._next_at = self._learnt + EVERY_LABELS
        champion = self._registry.champion(self._name)
        if champion is None:
            return None
        weights = self._trust.weights()
        if np.abs(weights - self._used_by(champion.version)).max() < LEAST_MOVE:
            return None
        reliability = dict(zip(TOKENS, weights.round(3).tolist(), strict=True))
        below = {name: weight for name, weight in reliability.items() if weight < 1}
        with tempfile.TemporaryDirectory() as folder:
            stage = Path(folder) / "stage"
            skip = shutil.ignore_patterns(MANIFEST_FILE)
            shutil.copytree(champion.folder, stage, ignore=skip)
            version = self._registry.save_next(
                champion.manifest,
                stage,
                metrics=champion.manifest.metrics,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                reliability=below,
            )
        logger.info(
            "%s v%d: after %d labels modalities are trusted as %s, the others in full",
            self._name,
            version.version,
            self._learnt,
            below or "before",
        )
        return version

    def _learn(self, case: str, label: int) -> None:
        self._trust.learn(self._said.pop(case), label)
        self._learnt += 1

    def _used_by(self, version: int) -> NDArray[np.float64]:
        """(T,) the weights a version decided with."""
        if version not in self._used:
            manifest = self._registry.get(self._name, version).manifest
            weights = [manifest.reliability.get(name, 1.0) for name in TOKENS]
            self._used[version] = np.array(weights)
        return self._used[version]
