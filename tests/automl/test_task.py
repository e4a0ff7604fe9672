"""The task file: what it accepts, what it refuses and how it says so."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from automl.task import (
    CalendarFeature,
    ColumnFeature,
    LabelSpec,
    SearchSpec,
    TaskError,
    TaskSpec,
    Where,
    WindowFeature,
)
from automl.task_fields import DAY_MS, format_duration, parse_duration

COLUMNS = {
    "event_id": "string",
    "case_id": "string",
    "card": "string",
    "shop_id": "number",
    "amount": "number",
    "channel": "string",
    "is_new": "bool",
}
MEAN: dict[str, Any] = {
    "name": "mean_7d",
    "entity": "card",
    "agg": "mean",
    "column": "amount",
    "window": "7d",
}


def task(**keys: Any) -> dict[str, Any]:
    return {"name": "cards", "entities": {"card": "card"}, **keys}


def with_feature(**keys: Any) -> dict[str, Any]:
    feature = {k: v for k, v in {**MEAN, **keys}.items() if v is not ...}
    return task(features=[feature])


def test_a_name_is_enough_and_the_rest_has_defaults() -> None:
    spec = TaskSpec.from_json({"name": "cards"})
    assert spec.features == "auto"
    assert spec.entities == {}
    assert spec.modalities == {"text": {}, "image": {}, "audio": {}}
    assert spec.label == LabelSpec(delay_ms=0)
    assert spec.metric == "average_precision"
    assert spec.search == SearchSpec(budget_s=60.0, max_trials=20)
    assert (spec.alerts_per_day, spec.latency_budget_ms) == (100.0, 50.0)


def test_every_key_of_the_file_lands_in_its_field() -> None:
    features = [
        {**MEAN, "where": "amount>100"},
        {"name": "n", "entity": "card", "agg": "count", "window": "12h"},
        "hour <= 6",
        "weekday",
        "amount",
    ]
    spec = TaskSpec.from_json(
        task(
            features=features,
            modalities={"text": {"max_chars": 200}},
            label={"delay": "7d"},
            metric="auc",
            search={"budget_s": 5, "max_trials": 2},
            alerts_per_day=12,
            latency_budget_ms=20,
        )
    )
    assert spec.features == (
        WindowFeature(
            name="mean_7d",
            entity="card",
            agg="mean",
            column="amount",
            window_ms=604_800_000,
            where=Where(column="amount", op=">", value=100),
        ),
        WindowFeature(name="n", entity="card", agg="count", window_ms=43_200_000),
        CalendarFeature(name="hour<=6", field="hour", op="<=", value=6),
        CalendarFeature(name="weekday", field="weekday"),
        ColumnFeature(name="amount"),
    )
    assert spec.feature_names == ["mean_7d", "n", "hour<=6", "weekday", "amount"]
    assert spec.modalities == {"text": {"max_chars": 200}}
    assert spec.label.delay_ms == 604_800_000
    assert (spec.metric, spec.search.max_trials) == ("auc", 2)
    assert (spec.alerts_per_day, spec.latency_budget_ms) == (12.0, 20.0)


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [("7d", 604_800_000), ("12h", 43_200_000), ("5m", 300_000), ("30s", 30_000)],
)
def test_durations_read_and_write(text: str, duration_ms: int) -> None:
    assert parse_duration("window", text, most_ms=7 * DAY_MS) == duration_ms
    assert format_duration(duration_ms) == text


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("amount>100", Where(column="amount", op=">", value=100)),
        (" amount <= -1.5e2 ", Where(column="amount", op="<=", value=-150.0)),
        ("channel=='web'", Where(column="channel", op="==", value="web")),
        ('channel != "it\'s"', Where(column="channel", op="!=", value="it's")),
        ("is_new==true", Where(column="is_new", op="==", value=True)),
        ("unit price<5", Where(column="unit price", op="<", value=5)),
    ],
)
def test_where_reads_one_comparison_and_writes_it_back(text: str, where: Where) -> None:
    spec = TaskSpec.from_json(with_feature(where=text))
    assert isinstance(spec.features[0], WindowFeature)
    assert spec.features[0].where == where
    assert TaskSpec.from_json(spec.to_dict()) == spec


def test_a_task_survives_json_and_pickle(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    source = with_feature(where="channel=='web'", delay="2h")
    path.write_text(json.dumps(source), encoding="utf-8")
    spec = TaskSpec.from_json(path)
    assert TaskSpec.from_json(str(path)) == spec
    assert TaskSpec.from_json(json.loads(json.dumps(spec.to_dict()))) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.to_dict()["features"] == source["features"]


def test_a_resolved_task_survives_json_with_its_columns() -> None:
    spec = TaskSpec.from_json(task()).resolve(COLUMNS)
    again = TaskSpec.from_json(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.needed_columns == spec.needed_columns


def test_auto_spells_out_raw_calendar_and_window_features() -> None:
    spec = TaskSpec.from_json(task(entities={"card": "card", "shop": "shop_id"}))
    names = spec.resolve(COLUMNS).feature_names
    windows = ["1h", "1d", "7d", "30d"]
    stems = [("count", windows), ("age", windows[3:])]
    stems += [(stem, windows) for stem in ("amount_mean", "amount_max")]
    stems += [(f"amount_{agg}", windows[1:]) for agg in ("ratio", "zscore")]
    stems += [("label_rate", windows[1:]), ("label_last", windows[3:])]
    assert names == [
        "amount",
        "is_new",
        "hour<=6",
        "weekday>=5",
        *(f"card_{stem}_{window}" for stem, some in stems for window in some),
        *(f"shop_{stem}_{window}" for stem, some in stems for window in some),
    ]


def test_auto_leaves_ids_and_labels_out_and_takes_three_columns_for_windows() -> None:
    columns = {"TX_ID": "number", "label": "number", "id": "number", "paid": "number"}
    columns |= {name: "number" for name in "abc"} | {"card": "string"}
    names = TaskSpec.from_json(task()).resolve(columns).feature_names
    assert names[:4] == ["paid", "a", "b", "c"]
    assert "card_b_max_1h" in names
    assert "card_c_max_1h" not in names


def test_needed_columns_are_those_the_features_read() -> None:
    feature = {**MEAN, "where": "channel=='web'"}
    spec = TaskSpec.from_json(task(features=[feature, "is_new", "hour"]))
    assert spec.resolve(COLUMNS).needed_columns == {
        "card": "id",
        "amount": "number",
        "channel": "string",
        "is_new": "bool",
    }


def test_names_and_columns_ask_for_resolve_first() -> None:
    with pytest.raises(TaskError, match=r"call resolve\(columns\) first"):
        _ = TaskSpec.from_json(task()).feature_names
    with pytest.raises(TaskError, match=r"call resolve\(columns\) first"):
        _ = TaskSpec.from_json(with_feature()).needed_columns


@pytest.mark.parametrize(
    ("source", "field", "says"),
    [
        ({}, "name", 'add "name"'),
        ({"name": "a/b"}, "name", "names a folder"),
        ({"name": 5}, "name", "expected a non-empty string, got 5"),
        (task(metrics="auc"), "metrics", "did you mean 'metric'?"),
        (task(metric="aucc"), "metric", "did you mean 'auc'?"),
        (task(entities=["card"]), "entities", "expected an object"),
        (task(entities={"card": 3}), "entities.card", "expected a non-empty string"),
        (task(features="all"), "features", 'use "auto"'),
        (task(features=[]), "features", 'use "auto"'),
        (task(features=[3]), "features[0]", "expected an object or a string"),
        (task(features=["hour<=24"]), "features[0]", "hour is 0 to 23"),
        (task(features=["amount>5"]), "features[0]", "compare hour or weekday"),
        (task(features=["hour", "hour"]), "features[1].name", "used twice"),
        (task(features=["event_id"]), "features[0].name", "rename it"),
        (with_feature(name="label"), "features[0].name", "rename it"),
        (task(features=["label"]), "features[0]", "is the answer, not a feature"),
        (with_feature(agg="age"), "features[0].column", "remove 'column'"),
        (
            with_feature(agg="distinct", column="label"),
            "features[0].agg",
            "use count, sum",
        ),
        (with_feature(where="label==1"), "features[0].where", "compare another column"),
        (
            with_feature(column="label", where="label==1"),
            "features[0].where",
            "compare another column",
        ),
        (with_feature(windows="7d"), "features[0].windows", "mean 'window'?"),
        (with_feature(window="7 days"), "features[0].window", "'7 days'"),
        (with_feature(window="0d"), "features[0].window", "1s to 30d, got '0d'"),
        (with_feature(window="31d"), "features[0].window", "1s to 30d, got '31d'"),
        (with_feature(window="2592001s"), "features[0].window", "choose a duration"),
        (with_feature(delay="721h"), "features[0].delay", "0s to 30d, got '721h'"),
        (with_feature(delay=7), "features[0].delay", "expected a duration such as"),
        (
            task(features=["hour", {**MEAN, "window": "0s"}]),
            "features[1].window",
            "1s to 30d",
        ),
        (with_feature(window=7), "features[0].window", "got 7"),
        (with_feature(window=...), "features[0].window", "add 'window'"),
        (with_feature(agg="avg"), "features[0].agg", "'avg'"),
        (with_feature(agg="means"), "features[0].agg", "did you mean 'mean'?"),
        (with_feature(agg=["mean"]), "features[0].agg", "unknown aggregation"),
        (with_feature(column=...), "features[0].column", "add 'column'"),
        (with_feature(delay="-1d"), "features[0].delay", "whole number"),
        (with_feature(where="amount"), "features[0].where", "one comparison"),
        (with_feature(where="amount=1"), "features[0].where", "one comparison"),
        (with_feature(where="amount>1e400"), "features[0].where", "one comparison"),
        (with_feature(where="amount>" + "9" * 5000), "features[0].where", "comparison"),
        (with_feature(where="channel==web"), "features[0].where", "quoted text"),
        (with_feature(where="channel<'web'"), "features[0].where", "use == or !="),
        (task(modalities={"video": {}}), "modalities.video", "known: text, image"),
        (task(modalities={"text": 1}), "modalities.text", "expected an object"),
        (task(label={"dely": "7d"}), "label.dely", "did you mean 'delay'?"),
        (task(label={"delay": "soon"}), "label.delay", "'soon'"),
        (task(label={"delay": "3651d"}), "label.delay", "0s to 3650d"),
        (task(search={"budget_s": 0}), "search.budget_s", "above 0"),
        (task(search={"max_trials": 1.5}), "search.max_trials", "whole number"),
        (task(alerts_per_day=True), "alerts_per_day", "got True"),
        (task(latency_budget_ms=float("nan")), "latency_budget_ms", "above 0"),
        (task(alerts_per_day=10**400), "alerts_per_day", "above 0"),
        (task(columns={"card": "text"}), "columns.card", "unknown kind 'text'"),
    ],
)
def test_a_wrong_file_is_refused_naming_the_field_and_the_fix(
    source: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(TaskError) as refused:
        TaskSpec.from_json(source)
    assert refused.value.field == field
    assert field in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("source", "field", "says"),
    [
        (task(entities={"card": "crad"}), "entities.card", "did you mean 'card'?"),
        (task(entities={"card": "is_new"}), "entities.card", "string or integer"),
        (with_feature(entity="cart"), "features[0].entity", "did you mean 'card'?"),
        (with_feature(column="amout"), "features[0].column", "did you mean 'amount'?"),
        (with_feature(column="channel"), "features[0].column", "is of kind string"),
        (with_feature(column="card"), "features[0].column", "is of kind id"),
        (with_feature(where="zone>1"), "features[0].where", "unknown column 'zone'"),
        (with_feature(where="channel>1"), "features[0].where", "is of kind string"),
        (with_feature(where="amount=='a'"), "features[0].where", "is of kind number"),
        (with_feature(where="is_new==1"), "features[0].where", "is of kind bool"),
        (task(features=["amnt"]), "features[0]", "did you mean 'amount'?"),
        (task(features=["channel"]), "features[0]", "is of kind string"),
        (task(features=["card"]), "features[0]", "is of kind id"),
        (task(entities={"card": "label"}), "entities.card", "'label' is reserved"),
        (
            with_feature(entity="cart", column="label"),
            "features[0].entity",
            "did you mean 'card'?",
        ),
        (
            task(features=["amount"], limits={"amuont": {}}),
            "limits.amuont",
            "did you mean 'amount'?",
        ),
        (
            task(features=["amount"], limits={"channel": {}}),
            "limits.channel",
            "a limit needs number",
        ),
        (
            task(features=["amount"], limits={"shop_id": {}}),
            "limits.shop_id",
            "no feature reads column 'shop_id'",
        ),
        (
            task(features=["amount"], limits={"label": {}}),
            "limits.label",
            "unknown column 'label'",
        ),
    ],
)
def test_a_file_that_does_not_fit_the_columns_is_refused(
    source: dict[str, Any], field: str, says: str
) -> None:
    spec = TaskSpec.from_json(source)
    with pytest.raises(TaskError) as refused:
        spec.resolve(COLUMNS)
    assert refused.value.field == field
    assert says in str(refused.value)


def test_a_calendar_feature_that_is_also_a_column_is_refused() -> None:
    spec = TaskSpec.from_json(task(features=["hour"]))
    with pytest.raises(TaskError, match="both a column and a calendar feature"):
        spec.resolve({**COLUMNS, "hour": "number"})
