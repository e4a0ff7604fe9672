"""Disorder through a real cluster: every difference of features has its cause."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from automl.registry import ModelVersion, Registry
from connectors.archive import Archive, write_archive
from connectors.codec import encode_frame
from connectors.kafka import Producer, create_topics, delete_topics
from connectors.schemas import TIME
from pipelines import jobs, stack
from pipelines.account import Ledger
from pipelines.commands import skew
from pipelines.config import JobConfig
from pipelines.train import TrainConfig, train
from tests.integration.payments import DAY_MS, START_MS, payments, payments_task

pytestmark = pytest.mark.integration

EVENTS, DAYS, BURSTS, FRAME = 6000, 70, 700, 100
SHUFFLED_MS = 30_000
LATE_EVENTS, LATE_LABELS, TOO_LATE = 60, 80, 5


def in_bursts(archive: Archive) -> Archive:
    """The archive with about nine payments in each of many minutes."""
    rng = np.random.default_rng(5)
    bursts = np.sort(rng.integers(0, DAYS * 1440, BURSTS)) * 60_000 + START_MS
    at_ms = np.sort(rng.choice(bursts, EVENTS) + rng.integers(0, 60_000, EVENTS))
    columns = {}
    for table, name, add in (("tabular", "event_time", 0), ("labels", "label_time", 7)):
        found = archive.labels if table == "labels" else archive.tables[table]
        assert found is not None
        at = found.schema.get_field_index(name)
        times = pa.array(at_ms + add * DAY_MS, pa.int64()).cast(TIME)
        columns[table] = found.set_column(at, pa.field(name, TIME), times)
    return Archive(tables={"tabular": columns["tabular"]}, labels=columns["labels"])


class Disorder:
    """When each event and each label of an archive reaches its topic.

    Events are shuffled within half a minute; some come up to a day late, some after
    everything else, when they are older than all windows. Some labels come days after
    they should count.
    """

    def __init__(self, archive: Archive) -> None:
        assert archive.labels is not None
        rng = np.random.default_rng(6)
        self.events, self.labels = archive.tables["tabular"], archive.labels
        at_ms = self.events["event_time"].cast(pa.int64()).to_numpy()
        arrives = at_ms + rng.integers(0, SHUFFLED_MS, EVENTS)
        late = rng.choice(np.arange(TOO_LATE, EVENTS), LATE_EVENTS, replace=False)
        arrives[late] += rng.integers(3_600_000, DAY_MS, LATE_EVENTS)
        arrives[:TOO_LATE] = arrives.max() + 1
        known = self.labels["label_time"].cast(pa.int64()).to_numpy().copy()
        self.late_labels = rng.choice(EVENTS // 2, LATE_LABELS, replace=False)
        known[self.late_labels] += 4 * DAY_MS
        self._arrives, self._known = arrives, known

    def steps(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """What to send, one frame after the other."""
        order = np.argsort(self._arrives, kind="stable")
        by_time = np.argsort(self._known, kind="stable")
        told = 0
        for start in range(0, EVENTS, FRAME):
            rows = order[start : start + FRAME]
            until = np.searchsorted(
                self._known[by_time], self._arrives[rows[-1]], side="right"
            )
            if until > told:
                yield "labels", _batch(self.labels, by_time[told:until])
                told = int(until)
            yield "events.tabular", _batch(self.events, rows)


def _batch(table: pa.Table, rows: np.ndarray) -> pa.RecordBatch:
    return table.take(pa.array(rows)).combine_chunks().to_batches()[0]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disorder") / "archive"
    write_archive(folder, in_bursts(payments(seed=12, events=EVENTS)))
    return folder


@pytest.fixture(scope="module")
def model(archive: Path, registry: Registry) -> ModelVersion:
    config = TrainConfig(align_budget_s=2.0, fusion_budget_s=1.0)
    given = in_bursts(payments(seed=12, events=EVENTS))
    return train(given, payments_task(), "disorder", registry, config=config)


def compare(
    local: stack.Stack, prefix: str, task: Path, archive: Path | None, capsys: object
) -> dict[str, object]:
    args = argparse.Namespace(
        archive=archive,
        task=task,
        served=None,
        topics=prefix,
        home=local.home,
        dead_letters=None,
        limit=1.0,
        tolerance=0.0,
        out=None,
        json=True,
    )
    assert skew.run(args) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("nodes", [1, 2])
def test_disorder_is_balanced_and_every_difference_explained(
    local: stack.Stack,
    archive: Path,
    model: ModelVersion,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    nodes: int,
) -> None:
    prefix = f"disorder{nodes}-{os.getpid()}."
    create_topics(local.bootstrap, prefix=prefix)
    config = JobConfig(
        bootstrap=local.bootstrap,
        model_folder=str(model.folder.resolve()),
        prefix=prefix,
        nodes=nodes,
    )
    job_id = jobs.submit(local, ["score"], config)["score"]
    disorder = Disorder(in_bursts(payments(seed=12, events=EVENTS)))
    task = tmp_path / "task.json"
    task.write_text(json.dumps(model.manifest.task))
    try:
        ledger, sent = Ledger(local.bootstrap, prefix=prefix), 0
        with Producer(local.bootstrap) as producer:
            for topic, batch in disorder.steps():
                producer.send(prefix + topic, encode_frame(batch), key="one")
                producer.flush()
                if topic == "labels":
                    continue
                sent += batch.num_rows
                # a label that comes later was not there for these
                deadline = time.monotonic() + 90
                while ledger.accounted < sent and time.monotonic() < deadline:
                    ledger.read()
        balance = ledger.balance(EVENTS)
        letters = ledger.dead_letters()
        ledger.close()
        assert (balance.lost, balance.duplicated) == (0, 0)
        assert balance.decided == EVENTS - TOO_LATE
        assert [one["kind"] for one in letters] == ["late"] * TOO_LATE
        for truth in (None, archive):
            found = compare(local, prefix, task, truth, capsys)
            causes = found["causes"]
            assert isinstance(causes, dict)
            assert found["rows"] == EVENTS - TOO_LATE
            assert found["explained"] == 1.0
            assert found["unproved"] == 0
            assert causes["bug"] == 0
            assert causes["late_event"] > LATE_EVENTS
            assert causes["label_late"] > LATE_LABELS
        assert jobs.restarts(local, job_id) == 0
    finally:
        jobs.cancel(local, job_id)
        delete_topics(local.bootstrap, prefix=prefix)
