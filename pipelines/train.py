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
from automl.task import TaskSpec
from connectors.archive import Archive, column_kinds
from connectors.records import MODALITIES
from encoders import build_encoder, save_encoders
from encoders.align import fit_encoders
from encoders.base import Encoder
from fusion.model import FusionConfig, FusionModel, FusionScorer
from fusion.store import save_fusion
from fusion.train import fit_fusion, untaught_fusion
from pipelines.fitted_rows import FittedRows
from pipelines.offline import Joined, embed, join, labels_of
from pipelines.scorer import ENCODERS_FOLDER, FUSION_FOLDER, TREE_FILE

#: Told one line per step.
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a model is fitted.

    Attributes:
        seed: of every random choice.
        fit_share: part of the labelled cases, earliest first, that is learnt from;
            the rest, later in time, judges and sets the threshold.
        align_budget_s: wall clock for the encoders.
        fusion_budget_s: wall clock for the fusion.
        width: D, width of every embedding.
        trees: how the boosted trees grow.
    """

    seed: int = 0
    fit_share: float = 0.75
    align_budget_s: float = 60.0
    fusion_budget_s: float = 30.0
    width: int = 128
    trees: TreeConfig = field(default_factory=TreeConfig)


def train(
    archive: Archive,
    task: Mapping[str, Any] | Path,
    name: str,
    registry: Registry,
    *,
    config: TrainConfig | None = None,
    say: Say | None = None,
) -> ModelVersion:
    """Fit a model on the labelled cases of an archive, judge it forward in time, store.

    A task without media gets the trees alone, and a fusion that was taught nothing:
    no case of it ever reaches one. The new version is not promoted; that is the
    caller's choice.

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
    joined = join(spec, archive, encoders)
    y = labels_of(archive, joined.case_id)
    say(
        f"read {len(y)} cases, {int((y == 1).sum())} of {int((y >= 0).sum())} "
        f"labelled ones are positive; {len(joined.dead)} events cannot be used"
    )
    labelled = np.flatnonzero(y >= 0)
    fit, later = np.split(labelled, [int(len(labelled) * config.fit_share)])
    _check_classes(y, fit, later)

    x = joined.features
    tree = TreeCandidate.fit(x[fit], y[fit], seed=config.seed, config=config.trees)
    tree_logit = tree.predict_logit(x[later])
    encoders["tabular"].fit_scaling(x[fit])
    logit: NDArray[np.floating[Any]]
    if spec.modalities:
        _align(encoders, joined, y, fit, config, say)
        vectors = embed(joined, encoders)
        say("encoded every distinct payload once")
        fusion = _fuse(vectors, joined, y, fit, config)
        logit, _, _ = FusionScorer(fusion).score(
            vectors[later], joined.mask[later], tree_logit
        )
    else:
        encoders["tabular"].seal()
        fusion = untaught_fusion(_shape(config), seed=config.seed)
        logit = tree_logit
    score = 1.0 / (1.0 + np.exp(-logit.astype(np.float64)))
    metrics = _metrics(y[later], tree_logit, score, fit)
    say(
        f"judged on {len(later)} later cases: AUC {metrics['auc']:.3f} "
        f"(tabular alone {metrics['auc_tabular']:.3f}), "
        f"average precision {metrics['average_precision']:.3f}"
    )
    share = float(y[fit].mean())
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        tree.save(stage / TREE_FILE)
        FittedRows(x[fit], y[fit], joined.event_time_ms[fit]).write(stage)
        save_fusion(fusion, stage / FUSION_FOLDER)
        save_encoders(encoders, stage / ENCODERS_FOLDER)
        return registry.save(
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


def _encoders(spec: TaskSpec, config: TrainConfig) -> dict[str, Any]:
    """Untrained encoders in mask order: tabular and the media the task names."""
    features = len(spec.feature_names)
    tabular = {"modality": "tabular", "features": features, "width": config.width}
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


def _shape(config: TrainConfig) -> FusionConfig:
    return FusionConfig(modalities=MODALITIES, width=config.width)


def _fuse(
    vectors: NDArray[np.float32],
    joined: Joined,
    y: NDArray[np.int64],
    fit: NDArray[np.intp],
    config: TrainConfig,
) -> FusionModel:
    """The fusion on top of what trees say of rows they never saw."""
    oof = TreeCandidate.fit_out_of_fold(
        joined.features[fit], y[fit], seed=config.seed, config=config.trees
    )
    return fit_fusion(
        vectors[fit],
        joined.mask[fit],
        y[fit],
        oof,
        config=_shape(config),
        seed=config.seed,
        budget_s=config.fusion_budget_s,
    )


def _align(
    encoders: Mapping[str, Any],
    joined: Joined,
    y: NDArray[np.int64],
    fit: NDArray[np.intp],
    config: TrainConfig,
    say: Say,
) -> None:
    rows = [encoders["tabular"].decode(row) for row in joined.features]
    report = fit_encoders(
        encoders,
        {"tabular": rows, **joined.items},
        joined.item[fit],
        y[fit],
        seed=config.seed,
        budget_s=config.align_budget_s,
        progress=lambda share, line: say(line),
    )
    say(f"encoders trained in {report.seconds:.0f} s, {report.steps} steps")


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
