"""The JSON of a task file to checked values, one parser for each of its keys."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from automl.task_checks import KINDS
from automl.task_features import Feature, parse_feature
from automl.task_fields import (
    DAY_MS,
    TaskError,
    check_keys,
    nearest,
    parse_duration,
    parse_text,
)

MEDIA = ("text", "image", "audio")
METRICS = ("average_precision", "auc")
LONGEST_LABEL_DELAY_MS = 3650 * DAY_MS
#: Largest magnitude of a number of an event.
MOST = 1e12


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
class Limits:
    """The smallest and the largest number that a column of an event may hold."""

    min: float = -MOST
    max: float = MOST


def read_task(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Gives the values of the keys that a task states, each checked by itself.

    Args:
        source: The path of a JSON file, or its parsed object.

    Raises:
        TaskError: It cannot be read, or a key is unknown, missing or wrong.
    """
    raw = source if isinstance(source, Mapping) else _read(Path(source))
    check_keys("", raw, _PARSERS)
    if "name" not in raw:
        problem = 'missing; add "name": the name of the model'
        raise TaskError(problem, field="name")
    return {key: _PARSERS[key](key, value) for key, value in raw.items()}


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
    except (ValueError, RecursionError) as error:
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
    if not is_number or not 0 < value <= sys.float_info.max:
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
    delay_ms = parse_duration(
        f"{where}.delay",
        value.get("delay", "0s"),
        most_ms=LONGEST_LABEL_DELAY_MS,
        zero=True,
    )
    return LabelSpec(delay_ms=delay_ms)


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


def _parse_limits(where: str, value: Any) -> dict[str, Limits]:
    return {
        parse_text(where, column, "name a numeric column"): _limits_of(
            f"{where}.{column}", given
        )
        for column, given in _object(where, value).items()
    }


def _limits_of(where: str, value: Any) -> Limits:
    check_keys(where, _object(where, value), ("min", "max"))
    limits = Limits(**{k: _limit(f"{where}.{k}", v) for k, v in value.items()})
    if limits.min > limits.max:
        problem = (
            f"expected min <= max, got min {limits.min!r} and max {limits.max!r}; "
            "swap or correct them"
        )
        raise TaskError(problem, field=where)
    return limits


def _limit(where: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -MOST <= value <= MOST:
        problem = f"expected a number from -1e12 to 1e12, got {value!r}; write one"
        raise TaskError(problem, field=where)
    return float(value)


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
    "limits": _parse_limits,
    "columns": _parse_columns,
}
