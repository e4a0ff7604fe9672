"""What a task says of its windows: labels, ages, horizons, kept rows and limits."""

import json
from typing import Any

import pytest

from automl.task import Limits, TaskError, TaskSpec, Where, WindowFeature
from tests.automl.test_task import COLUMNS, MEAN, task, with_feature

TERMINAL: list[dict[str, Any]] = [
    {"name": "n", "entity": "shop", "agg": "count", "window": "30d", "delay": "7d"},
    {
        "name": "risk",
        "entity": "shop",
        "agg": "rate",
        "column": "label",
        "window": "1d",
        "delay": "7d",
    },
]
AGE: dict[str, Any] = {"name": "age", "entity": "card", "agg": "age", "window": "30d"}


def two_entities(*features: Any, **keys: Any) -> TaskSpec:
    entities = {"card": "card", "shop": "shop_id", "idle": "channel"}
    source = task(entities=entities, features=list(features), **keys)
    return TaskSpec.from_json(source).resolve({**COLUMNS, "label": "number"})


@pytest.mark.parametrize(
    "agg", ["count", "sum", "mean", "std", "min", "max", "last", "rate"]
)
def test_earlier_labels_are_aggregated_but_no_column_of_the_events(agg: str) -> None:
    keys = {"agg": agg, "column": "label", "where": "channel=='web'"}
    spec = TaskSpec.from_json(with_feature(**keys)).resolve(COLUMNS)
    (feature,) = spec.window_features("card")
    assert (feature.agg, feature.column) == (agg, "label")
    assert spec.needed_columns == {"card": "id", "channel": "string"}
    assert TaskSpec.from_json(spec.to_dict()) == spec


def test_auto_reads_labels_when_they_are_known_and_no_column_of_that_name() -> None:
    given = task(label={"delay": "7d"})
    spec = TaskSpec.from_json(given).resolve({**COLUMNS, "label": "number"})
    assert spec.resolve(COLUMNS) == spec
    assert "label" not in spec.needed_columns
    reads = [f for f in spec.window_features("card") if f.column == "label"]
    assert [f.agg for f in reads] == ["rate", "rate", "rate", "last"]
    assert {f.delay_ms for f in reads} == {7 * 86_400_000}


@pytest.mark.parametrize("agg", ["ratio", "zscore"])
def test_a_row_is_not_set_against_labels_its_own_is_not_known(agg: str) -> None:
    with pytest.raises(TaskError, match="its own label is not known"):
        TaskSpec.from_json(with_feature(agg=agg, column="label"))


def test_age_takes_a_window_and_a_comparison_but_no_column() -> None:
    spec = two_entities({**AGE, "where": "amount>5"})
    assert spec.window_features("card") == [
        WindowFeature(
            name="age",
            entity="card",
            agg="age",
            window_ms=2_592_000_000,
            where=Where(column="amount", op=">", value=5),
        )
    ]
    assert TaskSpec.from_json(spec.to_dict()) == spec


def test_the_horizon_is_the_longest_window_with_its_own_delay() -> None:
    spec = two_entities("hour", {**AGE, "window": "6d"}, *TERMINAL)
    assert spec.entity_horizon_ms("card") == 6 * 86_400_000
    assert spec.entity_horizon_ms("shop") == 37 * 86_400_000
    assert spec.entity_horizon_ms("idle") == 0
    assert spec.horizon_ms == 3_196_800_000
    assert two_entities("hour").horizon_ms == 0


def test_window_and_delay_may_each_be_thirty_days() -> None:
    spec = two_entities({**AGE, "window": "720h", "delay": "2592000s"})
    assert spec.horizon_ms == 60 * 86_400_000


def test_the_horizon_asks_for_resolve_first() -> None:
    with pytest.raises(TaskError, match=r"call resolve\(columns\) first"):
        _ = TaskSpec.from_json(task()).horizon_ms


def test_the_entities_that_read_labels_come_in_the_order_of_the_file() -> None:
    card = {**MEAN, "column": "label"}
    assert two_entities(*TERMINAL).label_entities == ["shop"]
    assert two_entities(*TERMINAL, card).label_entities == ["card", "shop"]
    assert two_entities(TERMINAL[0]).label_entities == []


def test_old_rows_serve_other_windows_names_and_aggregations() -> None:
    before = two_entities(MEAN, *TERMINAL)
    after = two_entities(
        AGE,
        {**MEAN, "name": "x", "agg": "max", "window": "1h", "delay": "1d"},
        {**MEAN, "name": "y", "agg": "std"},
        *TERMINAL,
    )
    prints = {e: before.state_fingerprint(e) for e in before.entities}
    assert {e: after.state_fingerprint(e) for e in after.entities} == prints
    assert len(set(prints.values())) == 3
    assert prints["card"] == "9c0bb1de148e"


@pytest.mark.parametrize(
    "changed",
    [
        [{**MEAN, "column": "shop_id"}],
        [{**MEAN, "column": "is_new"}],
        [{**MEAN, "column": "label"}],
        [{**MEAN, "where": "amount>5"}],
        [MEAN, {**MEAN, "name": "b", "where": "amount>5"}],
        [MEAN, {**MEAN, "name": "b", "column": "label"}],
        [{**AGE, "where": "amount>5"}],
        [AGE],
    ],
)
def test_old_rows_do_not_serve_what_they_do_not_hold(changed: list[Any]) -> None:
    entities = {"card": "card"}
    specs = [
        TaskSpec.from_json(task(entities=entities, features=f)).resolve(COLUMNS)
        for f in ([MEAN], changed)
    ]
    first, second = (spec.state_fingerprint("card") for spec in specs)
    assert first != second


def test_old_rows_do_not_serve_another_column_kind_or_comparison() -> None:
    spec = TaskSpec.from_json(with_feature())
    other = TaskSpec.from_json({**with_feature(), "entities": {"card": "channel"}})
    found = [
        spec.resolve(COLUMNS),
        spec.resolve({**COLUMNS, "amount": "bool"}),
        other.resolve(COLUMNS),
        TaskSpec.from_json(with_feature(where="amount>5")).resolve(COLUMNS),
        TaskSpec.from_json(with_feature(where="amount>6")).resolve(COLUMNS),
    ]
    assert len({s.state_fingerprint("card") for s in found}) == 5


def test_every_number_has_limits_and_the_file_narrows_them() -> None:
    limits = {"amount": {"min": 0.01, "max": 5000}}
    spec = two_entities(MEAN, "is_new", limits=limits)
    assert spec.limits == {"amount": Limits(min=0.01, max=5000.0)}
    assert spec.number_limits() == {"amount": (0.01, 5000.0)}
    assert two_entities(MEAN).number_limits() == {"amount": (-1e12, 1e12)}
    assert TaskSpec.from_json(json.loads(json.dumps(spec.to_dict()))) == spec
