"""What one feature of a task file says: its kinds, its grammar, its refusals.

`TaskError` is the one error of a task file; its message names the field, what was
expected there, and what to write instead.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

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
)
NEEDS_COLUMN = frozenset(AGGREGATIONS) - {"count", "rate"}
CALENDAR_RANGES = {"hour": (0, 23), "weekday": (0, 6)}
LABEL_COLUMN = "label"
RESERVED_COLUMNS = ("event_id", "case_id", "event_time", "created_ms")

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
_LONGEST_MS = 3650 * _UNITS_MS["d"]
_DURATION = re.compile(r"([0-9]{1,12})([dhms])")
_CALENDAR = re.compile(r"\s*(hour|weekday)\s*(?:(<=|>=|==|!=|<|>)\s*([0-9]{1,2}))?\s*")
_COMPARISON = re.compile(r"\s*([^<>=!]*[^<>=!\s])\s*(<=|>=|==|!=|<|>)\s*(\S.*?)\s*")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_FEATURE_KEYS = ("name", "entity", "agg", "column", "window", "delay", "where")


class TaskError(ValueError):
    """A task file that cannot be used; `field` is where, the message how to fix it."""

    def __init__(self, problem: str, *, field: str) -> None:
        self.field = field
        super().__init__(f"task file, {field}: {problem}")


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
    """An aggregate of one entity's rows with event time in (t - window, t].

    `std` is the population one (0 for a single row). `rate` without a column is rows
    per second of the window; with one, the share of its values that are not zero.
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


def nearest(word: str, known: Collection[str]) -> str:
    """Gives a hint that names the known word nearest to a wrong one."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    listed = ", ".join(known) if known else "none"
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {listed}"


def check_keys(field: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuses a key that is not known, naming the nearest one."""
    for key in given:
        if key not in known:
            where = f"{field}.{key}" if field else str(key)
            problem = f"unknown key '{key}'; {nearest(str(key), known)}"
            raise TaskError(problem, field=where)


def parse_text(field: str, value: Any, fix: str) -> str:
    """Gives a non-empty string or refuses the field."""
    if not isinstance(value, str) or not value.strip():
        problem = f"expected a non-empty string, got {value!r}; {fix}"
        raise TaskError(problem, field=field)
    return value


def parse_duration(field: str, value: Any, *, zero: bool = False) -> int:
    """Gives the milliseconds of a duration such as "7d", "12h", "5m" or "30s"."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        problem = (
            f'expected a duration such as "7d", "12h", "5m" or "30s", got {value!r}; '
            "write a whole number and one of d, h, m, s"
        )
        raise TaskError(problem, field=field)
    duration_ms = int(match[1]) * _UNITS_MS[match[2]]
    if duration_ms > _LONGEST_MS or (duration_ms == 0 and not zero):
        least = "0s" if zero else "1s"
        problem = f"expected {least} to 3650d, got '{value}'; choose one in that range"
        raise TaskError(problem, field=field)
    return duration_ms


def format_duration(duration_ms: int) -> str:
    """Gives the shortest text that `parse_duration` reads back to the same value."""
    for unit, unit_ms in _UNITS_MS.items():
        if duration_ms and duration_ms % unit_ms == 0:
            return f"{duration_ms // unit_ms}{unit}"
    return "0s"


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
    if column is not None:
        parse_text(f"{field}.column", column, "name a column")
    elif agg in NEEDS_COLUMN:
        problem = f"missing; '{agg}' needs the column to aggregate: add 'column'"
        raise TaskError(problem, field=f"{field}.column")
    delay, where = value.get("delay"), value.get("where")
    return WindowFeature(
        name=parse_text(f"{field}.name", value["name"], "name the feature"),
        entity=parse_text(f"{field}.entity", value["entity"], "name an entity"),
        agg=agg,
        window_ms=parse_duration(f"{field}.window", value["window"]),
        column=column,
        delay_ms=0
        if delay is None
        else parse_duration(f"{field}.delay", delay, zero=True),
        where=None if where is None else parse_where(f"{field}.where", where),
    )
