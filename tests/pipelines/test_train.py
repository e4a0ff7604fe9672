"""Training without media: which cases are learnt from, and what their windows saw."""

import numpy as np
import pyarrow as pa
import pytest

from automl.candidates import TreeConfig
from automl.registry import Registry
from connectors.archive import Archive
from connectors.schemas import LABELS, TIME
from pipelines.fitted_rows import FittedRows
from pipelines.train import TrainConfig, train

DAY_MS = 86_400_000
START_MS = 1_767_225_600_000  # 2026-01-01
TASK = {
    "name": "t",
    "entities": {"customer": "customer"},
    "features": [
        "amount",
        {"name": "seen", "entity": "customer", "agg": "count", "window": "30d"},
    ],
}


@pytest.fixture
def archive():
    """Ten days of ten payments a day by one customer; large ones are fraud."""
    number = np.arange(100)
    times = START_MS + number * (DAY_MS // 10)
    amount = np.where(number % 3 == 0, 90.0, 10.0)
    cases = [f"k{i}" for i in number]
    tabular = pa.table(
        {
            "event_id": cases,
            "case_id": cases,
            "event_time": pa.array(times).cast(TIME),
            "amount": amount,
            "customer": ["x"] * 100,
        }
    )
    known = {"case_id": cases, "label_time": times, "label": (amount > 50).astype(int)}
    labels = pa.table({**known, "label_time": pa.array(times).cast(TIME)}).cast(LABELS)
    return Archive(tables={"tabular": tabular}, labels=labels)


def fitted(archive, tmp_path, **span):
    config = TrainConfig(trees=TreeConfig(trees=5))
    said = []
    version = train(
        archive, TASK, "t", Registry(tmp_path), config=config, say=said.append, **span
    )
    return FittedRows.read(version.folder), version.manifest, said


def test_cases_of_the_days_asked_for_are_learnt_and_windows_reach_back(
    archive, tmp_path
):
    span = {"since": "2026-01-04", "until": "2026-01-10"}
    rows, manifest, _ = fitted(archive, tmp_path, **span)
    assert len(rows.y) == 60
    assert rows.x[:, 1].tolist() == list(range(31, 91))  # those of days before, too
    assert manifest.metrics["fitted_cases"] == 45
    assert manifest.metrics["judged_cases"] == 15


def test_trees_are_fitted_again_on_all_cases_once_they_are_judged(archive, tmp_path):
    rows, manifest, said = fitted(archive, tmp_path)
    assert (len(rows.y), manifest.metrics["fitted_cases"]) == (100, 75)
    assert manifest.prior_logit == pytest.approx(np.log(34 / 66))
    assert "judged on 25 later cases" in said[-1]


def test_too_few_labels_of_either_class_are_told(archive, tmp_path):
    with pytest.raises(ValueError, match="at least 2 of each are needed"):
        fitted(archive, tmp_path, until="2026-01-02")
