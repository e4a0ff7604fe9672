from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from automl.task import TaskSpec
from automl.task_features import ColumnFeature
from automl.task_fields import TaskError
from automl.task_file import LabelSpec, Limits, SearchSpec, read_task

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
    "limits": {"amount": {"min": -5, "max": 5}, "age": {"max": 120}, "n": {}},
    "columns": {"amount": "number"},
}


def test_every_key_is_read_by_its_parser() -> None:
    assert read_task(WHOLE) == WHOLE | {
        "features": (ColumnFeature(name="amount"),),
        "label": LabelSpec(delay_ms=86_400_000),
        "search": SearchSpec(budget_s=60.0, max_trials=2),
        "limits": {
            "amount": Limits(min=-5.0, max=5.0),
            "age": Limits(min=-1e12, max=120.0),
            "n": Limits(min=-1e12, max=1e12),
        },
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
        ("[" * 100_000, "is not JSON"),
        ('{"name": "a", "name": "b"}', "stands twice"),
        ('{"name": "a", "alerts_per_day": NaN}', "'NaN' is not JSON"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "task.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=says):
        read_task(path)


@pytest.mark.parametrize(
    ("limits", "field", "says"),
    [
        ([], "limits", "expected an object"),
        ({"amount": 5}, "limits.amount", "expected an object"),
        ({"amount": {"mim": 0}}, "limits.amount.mim", "did you mean 'min'?"),
        ({"amount": {"min": "0"}}, "limits.amount.min", "expected a number"),
        ({"amount": {"min": True}}, "limits.amount.min", "got True"),
        ({"amount": {"min": None}}, "limits.amount.min", "got None"),
        ({"amount": {"max": float("nan")}}, "limits.amount.max", "got nan"),
        ({"amount": {"max": float("inf")}}, "limits.amount.max", "-1e12 to 1e12"),
        ({"amount": {"max": 1.0001e12}}, "limits.amount.max", "-1e12 to 1e12"),
        ({"amount": {"min": -(10**400)}}, "limits.amount.min", "-1e12 to 1e12"),
        ({"amount": {"min": 2, "max": 1}}, "limits.amount", "expected min <= max"),
        ({" ": {}}, "limits", "name a numeric column"),
    ],
)
def test_wrong_limits_are_refused(limits: Any, field: str, says: str) -> None:
    with pytest.raises(TaskError, match=says) as refused:
        read_task({"name": "cards", "limits": limits})
    assert refused.value.field == field


def test_limits_may_be_a_single_point_and_reach_the_ends() -> None:
    ends = {"min": -(10**12), "max": 10**12}
    found = read_task({"name": "a", "limits": {"x": {"min": 1, "max": 1}, "y": ends}})
    assert found["limits"] == {"x": Limits(min=1, max=1), "y": Limits()}


def test_no_media_is_a_task_too() -> None:
    spec = TaskSpec.from_json({"name": "cards", "modalities": {}})
    assert spec.modalities == {}
    assert TaskSpec.from_json(spec.to_dict()) == spec


def test_a_missing_file_is_refused_naming_it(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"none\.json, cannot be read|none\.json: "):
        read_task(tmp_path / "none.json")
