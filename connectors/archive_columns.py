"""The columns an archive file must have, and how other writers' types become them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from connectors.records import CONTENT_COLUMN, Modality
from connectors.schemas import TIME

ColumnKind = Literal["number", "string", "bool"]

KEY_FIELDS = (
    pa.field("event_id", pa.string()),
    pa.field("case_id", pa.string()),
    pa.field("event_time", TIME),
)
RESERVED = frozenset({"event_id", "case_id", "event_time", "created_ms"})


class ArchiveError(ValueError):
    """The archive as a whole cannot be used; names the file, column and expectation."""


def media_schema(modality: Modality) -> pa.Schema:
    """The columns of a media table: the three keys and its content."""
    kind = pa.string() if modality == "text" else pa.binary()
    return pa.schema([*KEY_FIELDS, pa.field(CONTENT_COLUMN[modality], kind)])


def column_kinds(table: pa.Table | pa.RecordBatch | pa.Schema) -> dict[str, ColumnKind]:
    """The kind of every typed column beside the keys; columns of other types are out.

    >>> column_kinds(pa.schema([("event_id", pa.string()), ("amount", pa.float64())]))
    {'amount': 'number'}
    """
    schema = table if isinstance(table, pa.Schema) else table.schema
    kinds: dict[str, ColumnKind] = {}
    for field in schema:
        kind = _kind(field.type)
        if kind is not None and field.name not in RESERVED:
            kinds[field.name] = kind
    return kinds


def conform(table: pa.Table, modality: Modality, file: Path) -> pa.Table:
    """The table with the archive's columns first and in the archive's types."""
    wanted = list(KEY_FIELDS if modality == "tabular" else media_schema(modality))
    if "created_ms" in table.column_names:
        wanted.insert(len(KEY_FIELDS), pa.field("created_ms", pa.int64()))
    columns = {field.name: typed_column(table, field, file) for field in wanted}
    if modality == "tabular":
        for name in table.column_names:
            if table.column_names.count(name) > 1:
                msg = f"read {file}: column '{name}' appears twice; expected once"
                raise ArchiveError(msg)
            if name not in columns:
                columns[name] = _plain(table.column(name))
    return pa.table(columns)


def typed_column(table: pa.Table, field: pa.Field, file: Path) -> pa.ChunkedArray:
    """The column in the field's type; a value that does not fit becomes null."""
    found = table.column_names.count(field.name)
    if found != 1:
        state = "is missing" if not found else "appears twice"
        msg = f"read {file}: column '{field.name}' {state}; expected one {field.type}"
        raise ArchiveError(msg)
    column = _plain(table.column(field.name))
    given = column.type
    if not (pa.types.is_null(given) or _fits(given, field.type)):
        msg = f"read {file}: column '{field.name}' is {given}; expected {field.type}"
        raise ArchiveError(msg)
    if field.type == pa.int8() and pa.types.is_integer(given):
        known = pc.and_(pc.greater_equal(column, -1), pc.less_equal(column, 1))
        column = pc.if_else(known, column, pa.scalar(None, given))
    return column.cast(field.type, safe=False)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionaries opened, decimals as floats, large strings as strings."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type):
        return column.cast(pa.float64(), safe=False)
    return column.cast(pa.string()) if column.type == pa.large_string() else column


def _fits(given: pa.DataType, wanted: pa.DataType) -> bool:
    if wanted == pa.int8():
        return pa.types.is_integer(given) or pa.types.is_boolean(given)
    if wanted == pa.binary():
        return (
            pa.types.is_binary(given)
            or pa.types.is_large_binary(given)
            or pa.types.is_fixed_size_binary(given)
        )
    if wanted == TIME:
        return bool(pa.types.is_timestamp(given))
    if wanted == pa.int64():
        return bool(pa.types.is_integer(given))
    return bool(given == wanted)


def _kind(given: pa.DataType) -> ColumnKind | None:
    """The kind of a column type, or None when no feature can be made of it."""
    if pa.types.is_dictionary(given):
        return _kind(given.value_type)
    if pa.types.is_boolean(given):
        return "bool"
    if any(
        is_number(given)
        for is_number in (
            pa.types.is_integer,
            pa.types.is_floating,
            pa.types.is_decimal,
        )
    ):
        return "number"
    return "string" if given in (pa.string(), pa.large_string()) else None
