"""Path 2: features and labels from the topics to a better tree, published.

The encoders and the fusion of the champion are carried over; a new tree takes the
place of the old one when it ranks later cases better. Legend: `N` rows, `F` features.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.candidates import TreeCandidate
from automl.evaluate import Verdict, compare, threshold_for_alerts_per_day
from automl.manifest import MANIFEST_FILE
from automl.registry import ModelVersion, Registry
from automl.task import TaskSpec
from connectors.codec import CodecError, decode_frame
from connectors.kafka import Producer, Reader, Value
from connectors.labels import read_labels
from connectors.schemas import dead_letters_frame, rows_of_list
from pipelines.fitted_rows import FittedRows
from pipelines.followed_trust import FollowedTrust
from pipelines.publish import publish
from pipelines.scorer import TREE_FILE
from pipelines.stream_span import TOPICS as SPAN_TOPICS
from pipelines.stream_span import StreamSpan

logger = logging.getLogger(__name__)

#: Decisions carry six digits: a score of 0 or 1 in them may be as near as this.
LEAST_SCORE = 5e-7


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainConfig:
    """When to try a challenger and how to judge it.

    Attributes:
        bootstrap: HOST:PORT of the broker.
        registry: folder of the model versions.
        name: the model to keep fresh.
        prefix: topic prefix.
        first_labels: labelled cases from the stream before the first challenger.
        every_labels: further labelled cases between two challengers.
        judge_share: part of the stream's labelled cases, the latest, that judges.
        skew_rows: newest events whose served features are compared with the backfill
            before a version is published.
        skew_limit: share of those that may differ; one unexplained value is too much.
        seed: of the trees.
    """

    bootstrap: str
    registry: Path
    name: str
    prefix: str = ""
    first_labels: int = 600
    every_labels: int = 200
    judge_share: float = 0.4
    skew_rows: int = 50_000
    skew_limit: float = 0.01
    seed: int = 0


class Retrainer:
    """Collects labelled feature rows and now and then tries a challenger.

    Args:
        config: when and how.
    """

    def __init__(self, config: RetrainConfig) -> None:
        self._config = config
        self._registry = Registry(config.registry)
        self._rows: dict[str, tuple[int, NDArray[np.float64]]] = {}
        self._labels: dict[str, int] = {}
        self._last_score: dict[str, tuple[float, int]] = {}
        self._trust = FollowedTrust(self._registry, config.name)
        self._trees: dict[int, TreeCandidate] = {}
        self._next_at = config.first_labels

    @property
    def matured(self) -> list[str]:
        """Cases with features and a label, in event-time order."""
        known = [case for case in self._labels if case in self._rows]
        return sorted(known, key=lambda case: (self._rows[case][0], case))

    def take(self, value: Value) -> list[bytes]:
        """Keep what one Kafka value says; gives dead-letter frames for bad labels."""
        topic = value.place.topic.removeprefix(self._config.prefix)
        if topic == "labels":
            labels, letters = read_labels(value.value, value.place)
            self._labels |= {one.case_id: one.label for one in labels}
            self._trust.take_labels(labels)
            return [dead_letters_frame([letter]) for letter in letters]
        try:
            batch = decode_frame(value.value or b"")
        except CodecError as error:
            logger.error("read %s: %s", value.place, error)
            return []
        if topic == "decisions":
            self._trust.take_decisions(batch)
            for row in batch.select(["case_id", "score", "model_version"]).to_pylist():
                self._last_score[row["case_id"]] = (row["score"], row["model_version"])
            return []
        times = batch.column("event_time").cast("int64").to_pylist()
        matrix = rows_of_list(batch.column("values"))
        cases = batch.column("case_id").to_pylist()
        self._rows |= dict(zip(cases, zip(times, matrix, strict=True), strict=True))
        return []

    def try_challenger(self) -> tuple[ModelVersion | None, Verdict | None]:
        """A better version, stored but not promoted yet, when it is time and there is.

        The champion was fitted before the stream's cases; the challenger on the
        champion's rows and the earlier of the stream's; both are judged on the rest.
        """
        cases = self.matured
        if len(cases) < self._next_at:
            return None, None
        self._next_at = len(cases) + self._config.every_labels
        champion = self._registry.champion(self._config.name)
        if champion is None:
            return None, None
        x = np.stack([self._rows[case][1] for case in cases])
        y = np.array([self._labels[case] for case in cases])
        times = np.array([self._rows[case][0] for case in cases])
        cut = int(len(cases) * (1 - self._config.judge_share))
        known = FittedRows.read(champion.folder)
        learnt = known.extended(x[:cut], y[:cut], times[:cut])
        tree = TreeCandidate.fit(learnt.x, learnt.y, seed=self._config.seed)
        evidence = self._evidence(cases[cut:], x[cut:])
        old = self._tree(champion.version).predict_logit(x[cut:]) + evidence
        new = tree.predict_logit(x[cut:]) + evidence
        verdict = compare(old, new, y[cut:])
        logger.info("%d labelled cases: %s", len(cases), verdict.reason)
        if not verdict.better:
            return None, verdict
        score = 1.0 / (1.0 + np.exp(-new))
        return self._store(champion, tree, learnt, score, times[cut:], verdict), verdict

    def follow_trust(self) -> ModelVersion | None:
        """The champion with other weights of its modalities, when labels ask for it."""
        return self._trust.next_version()

    def _evidence(
        self, cases: list[str], x: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What the media added to each case's log-odds when it was decided last."""
        evidence = np.zeros(len(cases))
        for i, case in enumerate(cases):
            if case in self._last_score:
                score, version = self._last_score[case]
                score = min(max(score, LEAST_SCORE), 1 - LEAST_SCORE)
                logit = np.log(score) - np.log1p(-score)
                evidence[i] = logit - self._tree(version).predict_logit(x[i : i + 1])[0]
        return evidence

    def _tree(self, version: int) -> TreeCandidate:
        if version not in self._trees:
            folder = self._registry.get(self._config.name, version).folder
            self._trees[version] = TreeCandidate.load(folder / TREE_FILE)
        return self._trees[version]

    def _store(
        self,
        champion: ModelVersion,
        tree: TreeCandidate,
        learnt: FittedRows,
        score: NDArray[np.float64],
        times: NDArray[np.int64],
        verdict: Verdict,
    ) -> ModelVersion:
        manifest = champion.manifest
        share = float(learnt.y.mean())
        alerts_per_day = float(manifest.task["alerts_per_day"])
        with tempfile.TemporaryDirectory() as folder:
            stage = Path(folder) / "stage"
            skip = shutil.ignore_patterns(MANIFEST_FILE)
            shutil.copytree(champion.folder, stage, ignore=skip)
            tree.save(stage / TREE_FILE)
            learnt.write(stage)
            return self._registry.save_next(
                manifest,
                stage,
                threshold=threshold_for_alerts_per_day(score, times, alerts_per_day),
                prior_logit=float(np.log(share / (1 - share))),
                metrics={**verdict.figures, "fitted_cases": len(learnt.y)},
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )


def served_as_trained(span: StreamSpan, version: ModelVersion, limit: float) -> bool:
    """Whether the features served lately are those of the backfill; says why not.

    A model learns from served features: where they are wrong, so is the model.
    """
    spec = TaskSpec.from_json(version.manifest.task)
    found = span.skew(spec)
    name = f"{version.name} v{version.version}"
    if found is None or not found.rows:
        logger.warning("publish %s: no served row could be checked for skew", name)
        return True
    if found.passes(limit):
        logger.info("skew check of %s: %s", name, found)
        return True
    logger.error(
        "%s is not published: %s (limit %.4f%% and no bug; by feature: %s); look with: "
        "sluice skew --topics",
        name,
        found,
        100 * limit,
        found.by_feature,
    )
    return False


def run(config: RetrainConfig, stop: threading.Event) -> None:
    """Follow the topics from their beginning until `stop` is set."""
    retrainer = Retrainer(config)
    span = StreamSpan(most_rows=config.skew_rows)
    learnt_from = ("features", "labels", "decisions")
    others = [name for name in SPAN_TOPICS if name not in learnt_from]
    topics = [config.prefix + name for name in (*learnt_from, *others)]
    registry = Registry(config.registry)
    with (
        Reader(config.bootstrap, topics) as reader,
        Producer(config.bootstrap) as producer,
    ):
        while not stop.is_set():
            for value in reader.poll(timeout_ms=500):
                topic = value.place.topic.removeprefix(config.prefix)
                span.take(topic, value)
                if topic in others:
                    continue
                for frame in retrainer.take(value):
                    topic = f"{config.prefix}dead-letters"
                    producer.send(topic, frame, key="labels")
            turned = retrainer.follow_trust()
            if turned is not None:
                publish(registry, turned, config.bootstrap, prefix=config.prefix)
            version, verdict = retrainer.try_challenger()
            if version is None or verdict is None:
                continue
            if served_as_trained(span, version, config.skew_limit):
                publish(registry, version, config.bootstrap, prefix=config.prefix)
                logger.info(
                    "published %s v%d: %s",
                    version.name,
                    version.version,
                    verdict.reason,
                )
        producer.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the retrain process until SIGTERM; gives the exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level="INFO")
    logging.getLogger("kafka").setLevel("ERROR")
    os.nice(10)  # scoring goes first
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(_config_from(argv), stop)
    return 0


def _config_from(argv: Sequence[str] | None) -> RetrainConfig:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--first-labels", type=int, default=600)
    parser.add_argument("--every-labels", type=int, default=200)
    parser.add_argument("--skew-rows", type=int, default=50_000)
    parser.add_argument("--skew-limit", type=float, default=0.01)
    found: dict[str, Any] = vars(parser.parse_args(argv))
    return RetrainConfig(**found)


if __name__ == "__main__":
    sys.exit(main())
