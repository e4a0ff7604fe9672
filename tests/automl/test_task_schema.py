"""The published JSON Schema takes what the reader of the task file takes."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from automl.task import Limits, SearchSpec, TaskError, TaskSpec
from automl.task_checks import KINDS
from automl.task_features import AGGREGATIONS
from tests.automl.test_task import MEAN, task, with_feature
from tests.automl.test_task_views import AGE, TERMINAL

SCHEMA = Path(__file__).parents[2] / "automl" / "task.schema.json"


def test_the_schema_knows_the_same_keys_and_words_as_the_reader() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    keys = schema["properties"]
    window = schema["$defs"]["window_feature"]
    spec = TaskSpec.from_json(with_feature(where="amount>1", delay="1d"))
    assert set(keys) == {f.name for f in fields(TaskSpec)}
    assert set(keys["modalities"]["properties"]) == set(spec.modalities)
    assert set(keys["label"]["properties"]) == set(spec.to_dict()["label"])
    assert set(keys["search"]["properties"]) == {f.name for f in fields(SearchSpec)}
    assert set(window["properties"]) == set(spec.to_dict()["features"][0])
    assert set(window["properties"]["agg"]["enum"]) == set(AGGREGATIONS)
    assert set(keys["columns"]["additionalProperties"]["enum"]) == set(KINDS)


def test_the_schema_states_the_defaults_of_the_reader() -> None:
    keys = json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]
    stated = {name: key["default"] for name, key in keys.items() if "default" in key}
    for name in ("label", "search"):
        inner = keys[name]["properties"]
        stated[name] = {key: value["default"] for key, value in inner.items()}
    spec = TaskSpec.from_json({"name": "cards"})
    empty: dict[str, Any] = {"columns": {}, "limits": {}}
    assert {"name": "cards", **stated} == {**spec.to_dict(), **empty}
    limit = keys["limits"]["additionalProperties"]["properties"]
    assert Limits() == Limits(**{end: limit[end]["default"] for end in ("min", "max")})


SAMPLES: list[tuple[dict[str, Any], bool]] = [
    (task(), True),
    (task(modalities={}), True),
    (task(features=[AGE, MEAN, *TERMINAL, "hour<=6", "amount"]), True),
    (task(features=[{**AGE, "column": "amount"}]), False),
    (task(features=["label"]), False),
    (task(features=["labels"]), True),
    (with_feature(column="label"), True),
    (with_feature(column="label", agg="distinct"), False),
    (with_feature(agg="distinct"), True),
    (with_feature(column=...), False),
    (with_feature(where="label==1"), False),
    (with_feature(where=" label >= 1"), False),
    (with_feature(where="labelled==1"), True),
    (task(label={"delay": "90d"}), True),
    (task(limits={"amount": {"min": 0, "max": 1e12}, "n": {}}), True),
    (task(limits={"amount": {"max": 1.1e12}}), False),
    (task(limits={"amount": {"most": 1}}), False),
    (task(limits={"": {}}), False),
]
LENGTHS = ["0", "1", "9", "10", "29", "30", "31", "99", "100", "599", "719", "720"]
LENGTHS += ["721", "999", "9999", "39999", "42999", "43199", "43200", "43201", "99999"]
LENGTHS += ["999999", "1999999", "2499999", "2589999", "2591999", "2592000", "2592001"]
LENGTHS += ["0030", "00", "000000000001", "0000000000001", "3000000", "x", "-1", "1.5"]


@pytest.mark.parametrize(("source", "good"), SAMPLES)
def test_the_schema_takes_what_the_reader_takes(
    source: dict[str, Any], good: bool
) -> None:
    assert (_schema_takes(source), _reader_takes(source)) == (good, good)


@pytest.mark.parametrize("key", ["window", "delay"])
@pytest.mark.parametrize("unit", ["d", "h", "m", "s", "w", ""])
def test_the_schema_takes_the_durations_of_the_reader(key: str, unit: str) -> None:
    sources = [with_feature(**{key: f"{length}{unit}"}) for length in LENGTHS]
    taken = [_reader_takes(source) for source in sources]
    assert [_schema_takes(source) for source in sources] == taken
    assert any(taken) == (unit in "dhms" and unit != "")


def _schema_takes(source: dict[str, Any]) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return bool(jsonschema.Draft202012Validator(schema).is_valid(source))


def _reader_takes(source: dict[str, Any]) -> bool:
    try:
        TaskSpec.from_json(source)
    except TaskError:
        return False
    return True
