"""A task: what to predict, from which features, at what cost.

`TaskSpec.from_json` reads its file, `TaskSpec.resolve` checks it against the columns
that the archive has and spells `"auto"` out. Errors: `TaskError` (a `ValueError`).
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from automl.task_checks import (
    auto_features,
    check_feature,
    check_limits,
    check_names,
    kind_of,
)
from automl.task_features import (
    LABEL_COLUMN,
    RESERVED_COLUMNS,
    CalendarFeature,
    ColumnFeature,
    Feature,
    Where,
    WindowFeature,
)
from automl.task_fields import TaskError, format_duration
from automl.task_file import MEDIA, LabelSpec, Limits, SearchSpec, read_task

__all__ = [
    "CalendarFeature",
    "ColumnFeature",
    "Feature",
    "LabelSpec",
    "Limits",
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
    it in, and it travels with the task from there on. `limits` narrows what the
    numbers of some columns may be.
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
    limits: Mapping[str, Limits] = field(default_factory=dict)
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
        if self.limits:
            out["limits"] = {c: dataclasses.asdict(x) for c, x in self.limits.items()}
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

    def entity_horizon_ms(self, entity: str) -> int:
        """How far back the windows of one entity reach, delays included; 0 for none."""
        features = self.window_features(entity)
        return max((f.window_ms + f.delay_ms for f in features), default=0)

    @property
    def horizon_ms(self) -> int:
        """How far back the windows of all entities reach, delays included."""
        features = [f for f in self._explicit() if isinstance(f, WindowFeature)]
        return max((f.window_ms + f.delay_ms for f in features), default=0)

    @property
    def label_entities(self) -> list[str]:
        """The entities with a feature on the label, in the order of the file."""
        return [
            entity
            for entity in self.entities
            if any(f.column == LABEL_COLUMN for f in self.window_features(entity))
        ]

    def state_fingerprint(self, entity: str) -> str:
        """Names what the kept rows of an entity hold: 12 hex digits; needs `resolve`.

        It changes with the entity's column and with what its features read: columns,
        their kinds, comparisons, labels, and the order in which features first name
        them. It does not with names, aggregations, windows and delays, which are
        applied to the rows that are kept.
        """
        kinds = self.needed_columns
        reads: dict[str, None] = {}
        for feature in self.window_features(entity):
            where, column = feature.where, feature.column
            if column is None and where is None:
                continue
            read = [
                [column, kinds.get(column)] if column is not None else None,
                [str(where), kinds[where.column]] if where is not None else None,
            ]
            reads[json.dumps(read)] = None
        what = json.dumps([self.entities[entity], list(reads)])
        return blake2b(what.encode(), digest_size=6).hexdigest()

    def number_limits(self) -> dict[str, tuple[float, float]]:
        """The least and the greatest value of every number read; needs `resolve`."""
        wide = Limits()
        found = {
            column: self.limits.get(column, wide)
            for column, kind in self.needed_columns.items()
            if kind == "number"
        }
        return {column: (limits.min, limits.max) for column, limits in found.items()}

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
            TaskError: A feature, entity or limit names what is not there or is of the
                wrong kind.
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
            auto_features(self.entities, kinds, self.label.delay_ms)
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
        check_limits(self.limits, kinds, needed)
        return dataclasses.replace(self, features=features, columns=needed)

    def _explicit(self) -> tuple[Feature, ...]:
        if self.features == "auto":
            problem = '"auto" is not spelled out yet; call resolve(columns) first'
            raise TaskError(problem, field="features")
        return self.features
