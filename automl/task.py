"""A task: what to predict, from which features, at what cost.

`TaskSpec.from_json` reads its file, `TaskSpec.resolve` checks it against the columns
that the archive has and spells `"auto"` out. Errors: `TaskError` (a `ValueError`).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from automl.task_checks import auto_features, check_feature, check_names, kind_of
from automl.task_features import (
    RESERVED_COLUMNS,
    CalendarFeature,
    ColumnFeature,
    Feature,
    TaskError,
    Where,
    WindowFeature,
    format_duration,
)
from automl.task_file import MEDIA, LabelSpec, SearchSpec, read_task

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
        spec = cls(**read_task(source))
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
