"""An archive to a registered model version: encoders, trees and fusion in one pass.

Legend: `N` cases, `M` modalities, `D` shared width, `F` features.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.candidates import TreeCandidate, TreeConfig
from automl.evaluate import auc, average_precision, threshold_for_alerts_per_day
from automl.registry import ModelVersion, Registry
from automl.task import CalendarFeature, TaskSpec
from connectors.archive import Archive, column_kinds
from connectors.records import MODALITIES
from encoders import build_encoder, save_encoders
from encoders.align import fit_encoders
from encoders.base import Encoder
from fusion.model import FusionConfig, FusionModel
from fusion.scorer import FusionScorer
from fusion.store import save_fusion
from fusion.train import fit_fusion, untaught_fusion
from pipelines.fitted_rows import FittedRows
from pipelines.offline import Joined, embed, join, labels_of
from pipelines.scorer import ENCODERS_FOLDER, FUSION_FOLDER, TREE_FILE

#: Texts needed to measure which form of the transformer is fastest.
LEAST_TEXTS = 100
#: Told one line per step.
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a model is fitted.

    Attributes:
        seed: of every random choice.
        fit_share: part of the labelled cases, earliest first, that the encoders learn
            from; the rest, later in time, judges and sets the threshold.
        align_budget_s: most wall clock for the encoders.
        fusion_budget_s: most wall clock for the fusion.
        width: D, width of every embedding.
        trees: how the boosted trees grow.
    """

    seed: int = 0
    fit_share: float = 0.75
    align_budget_s: float = 600.0
    fusion_budget_s: float = 120.0
    width: int = 128
    trees: TreeConfig = field(default_factory=TreeConfig)


def train(
    archive: Archive,
    task: Mapping[str, Any] | Path,
    name: str,
    registry: Registry,
    *,
    since: str | None = None,
    until: str | None = None,
    config: TrainConfig | None = None,
    say: Say | None = None,
    checkpoint: Path | None = None,
) -> ModelVersion:
    """Fit a model on the labelled cases of an archive, judge it forward in time, store.

    Encoders learn from the earlier cases. Trees and fusion are fitted on those, judged
    on the later ones, and then fitted again on all. A task without media gets the trees
    alone, and a fusion that was taught nothing: no case of it ever reaches one. The new
    version is not promoted; that is the caller's choice.

    Args:
        archive: events and labels.
        task: a task file, or what is in one.
        name: of the model.
        registry: where it is stored.
        since: day of the first case that is learnt from; windows reach back before it.
        until: day before which the last of them lies.
        config: how to fit.
        say: told one line per step.
        checkpoint: file in which the encoders' training is written down while it
            lasts. The same training, cut off, goes on from there; it is deleted when
            the model is stored.

    Raises:
        TaskError: the task does not fit the archive.
        ValueError: no usable tabular event, or too few labels of either class.
    """
    config = config or TrainConfig()
    say = say or (lambda line: None)
    spec = TaskSpec.from_json(task)
    if "tabular" in archive.tables:
        spec = spec.resolve(column_kinds(archive.tables["tabular"]))
    encoders = _encoders(spec, config)
    joined = join(spec, archive, encoders).between(since, until)
    y = labels_of(archive, joined.case_id)
    say(
        f"read {len(y)} cases, {int((y == 1).sum())} of {int((y >= 0).sum())} "
        f"labelled ones are positive; {len(joined.dead)} events cannot be used"
    )
    joined, y = joined.take(np.flatnonzero(y >= 0)), y[y >= 0]
    fit = np.arange(int(len(y) * config.fit_share))
    later = np.arange(len(fit), len(y))
    _check_classes(y, fit, later)
    vectors = _learn(encoders, joined, y, fit, config, say, checkpoint)
    judged = _Fitted.on(joined, y, vectors, fit, config)
    tree_logit, logit = judged.logits(joined, vectors, later)
    score = 1.0 / (1.0 + np.exp(-logit))
    metrics = _metrics(y[later], tree_logit, score, fit)
    forms = {m: e.serving for m, e in encoders.items() if e.serving}
    if forms:
        metrics["serving"] = forms
    say(
        f"judged on {len(later)} later cases: AUC {metrics['auc']:.3f} "
        f"(tabular alone {metrics['auc_tabular']:.3f}), "
        f"average precision {metrics['average_precision']:.3f}"
    )
    whole = _Fitted.on(joined, y, vectors, np.arange(len(y)), config)
    share = float(y.mean())
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        whole.tree.save(stage / TREE_FILE)
        FittedRows(joined.features, y, joined.event_time_ms).write(stage)
        save_fusion(whole.fusion, stage / FUSION_FOLDER)
        save_encoders(encoders, stage / ENCODERS_FOLDER)
        version = registry.save(
            name,
            stage,
            parent=None,
            task=spec.to_dict(),
            features=spec.feature_names,
            width=config.width,
            modalities=MODALITIES,
            fingerprints=_fingerprints(encoders, stage),
            threshold=threshold_for_alerts_per_day(
                score, joined.event_time_ms[later], spec.alerts_per_day
            ),
            prior_logit=float(np.log(share / (1.0 - share))),
            metrics=metrics,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return version


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Trees and a fusion on top of what trees say of rows they never saw."""

    tree: TreeCandidate
    fusion: FusionModel

    @classmethod
    def on(
        cls,
        joined: Joined,
        y: NDArray[np.int64],
        vectors: NDArray[np.float32] | None,
        rows: NDArray[np.intp],
        config: TrainConfig,
    ) -> _Fitted:
        """Both, fitted on some of the cases; no vectors, no media."""
        x, y = joined.features[rows], y[rows]
        shape = FusionConfig(modalities=MODALITIES, width=config.width)
        tree = TreeCandidate.fit(x, y, seed=config.seed, config=config.trees)
        if vectors is None:
            return cls(tree, untaught_fusion(shape, seed=config.seed))
        fusion = fit_fusion(
            vectors[rows],
            joined.mask[rows],
            y,
            TreeCandidate.fit_out_of_fold(x, y, seed=config.seed, config=config.trees),
            config=shape,
            seed=config.seed,
            budget_s=config.fusion_budget_s,
        )
        return cls(tree, fusion)

    def logits(
        self,
        joined: Joined,
        vectors: NDArray[np.float32] | None,
        rows: NDArray[np.intp],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-odds of some cases: of the trees alone, and of all there is."""
        tree_logit = self.tree.predict_logit(joined.features[rows])
        if vectors is None:
            return tree_logit, tree_logit
        found = FusionScorer(self.fusion).score(
            vectors[rows], joined.mask[rows], tree_logit
        )
        return tree_logit, found.logit.astype(np.float64)


def _learn(
    encoders: Mapping[str, Any],
    joined: Joined,
    y: NDArray[np.int64],
    fit: NDArray[np.intp],
    config: TrainConfig,
    say: Say,
    checkpoint: Path | None,
) -> NDArray[np.float32] | None:
    """Trains the encoders; gives vectors of all cases, or None without media."""
    encoders["tabular"].fit_scaling(joined.features[fit])
    if len(encoders) == 1:
        encoders["tabular"].seal()
        return None
    for modality, encoder in encoders.items():
        if modality != "tabular":
            item = joined.item[fit, MODALITIES.index(modality)]
            items = [joined.items[modality][i] for i in np.unique(item[item >= 0])]
            if modality == "text":
                _choose_form(encoder, items, say)
            encoder.fit_items(items)
    rows = [encoders["tabular"].decode(row) for row in joined.features]
    report = fit_encoders(
        encoders,
        {"tabular": rows, **joined.items},
        joined.item[fit],
        y[fit],
        seed=config.seed,
        budget_s=config.align_budget_s,
        progress=lambda share, line: say(line),
        checkpoint=checkpoint,
    )
    say(f"encoders trained in {report.seconds:.0f} s, {report.steps} steps")
    vectors = embed(joined, encoders)
    say("encoded every distinct payload once")
    return vectors


def _encoders(spec: TaskSpec, config: TrainConfig) -> dict[str, Any]:
    """Untrained encoders in mask order: tabular and the media the task names."""
    tabular = {
        "modality": "tabular",
        "features": len(spec.feature_names),
        "categories": [
            feature.categories if isinstance(feature, CalendarFeature) else 0
            for feature in spec.features
        ],
        "width": config.width,
    }
    encoders = {"tabular": build_encoder(tabular)}
    for modality, options in spec.modalities.items():
        given = {"width": config.width, **options, "modality": modality}
        encoders[modality] = build_encoder(given)
    return encoders


def _fingerprints(encoders: Mapping[str, Encoder], stage: Path) -> dict[str, str]:
    """What made each kind of vector; the fused one changes only with the fusion."""
    weights = stage / FUSION_FOLDER / "weights.safetensors"
    fused = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    return {m: e.fingerprint for m, e in encoders.items()} | {"fused": fused}


def _check_classes(
    y: NDArray[np.int64], fit: NDArray[np.intp], later: NDArray[np.intp]
) -> None:
    for what, rows in (("to learn from", fit), ("to judge by", later)):
        held = np.bincount(y[rows], minlength=2)
        if held.min() < 2:
            msg = (
                f"train: the {len(rows)} labelled cases {what} hold {held[1]} positive "
                f"and {held[0]} negative ones; at least 2 of each are needed"
            )
            raise ValueError(msg)


def _choose_form(encoder: Any, texts: list[str], say: Say) -> None:
    """Has a frozen transformer computed in the form that is fastest on this machine.

    Before anything is learnt from its states: what serves is what was learnt from.
    """
    options = encoder.config
    if options.serve != "auto" or options.tune != "none" or len(texts) < LEAST_TEXTS:
        return
    found = encoder.choose_form(texts)
    gain = found["measured"][found["form"]]["gain"]
    say(f"text is computed as {found['form']}, {gain:.1f} times as fast as plain torch")


def _metrics(
    y: NDArray[np.int64],
    tree_logit: NDArray[np.float64],
    score: NDArray[np.float64],
    fit: NDArray[np.intp],
) -> dict[str, Any]:
    return {
        "fitted_cases": len(fit),
        "judged_cases": len(y),
        "auc": auc(y, score),
        "auc_tabular": auc(y, tree_logit),
        "average_precision": average_precision(y, score),
        "average_precision_tabular": average_precision(y, tree_logit),
    }
