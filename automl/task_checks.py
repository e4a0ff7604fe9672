"""A task's features against the columns there are: refusals, and "auto" spelled out."""

import re
from collections.abc import Iterable, Mapping, Sequence

from automl.task_features import (
    LABEL_COLUMN,
    RESERVED_COLUMNS,
    CalendarFeature,
    ColumnFeature,
    Feature,
    WindowFeature,
    parse_feature,
)
from automl.task_fields import TaskError, format_duration, nearest

KINDS = ("number", "string", "bool", "id")
AUTO_WINDOWS_MS = (3_600_000, 86_400_000, 7 * 86_400_000, 30 * 86_400_000)
#: Windows of what needs some rows to say anything: spread, and share of fraud.
AUTO_LONG_WINDOWS_MS = AUTO_WINDOWS_MS[1:]
AUTO_COLUMNS_PER_ENTITY = 3
_LOOKS_LIKE_ID = re.compile(r"(?:.*_)?id|.*[a-z]Id|(?:.*_)?ID")


def check_names(features: Sequence[Feature]) -> None:
    """Refuses two features of one name, and the name of an event's own column."""
    seen: set[str] = set()
    for index, feature in enumerate(features):
        where = f"features[{index}].name"
        if feature.name in seen:
            problem = f"'{feature.name}' is used twice; give each feature its own name"
            raise TaskError(problem, field=where)
        if feature.name in RESERVED_COLUMNS:
            problem = (
                f"'{feature.name}' names what every event or its label has; rename it"
            )
            raise TaskError(problem, field=where)
        seen.add(feature.name)


def check_feature(
    where: str,
    feature: Feature,
    entities: Mapping[str, str],
    kinds: Mapping[str, str],
) -> list[str]:
    """Refuses a feature that the columns cannot serve; gives the columns it reads."""
    if isinstance(feature, CalendarFeature):
        if feature.name in kinds:
            problem = (
                f"'{feature.name}' is both a column and a calendar feature; rename "
                f'the column, or compare: "{feature.name}>=0"'
            )
            raise TaskError(problem, field=where)
        return []
    if isinstance(feature, ColumnFeature):
        _checkkind_of(where, feature.name, kinds, ("number", "bool"), "a raw feature")
        return [feature.name]
    if feature.entity not in entities:
        problem = f"unknown entity '{feature.entity}'; " + nearest(
            feature.entity, entities
        )
        raise TaskError(problem, field=f"{where}.entity")
    reads = [entities[feature.entity]]
    column = feature.column
    if column is not None and column != LABEL_COLUMN:
        any_kind = feature.agg in ("count", "distinct")
        allowed = KINDS if any_kind else ("number", "bool")
        _checkkind_of(f"{where}.column", column, kinds, allowed, f"'{feature.agg}'")
        reads.append(column)
    if feature.where is not None:
        reads.append(feature.where.column)
        _check_where(f"{where}.where", feature, kinds)
    return reads


def _check_where(where: str, feature: WindowFeature, kinds: Mapping[str, str]) -> None:
    comparison = feature.where
    if comparison is None:
        return
    value = comparison.value
    allowed: tuple[str, ...] = ("number",)
    if isinstance(value, bool):
        allowed = ("bool",)
    elif isinstance(value, str):
        allowed = ("string", "id")
    elif isinstance(value, int) and comparison.op in ("==", "!="):
        allowed = ("number", "id")
    _checkkind_of(where, comparison.column, kinds, allowed, f"'{comparison}'")


def _checkkind_of(
    where: str, column: str, kinds: Mapping[str, str], allowed: Sequence[str], use: str
) -> None:
    kind = kind_of(where, column, kinds)
    if kind not in allowed:
        problem = (
            f"column '{column}' is of kind {kind}, but {use} needs "
            f"{' or '.join(allowed)}; choose another column or change the feature"
        )
        raise TaskError(problem, field=where)


def kind_of(where: str, column: str, kinds: Mapping[str, str]) -> str:
    """Gives the kind of a column or refuses the field that names it."""
    if column == LABEL_COLUMN:
        problem = (
            "'label' is reserved for the label of a case and no column of its events; "
            f"name another column: {', '.join(kinds) or 'none'}"
        )
        raise TaskError(problem, field=where)
    if column not in kinds:
        problem = f"unknown column '{column}'; {nearest(column, kinds)}"
        raise TaskError(problem, field=where)
    return kinds[column]


def check_limits(
    limited: Iterable[str], kinds: Mapping[str, str], needed: Mapping[str, str]
) -> None:
    """Refuses limits of a column that is no number, or that no feature reads."""
    numbers = [column for column, kind in needed.items() if kind == "number"]
    for column in limited:
        where = f"limits.{column}"
        if column not in kinds:
            problem = f"unknown column '{column}'; {nearest(column, numbers)}"
            raise TaskError(problem, field=where)
        _checkkind_of(where, column, kinds, ("number",), "a limit")
        if column not in needed:
            problem = (
                f"no feature reads column '{column}'; remove its limits, or choose "
                f"one that is read: {', '.join(numbers) or 'none'}"
            )
            raise TaskError(problem, field=where)


def auto_features(
    entities: Mapping[str, str], kinds: Mapping[str, str], label_delay_ms: int
) -> tuple[Feature, ...]:
    """Spells "auto" out: raw values, night and weekend, windows for each entity.

    Labels count once they are `label_delay_ms` old, which is when they are known.
    """
    raw = [
        column
        for column, kind in kinds.items()
        if kind in ("number", "bool")
        and column != LABEL_COLUMN
        and not _LOOKS_LIKE_ID.fullmatch(column)
    ]
    features: list[Feature] = [parse_feature(f"columns.{name}", name) for name in raw]
    features += [parse_feature("features", name) for name in ("hour<=6", "weekday>=5")]
    numbers = [c for c in raw if kinds[c] == "number"][:AUTO_COLUMNS_PER_ENTITY]
    longest = AUTO_WINDOWS_MS[-1:]
    plan: list[tuple[str, str | None, Sequence[int]]] = [
        ("count", None, AUTO_WINDOWS_MS),
        ("age", None, longest),
    ]
    for name in numbers:
        plan += [(agg, name, AUTO_WINDOWS_MS) for agg in ("mean", "max")]
        plan += [(agg, name, AUTO_LONG_WINDOWS_MS) for agg in ("ratio", "zscore")]
    plan.append(("rate", LABEL_COLUMN, AUTO_LONG_WINDOWS_MS))
    plan.append(("last", LABEL_COLUMN, longest))
    for entity in entities:
        for agg, column, windows in plan:
            stem = f"{entity}_{agg}" if column is None else f"{entity}_{column}_{agg}"
            features += [
                WindowFeature(
                    name=f"{stem}_{format_duration(window_ms)}",
                    entity=entity,
                    agg=agg,
                    column=column,
                    window_ms=window_ms,
                    delay_ms=label_delay_ms if column == LABEL_COLUMN else 0,
                )
                for window_ms in windows
            ]
    return tuple(features)
