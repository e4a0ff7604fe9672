"""The task file: what to predict, from which features, at what cost.

`TaskSpec.from_json` reads it, `TaskSpec.resolve` checks it against the columns that
the archive has and spells `"auto"` out. Errors: `TaskError` (a `ValueError`).
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from automl.task_checks import (
    KINDS,
    auto_features,
    check_feature,
    check_names,
    kind_of,
)
from automl.task_features import (
    RESERVED_COLUMNS,
    CalendarFeature,
    ColumnFeature,
    Feature,
    TaskError,
    Where,
    WindowFeature,
    check_keys,
    format_duration,
    nearest,
    parse_duration,
    parse_feature,
    parse_text,
)

__all__ = [
    "CalendarFeature",
    "ColumnFeature",
    "Feature",
    "LabelSpec",
    "SearchSpec",
    "TaskError",
    "TaskSpec",
    "Where",
    "WindowFeature",
]

MEDIA = ("text", "image", "audio")
METRICS = ("average_precision", "auc")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSpec:
    """When the truth about a case is known: `delay_ms` after its event."""

    delay_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpec:
    """What a search for a better model may spend."""

    budget_s: float = 60.0
    max_trials: int = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """One task, as its JSON file states it.

    `columns` holds the kind ("number", "string", "bool" or, for an entity column,
    "id": string or integer) of every column that the features read; `resolve` fills
    it in, and it travels with the task from there on.
    """

    name: str
    entities: Mapping[str, str] = field(default_factory=dict)
    features: tuple[Feature, ...] | Literal["auto"] = "auto"
    modalities: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {modality: {} for modality in MEDIA}
    )
    label: LabelSpec = field(default_factory=LabelSpec)
    metric: str = "average_precision"
    search: SearchSpec = field(default_factory=SearchSpec)
    alerts_per_day: float = 100.0
    latency_budget_ms: float = 50.0
    columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, source: str | Path | Mapping[str, Any]) -> "TaskSpec":
        """Reads a task from the path of a JSON file, or from its parsed object."""
        raw = source if isinstance(source, Mapping) else _read(Path(source))
        check_keys("", raw, [f.name for f in dataclasses.fields(cls)])
        if "name" not in raw:
            problem = 'missing; add "name": the name of the model'
            raise TaskError(problem, field="name")
        given = {key: _PARSERS[key](key, value) for key, value in raw.items()}
        spec = cls(**given)
        if spec.features != "auto":
            check_names(spec.features)
        return spec.resolve(spec.columns) if spec.columns else spec

    def to_dict(self) -> dict[str, Any]:
        """Gives the JSON object that `from_json` reads back to an equal task."""
        out: dict[str, Any] = {
            "name": self.name,
            "entities": dict(self.entities),
            "features": "auto"
            if self.features == "auto"
            else [feature.to_dict() for feature in self.features],
            "modalities": {name: dict(opts) for name, opts in self.modalities.items()},
            "label": {"delay": format_duration(self.label.delay_ms)},
            "metric": self.metric,
            "search": dataclasses.asdict(self.search),
            "alerts_per_day": self.alerts_per_day,
            "latency_budget_ms": self.latency_budget_ms,
        }
        if self.columns:
            out["columns"] = dict(self.columns)
        return out

    @property
    def feature_names(self) -> list[str]:
        """The features' names, in the order of the file; needs explicit features."""
        return [feature.name for feature in self._explicit()]

    @property
    def needed_columns(self) -> dict[str, str]:
        """The columns that an event must have, each with its kind; needs `resolve`."""
        self._explicit()
        if not self.columns and self.features:
            reads_rows = any(
                not isinstance(feature, CalendarFeature) for feature in self.features
            )
            if reads_rows:
                problem = "kinds are not known yet; call resolve(columns) first"
                raise TaskError(problem, field="columns")
        return dict(self.columns)

    def window_features(self, entity: str) -> list[WindowFeature]:
        """The window features of one entity, in the order of the file."""
        return [
            feature
            for feature in self._explicit()
            if isinstance(feature, WindowFeature) and feature.entity == entity
        ]

    def row_features(self) -> list[CalendarFeature | ColumnFeature]:
        """The features that need no other row, in the order of the file."""
        return [
            feature
            for feature in self._explicit()
            if not isinstance(feature, WindowFeature)
        ]

    def resolve(self, columns: Mapping[str, str]) -> "TaskSpec":
        """Gives this task with explicit features, checked against an archive.

        Args:
            columns: Kind of every column of the tabular events: "number", "string"
                or "bool".

        Raises:
            TaskError: A feature or entity names what is not there or is of the wrong
                kind, or asks for labels, which this version cannot aggregate yet.
        """
        kinds = {name: k for name, k in columns.items() if name not in RESERVED_COLUMNS}
        for entity, column in self.entities.items():
            where = f"entities.{entity}"
            if kind_of(where, column, kinds) == "bool":
                problem = (
                    f"column '{column}' is of kind bool, expected string or integer; "
                    "name the column that holds the entity's id"
                )
                raise TaskError(problem, field=where)
            kinds[column] = "id"
        features = (
            auto_features(self.entities, kinds)
            if self.features == "auto"
            else self.features
        )
        check_names(features)
        needed = {c: "id" for c in self.entities.values()}
        for index, feature in enumerate(features):
            for column in check_feature(
                f"features[{index}]", feature, self.entities, kinds
            ):
                needed[column] = kinds[column]
        return dataclasses.replace(self, features=features, columns=needed)

    def _explicit(self) -> tuple[Feature, ...]:
        if self.features == "auto":
            problem = '"auto" is not spelled out yet; call resolve(columns) first'
            raise TaskError(problem, field="features")
        return self.features


def _read(path: Path) -> Mapping[str, Any]:
    try:
        raw = json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
        )
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise TaskError(problem, field=str(path)) from error
    except ValueError as error:
        if isinstance(error, TaskError):
            raise
        problem = f"is not JSON: {error}; correct it"
        raise TaskError(problem, field=str(path)) from error
    if not isinstance(raw, dict):
        problem = "expected one JSON object; put it in { }"
        raise TaskError(problem, field=str(path))
    return raw


def _no_constant(text: str) -> None:
    problem = f"'{text}' is not JSON; write a finite number"
    raise TaskError(problem, field="number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            problem = "the key stands twice in one object; keep one"
            raise TaskError(problem, field=key)
        out[key] = value
    return out


def _object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        problem = f"expected an object, got {value!r}; put it in {{ }}"
        raise TaskError(problem, field=where)
    return value


def _positive(where: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        problem = f"expected a number above 0, got {value!r}; write for instance 50"
        raise TaskError(problem, field=where)
    return float(value)


def _parse_name(where: str, value: Any) -> str:
    name = parse_text(where, value, "name the model")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        problem = f"got {name!r}; it names a folder: use letters, digits, '_', '-', '.'"
        raise TaskError(problem, field=where)
    return name


def _parse_entities(where: str, value: Any) -> dict[str, str]:
    return {
        parse_text(where, entity, "name the entity"): parse_text(
            f"{where}.{entity}", column, "name the column that holds its id"
        )
        for entity, column in _object(where, value).items()
    }


def _parse_features(where: str, value: Any) -> tuple[Feature, ...] | Literal["auto"]:
    if value == "auto":
        return "auto"
    if not isinstance(value, list | tuple) or not value:
        problem = f'expected "auto" or a list of features, got {value!r}; use "auto"'
        raise TaskError(problem, field=where)
    return tuple(parse_feature(f"{where}[{i}]", item) for i, item in enumerate(value))


def _parse_modalities(where: str, value: Any) -> dict[str, dict[str, Any]]:
    check_keys(where, _object(where, value), MEDIA)
    return {
        modality: dict(_object(f"{where}.{modality}", value[modality]))
        for modality in MEDIA
        if modality in value
    }


def _parse_label(where: str, value: Any) -> LabelSpec:
    check_keys(where, _object(where, value), ("delay",))
    delay = value.get("delay", "0s")
    return LabelSpec(delay_ms=parse_duration(f"{where}.delay", delay, zero=True))


def _parse_metric(where: str, value: Any) -> str:
    if value not in METRICS:
        problem = f"unknown metric {value!r}; {nearest(str(value), METRICS)}"
        raise TaskError(problem, field=where)
    return str(value)


def _parse_search(where: str, value: Any) -> SearchSpec:
    check_keys(where, _object(where, value), ("budget_s", "max_trials"))
    default = SearchSpec()
    trials = value.get("max_trials", default.max_trials)
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 1:
        problem = f"expected a whole number of at least 1, got {trials!r}; write 20"
        raise TaskError(problem, field=f"{where}.max_trials")
    budget_s = _positive(f"{where}.budget_s", value.get("budget_s", default.budget_s))
    return SearchSpec(budget_s=budget_s, max_trials=trials)


def _parse_columns(where: str, value: Any) -> dict[str, str]:
    columns = dict(_object(where, value))
    for column, kind in columns.items():
        if kind not in KINDS:
            problem = f"unknown kind {kind!r}; {nearest(str(kind), KINDS)}"
            raise TaskError(problem, field=f"{where}.{column}")
    return columns


_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "name": _parse_name,
    "entities": _parse_entities,
    "features": _parse_features,
    "modalities": _parse_modalities,
    "label": _parse_label,
    "metric": _parse_metric,
    "search": _parse_search,
    "alerts_per_day": _positive,
    "latency_budget_ms": _positive,
    "columns": _parse_columns,
}
