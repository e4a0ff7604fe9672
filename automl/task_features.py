"""What one feature of a task file says: its kinds, its grammar, its refusals."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from automl.task_fields import (
    DAY_MS,
    TaskError,
    check_keys,
    format_duration,
    nearest,
    parse_duration,
    parse_text,
)

AGGREGATIONS = (
    "count",
    "sum",
    "mean",
    "std",
    "min",
    "max",
    "distinct",
    "last",
    "rate",
    "age",
    "ratio",
    "zscore",
)
NEEDS_COLUMN = frozenset(AGGREGATIONS) - {"count", "rate", "age"}
#: What sets the row's own value against those of its window.
OWN_VALUE = frozenset(("ratio", "zscore"))
CALENDAR_RANGES = {"hour": (0, 23), "weekday": (0, 6)}
LABEL_COLUMN = "label"
RESERVED_COLUMNS = ("event_id", "case_id", "event_time", "created_ms", LABEL_COLUMN)
LONGEST_WINDOW_MS = LONGEST_DELAY_MS = 30 * DAY_MS

_CALENDAR = re.compile(r"\s*(hour|weekday)\s*(?:(<=|>=|==|!=|<|>)\s*([0-9]{1,2}))?\s*")
_COMPARISON = re.compile(r"\s*([^<>=!]*[^<>=!\s])\s*(<=|>=|==|!=|<|>)\s*(\S.*?)\s*")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_FEATURE_KEYS = ("name", "entity", "agg", "column", "window", "delay", "where")


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """One comparison that a row must satisfy; a missing value never does."""

    column: str
    op: str
    value: float | str | bool

    def __str__(self) -> str:
        if isinstance(self.value, bool):
            literal = "true" if self.value else "false"
        elif isinstance(self.value, str):
            quote = '"' if "'" in self.value else "'"
            literal = f"{quote}{self.value}{quote}"
        else:
            literal = repr(self.value)
        return f"{self.column}{self.op}{literal}"


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowFeature:
    """An aggregate of one entity's rows, as they are known at the event time t of one.

    The rows are those with event time in (t - delay - window, t - delay]: without a
    delay the current one is among them. `std` is the population one (0 for a single
    row). `rate` without a column is rows per second of the window; with one, the share
    of its values that are not zero. `age` is the seconds since the newest of the rows
    but the current one, NaN when there is none. `ratio` is the row's own value over the
    mean, `zscore` its distance from the mean in `std`s; NaN where the row has no value
    or does not pass `where`. A mean below 1e-15 gives no ratio (NaN), a spread below it
    a `zscore` of 0.

    The column "label" is the label of a row's case, known from its label_time on. Rows
    without a label known at t are not aggregated: `count` counts labelled rows, `rate`
    is the share of them that are fraud, 0 when there are none.
    """

    name: str
    entity: str
    agg: str
    window_ms: int
    column: str | None = None
    delay_ms: int = 0
    where: Where | None = None

    def to_dict(self) -> dict[str, Any]:
        """Gives the feature as the task file writes it."""
        out: dict[str, Any] = {
            "name": self.name,
            "entity": self.entity,
            "agg": self.agg,
        }
        if self.column is not None:
            out["column"] = self.column
        out["window"] = format_duration(self.window_ms)
        if self.delay_ms:
            out["delay"] = format_duration(self.delay_ms)
        if self.where is not None:
            out["where"] = str(self.where)
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class CalendarFeature:
    """The UTC hour or weekday (Monday 0) of an event, or a comparison of it (0/1)."""

    name: str
    field: str
    op: str | None = None
    value: int | None = None

    @property
    def categories(self) -> int:
        """How many values it numbers from 0 on; 0 when it is a comparison."""
        return CALENDAR_RANGES[self.field][1] + 1 if self.op is None else 0

    def to_dict(self) -> str:
        """Gives the feature as the task file writes it."""
        return self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnFeature:
    """A number (or a bool as 0/1) of the event itself, as it came."""

    name: str

    def to_dict(self) -> str:
        """Gives the feature as the task file writes it."""
        return self.name


Feature = WindowFeature | CalendarFeature | ColumnFeature


def parse_where(field: str, value: Any) -> Where:
    """Gives the one comparison that text such as "amount>100" states."""
    match = _COMPARISON.fullmatch(value) if isinstance(value, str) else None
    literal = _parse_literal(match[3]) if match else None
    if match is None or literal is None:
        problem = (
            'expected one comparison such as "amount>100" or "channel==\'web\'", '
            f"got {value!r}; write column, one of < <= == != >= >, then a number, "
            "true, false or a quoted text"
        )
        raise TaskError(problem, field=field)
    if isinstance(literal, bool | str) and match[2] not in ("==", "!="):
        problem = f"{match[3]} is not a number, so '{match[2]}' fails; use == or !="
        raise TaskError(problem, field=field)
    return Where(column=match[1], op=match[2], value=literal)


def _parse_literal(text: str) -> float | str | bool | None:
    if text in ("true", "false"):
        return text == "true"
    if quoted := _QUOTED.fullmatch(text):
        return quoted[1] if quoted[1] is not None else quoted[2]
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    if not math.isfinite(number):
        return None
    return int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else number


def parse_feature(field: str, value: Any) -> Feature:
    """Gives one entry of the task file's `features` list."""
    if isinstance(value, str):
        return _parse_named(field, value)
    if not isinstance(value, Mapping):
        problem = (
            f"expected an object or a string, got {value!r}; write {{name, entity, "
            'agg, window, ...}, "hour<=6", or the name of a numeric column'
        )
        raise TaskError(problem, field=field)
    return _parse_window(field, value)


def _parse_named(field: str, text: str) -> Feature:
    name = parse_text(field, text, "name a column or a calendar feature")
    if calendar := _CALENDAR.fullmatch(text):
        value = int(calendar[3]) if calendar[3] else None
        low, high = CALENDAR_RANGES[calendar[1]]
        if value is not None and not low <= value <= high:
            problem = f"{calendar[1]} is {low} to {high}, got {value}; use one of those"
            raise TaskError(problem, field=field)
        return CalendarFeature(
            name=calendar[1] + ("" if value is None else f"{calendar[2]}{value}"),
            field=calendar[1],
            op=calendar[2],
            value=value,
        )
    if any(sign in name for sign in "<>=!"):
        problem = (
            f"expected a calendar comparison, got '{name}'; compare hour or weekday "
            'with a whole number, for instance "hour<=6" or "weekday>=5"'
        )
        raise TaskError(problem, field=field)
    if name == LABEL_COLUMN:
        problem = (
            "the label of an event's own case is the answer, not a feature; aggregate "
            "those of earlier rows: an object with entity, agg, window and "
            '"column": "label"'
        )
        raise TaskError(problem, field=field)
    return ColumnFeature(name=name)


def _parse_window(field: str, value: Mapping[str, Any]) -> WindowFeature:
    check_keys(field, value, _FEATURE_KEYS)
    for key in ("name", "entity", "agg", "window"):
        if key not in value:
            problem = f"missing; add '{key}' to this feature"
            raise TaskError(problem, field=f"{field}.{key}")
    agg = value["agg"]
    if agg not in AGGREGATIONS:
        problem = f"unknown aggregation {agg!r}; {nearest(str(agg), AGGREGATIONS)}"
        raise TaskError(problem, field=f"{field}.agg")
    column = value.get("column")
    if agg == "age" and column is not None:
        problem = f"'age' looks at the rows' times, got {column!r}; remove 'column'"
        raise TaskError(problem, field=f"{field}.column")
    if column is not None:
        parse_text(f"{field}.column", column, "name a column")
    elif agg in NEEDS_COLUMN:
        problem = f"missing; '{agg}' needs the column to aggregate: add 'column'"
        raise TaskError(problem, field=f"{field}.column")
    if agg == "distinct" and column == LABEL_COLUMN:
        problem = (
            "labels are 0 or 1, so 'distinct' says little; use count, sum, mean, std, "
            "min, max, last or rate"
        )
        raise TaskError(problem, field=f"{field}.agg")
    if agg in OWN_VALUE and column == LABEL_COLUMN:
        problem = (
            f"'{agg}' needs the event's own value, and its own label is not known; "
            "choose a numeric column"
        )
        raise TaskError(problem, field=f"{field}.agg")
    return WindowFeature(
        name=parse_text(f"{field}.name", value["name"], "name the feature"),
        entity=parse_text(f"{field}.entity", value["entity"], "name an entity"),
        agg=agg,
        window_ms=parse_duration(
            f"{field}.window", value["window"], most_ms=LONGEST_WINDOW_MS
        ),
        column=column,
        delay_ms=_delay_of(f"{field}.delay", value.get("delay")),
        where=_where_of(f"{field}.where", value.get("where")),
    )


def _delay_of(field: str, value: Any) -> int:
    if value is None:
        return 0
    return parse_duration(field, value, most_ms=LONGEST_DELAY_MS, zero=True)


def _where_of(field: str, value: Any) -> Where | None:
    where = None if value is None else parse_where(field, value)
    if where is not None and where.column == LABEL_COLUMN:
        problem = (
            "a row's label comes after the row, so rows cannot be chosen by it; "
            'compare another column, and give the feature "column": "label"'
        )
        raise TaskError(problem, field=field)
    return where
