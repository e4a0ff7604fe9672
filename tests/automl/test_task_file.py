from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from automl.task import TaskSpec
from automl.task_features import ColumnFeature, TaskError
from automl.task_file import LabelSpec, SearchSpec, read_task

WHOLE: dict[str, Any] = {
    "name": "cards",
    "entities": {"card": "card_id"},
    "features": ["amount"],
    "modalities": {"text": {"max_chars": 200}},
    "label": {"delay": "1d"},
    "metric": "auc",
    "search": {"max_trials": 2},
    "alerts_per_day": 12,
    "latency_budget_ms": 20,
    "columns": {"amount": "number"},
}


def test_every_key_is_read_by_its_parser() -> None:
    assert read_task(WHOLE) == WHOLE | {
        "features": (ColumnFeature(name="amount"),),
        "label": LabelSpec(delay_ms=86_400_000),
        "search": SearchSpec(budget_s=60.0, max_trials=2),
    }


def test_a_file_may_state_what_a_task_holds_and_no_more() -> None:
    assert {*WHOLE} == {field.name for field in fields(TaskSpec)}
    with pytest.raises(TaskError, match="unknown key 'colour'"):
        read_task({**WHOLE, "colour": "red"})


def test_what_a_file_does_not_state_is_left_out() -> None:
    assert read_task({"name": "cards"}) == {"name": "cards"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "expected one JSON object"),
        ('{"name": "a", "name": "b"}', "stands twice"),
        ('{"name": "a", "alerts_per_day": NaN}', "'NaN' is not JSON"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "task.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=says):
        read_task(path)


def test_a_missing_file_is_refused_naming_it(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"none\.json, cannot be read|none\.json: "):
        read_task(tmp_path / "none.json")
