"""One field of a task file: how it is refused, its texts, its durations.

`TaskError` is the one error of a task file; its message names the field, what was
expected there, and what to write instead.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

DAY_MS = 86_400_000
_UNITS_MS = {"d": DAY_MS, "h": 3_600_000, "m": 60_000, "s": 1_000}
_DURATION = re.compile(r"([0-9]{1,12})([dhms])")


class TaskError(ValueError):
    """A task file that cannot be used; `field` is where, the message how to fix it."""

    def __init__(self, problem: str, *, field: str) -> None:
        self.field = field
        super().__init__(f"task file, {field}: {problem}")


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


def parse_duration(field: str, value: Any, *, most_ms: int, zero: bool = False) -> int:
    """Gives the milliseconds of a duration such as "7d", "12h", "5m" or "30s"."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        problem = (
            f'expected a duration such as "7d", "12h", "5m" or "30s", got {value!r}; '
            "write a whole number and one of d, h, m, s"
        )
        raise TaskError(problem, field=field)
    duration_ms = int(match[1]) * _UNITS_MS[match[2]]
    if duration_ms > most_ms or (duration_ms == 0 and not zero):
        least, most = "0s" if zero else "1s", format_duration(most_ms)
        problem = (
            f"expected {least} to {most}, got '{value}'; choose a duration in that "
            'range, for instance "7d"'
        )
        raise TaskError(problem, field=field)
    return duration_ms


def format_duration(duration_ms: int) -> str:
    """Gives the shortest text that `parse_duration` reads back to the same value."""
    for unit, unit_ms in _UNITS_MS.items():
        if duration_ms and duration_ms % unit_ms == 0:
            return f"{duration_ms // unit_ms}{unit}"
    return "0s"
