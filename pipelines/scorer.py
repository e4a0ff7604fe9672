"""A model version at work: features and embeddings in, scores with reasons out.

Legend: `B` rows, `M` modalities, `D` shared width, `F` features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from automl.candidates import TreeCandidate
from automl.explain import reasons
from automl.registry import ArtefactError, Manifest, verify
from connectors.records import MODALITIES
from encoders.base import Encoder
from encoders.store import load_encoder
from fusion.scorer import FusionScorer
from fusion.store import load_fusion

TREE_FILE = "tree.txt"
FUSION_FOLDER = "fusion"
ENCODERS_FOLDER = "encoders"
TABULAR = MODALITIES.index("tabular")


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says about a batch.

    Attributes:
        score: float64 (B,) in 0..1, of six digits.
        alert: bool (B,), score at or above the threshold.
        gates: float32 (B, M), 0 for an absent modality.
        fused: float32 (B, D), unit rows; zeros for a case without media; (B, 0) when
            no case has any.
        vectors: float32 (B, M, D), the inputs, the tabular one filled in beside media;
            None when no case has any.
        tree_logit: float64 (B,), the tabular part's log-odds.
        said: float32 (B, T), log-odds that each modality, then each pair of them adds
            where it is fully relied on; (B, 0) when no case has media.
    """

    score: NDArray[np.float64]
    alert: NDArray[np.bool_]
    gates: NDArray[np.float32]
    fused: NDArray[np.float32]
    vectors: NDArray[np.float32] | None
    tree_logit: NDArray[np.float64]
    said: NDArray[np.float32]


class Scorer:
    """Scores cases with one verified model version.

    Args:
        manifest: what the version says of itself.
        tree: log-odds from the tabular features.
        fusion: evidence of the media on top.
        tabular: encoder of the feature row.
    """

    def __init__(
        self,
        manifest: Manifest,
        tree: TreeCandidate,
        fusion: FusionScorer,
        tabular: Encoder,
    ) -> None:
        self.manifest = manifest
        self.tree = tree
        self.fusion = fusion
        self.tabular = tabular

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A version whose every file is as its manifest says, tried on one row.

        Raises:
            ArtefactError: a file is missing or altered, or the parts do not fit.
        """
        manifest = verify(folder)
        tree = TreeCandidate.load(folder / TREE_FILE)
        fusion = load_fusion(folder / FUSION_FOLDER, width=manifest.width)
        tabular = load_encoder(folder / ENCODERS_FOLDER / "tabular")
        if tree.feature_count != len(manifest.features):
            msg = (
                f"{folder / TREE_FILE}: takes {tree.feature_count} features, the "
                f"manifest names {len(manifest.features)}"
            )
            raise ArtefactError(msg)
        found = cls(manifest, tree, FusionScorer(fusion, manifest.reliability), tabular)
        shape = (1, len(MODALITIES))
        found.score(
            np.zeros((1, len(manifest.features))),
            np.zeros((*shape, manifest.width), np.float32),
            np.ones(shape, np.bool_),
        )
        return found

    def score(
        self,
        features: NDArray[np.float64],
        vectors: NDArray[np.float32] | None,
        mask: NDArray[np.bool_],
    ) -> Scored:
        """Scores cases of which some modalities are present.

        Without media the tree's log-odds stand alone: the tabular gate is 1, and there
        is nothing to fuse.

        Args:
            features: float64 (B, F), anything where the tabular part is absent.
            vectors: float32 (B, M, D) embeddings; the tabular one is computed here.
                None when no case has media.
            mask: bool (B, M), which modalities are present.
        """
        there = mask[:, TABULAR]
        if there.all():
            logit = self.tree.predict_logit(features)
        else:
            logit = np.full(len(mask), self.manifest.prior_logit)
            if there.any():
                logit[there] = self.tree.predict_logit(features[there])
        tree_logit = logit
        gates = mask.astype(np.float32)
        fused = said = np.zeros((len(mask), 0), dtype=np.float32)
        if vectors is not None:
            logit = tree_logit.copy()
            vectors = vectors.copy()
            fused = np.zeros((len(mask), vectors.shape[2]), dtype=np.float32)
            said = np.zeros((len(mask), self.fusion.tokens), dtype=np.float32)
            media = mask.sum(axis=1) > there
            self._fuse(features, vectors, mask, media, (logit, gates, fused, said))
        # six digits: the same in a batch of one and in a batch of many
        score = (1.0 / (1.0 + np.exp(-logit))).round(6)
        return Scored(
            score=score,
            alert=score >= self.manifest.threshold,
            gates=gates,
            fused=fused,
            vectors=vectors,
            tree_logit=tree_logit,
            said=said,
        )

    def _fuse(
        self,
        features: NDArray[np.float64],
        vectors: NDArray[np.float32],
        mask: NDArray[np.bool_],
        media: NDArray[np.bool_],
        out: tuple[NDArray[Any], ...],
    ) -> None:
        """Writes what the media of some cases add, and their tabular embeddings.

        `out` is written in the order of `fusion.model.Fused`; its first holds the
        log-odds of the trees.
        """
        if not media.any():
            return
        both = media & mask[:, TABULAR]
        decoded = [self.tabular.decode(row) for row in features[both]]
        vectors[both, TABULAR] = self.tabular.encode(decoded)
        found = self.fusion.score(vectors[media], mask[media], out[0][media])
        for whole, part in zip(out, found, strict=True):
            whole[media] = part

    def reasons(
        self,
        features: NDArray[np.float64],
        scored: Scored,
        mask: NDArray[np.bool_],
        rows: list[int],
    ) -> list[list[dict[str, Any]]]:
        """What raised the score of the given rows, strongest first."""
        if not rows:
            return []
        some = mask[rows]
        deltas = np.zeros(some.shape)
        agreed = [dict[str, tuple[float, float]]() for _ in rows]
        media = np.flatnonzero(some.sum(axis=1) > some[:, TABULAR])
        if len(media) and scored.vectors is not None:
            fused = np.asarray(rows)[media]
            deltas[media] = self.fusion.leave_one_out(
                scored.vectors[fused], some[media], scored.tree_logit[fused]
            )
            cosines = self.fusion.agreement(scored.vectors[fused], some[media])
            self._agreed(agreed, media, cosines, scored.said[fused])
        parts = self.tree.contributions(features[rows])
        parts[~some[:, TABULAR]] = 0.0
        # four digits: the same in a batch of one and in a batch of many
        deltas, parts = deltas.round(4), parts.round(4)
        return [
            reasons(
                self.manifest.features,
                features[row],
                parts[i],
                {
                    m: float(deltas[i, j])
                    for j, m in enumerate(MODALITIES)
                    if some[i, j]
                },
                agreed[i],
            )
            for i, row in enumerate(rows)
        ]

    def _agreed(
        self,
        agreed: list[dict[str, tuple[float, float]]],
        media: NDArray[np.intp],
        cosines: NDArray[np.float32],
        said: NDArray[np.float32],
    ) -> None:
        """Writes the cosine of each pair that says something, and what it says."""
        names = self.fusion.config.tokens[len(MODALITIES) :]
        effects = said[:, len(MODALITIES) :]
        for row, pair in np.argwhere(effects):
            value, effect = cosines[row, pair], effects[row, pair]
            agreed[media[row]][names[pair]] = (
                round(float(value), 4),
                round(float(effect), 4),
            )
