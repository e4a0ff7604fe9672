"""An archive: a folder of Parquet files <-> tables and event-time ordered slices."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.records import CONTENT_COLUMN, MODALITIES, Modality

ColumnKind = Literal["number", "string", "bool"]
Int64s = npt.NDArray[np.int64]

#: The one type of every instant: milliseconds since 1970, UTC.
TIME = pa.timestamp("ms", tz="UTC")
KEY_FIELDS = (
    pa.field("event_id", pa.string()),
    pa.field("case_id", pa.string()),
    pa.field("event_time", TIME),
)
LABEL_SCHEMA = pa.schema(
    [("case_id", pa.string()), ("label_time", TIME), ("label", pa.int8())]
)
RESERVED = frozenset({"event_id", "case_id", "event_time", "created_ms"})
_NO_TIME = np.iinfo(np.int64).max
_MOST_CHUNKS = 256


class ArchiveError(ValueError):
    """The archive as a whole cannot be used; names the file, column and expectation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """Tables by modality, each sorted by event_time, then event_id; nulls last.

    Attributes:
        tables: the modalities present, in the order of `MODALITIES`.
        labels: case_id, label_time, label; sorted by label_time; None when absent.
    """

    tables: dict[Modality, pa.Table]
    labels: pa.Table | None = None

    @property
    def events(self) -> int:
        """How many events there are, over all modalities."""
        return sum(table.num_rows for table in self.tables.values())


def media_schema(modality: Modality) -> pa.Schema:
    """The columns of a media table: the three keys and its content."""
    kind = pa.string() if modality == "text" else pa.binary()
    return pa.schema([*KEY_FIELDS, pa.field(CONTENT_COLUMN[modality], kind)])


def read_archive(path: Path | str) -> Archive:
    """The whole archive in memory; bad single values stay for the stream to judge.

    Raises:
        ArchiveError: no such folder, no file of events, or a wrong column.
    """
    folder = Path(path)
    tables: dict[Modality, pa.Table] = {
        modality: _sort(_conform(_read(file), modality, file), "event_time")
        for modality, file in _files(folder).items()
    }
    return Archive(tables=tables, labels=read_labels(folder))


def read_labels(path: Path | str) -> pa.Table | None:
    """The labels of an archive sorted by label_time, or None when it has none."""
    file = Path(path) / "labels.parquet"
    if not file.is_file():
        return None
    table = _read(file)
    columns = [_column(table, field, file) for field in LABEL_SCHEMA]
    return _sort(pa.table(columns, schema=LABEL_SCHEMA), "label_time")


def write_archive(path: Path | str, archive: Archive) -> None:
    """Write the tables (and labels) as an archive folder, one Parquet file each."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    for modality, table in archive.tables.items():
        file = folder / f"{modality}.parquet"
        checked = _conform(table, modality, file)
        pq.write_table(checked, file, row_group_size=8192, compression="zstd")
    if archive.labels is not None:
        labels = archive.labels.select(LABEL_SCHEMA.names).cast(LABEL_SCHEMA)
        pq.write_table(labels, folder / "labels.parquet", compression="zstd")


def count_events(path: Path | str) -> dict[Modality, int]:
    """Rows by modality, from the footers alone."""
    files = _files(Path(path))
    return {modality: _open(file).metadata.num_rows for modality, file in files.items()}


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


def iter_slices(
    source: Archive | Path | str, *, frame_rows: int = 256, chunk_rows: int = 8192
) -> Iterator[tuple[Modality, pa.RecordBatch]]:
    """Slices of one modality each, over all modalities in event-time order.

    The merged sequence is cut into blocks of `frame_rows` events; a block gives at most
    one slice per modality, tabular first. So no event is out of order by more than one
    block. Events without a time come last.

    Args:
        source: an archive in memory, or its folder; a folder is read piece by piece and
            may be larger than memory (a file out of order is spilled to a temporary
            folder once).
        frame_rows: events in a block, over all modalities.
        chunk_rows: events in memory at a time when `source` is a folder.
    """
    if frame_rows < 1 or chunk_rows < 1:
        msg = f"frame_rows and chunk_rows must be >= 1, got {frame_rows}, {chunk_rows}"
        raise ValueError(msg)
    if isinstance(source, Archive):
        yield from _cut(source.tables, frame_rows)
        return
    files = _files(Path(source))
    times = {modality: _file_times(file) for modality, file in files.items()}
    ends = _chunk_ends(times, chunk_rows)
    with tempfile.TemporaryDirectory(prefix="sluice-archive-") as spill:
        streams = {
            modality: _chunks(file, modality, times[modality], ends, Path(spill))
            for modality, file in files.items()
        }
        for _ in range(len(ends) + 1):
            yield from _cut(
                {m: next(stream) for m, stream in streams.items()}, frame_rows
            )


def _cut(
    tables: Mapping[Modality, pa.Table], frame_rows: int
) -> Iterator[tuple[Modality, pa.RecordBatch]]:
    """Slices of tables that are each sorted already."""
    names = [modality for modality in MODALITIES if modality in tables]
    times = [_times(tables[name].column("event_time")) for name in names]
    owner = np.repeat(np.arange(len(names)), [len(column) for column in times])
    if not len(owner):
        return
    merged = owner[np.lexsort((owner, np.concatenate(times)))]
    starts = [0] * len(names)
    for begin in range(0, len(merged), frame_rows):
        counts = np.bincount(merged[begin : begin + frame_rows], minlength=len(names))
        for index, name in enumerate(names):
            rows = int(counts[index])
            if rows:
                part = tables[name].slice(starts[index], rows).combine_chunks()
                starts[index] += rows
                yield name, part.to_batches()[0]


def _chunk_ends(times: Mapping[Modality, Int64s], chunk_rows: int) -> Int64s:
    """First instants of the second and later chunks, strictly increasing."""
    merged = np.sort(np.concatenate(list(times.values())))
    step = max(chunk_rows, -(-len(merged) // _MOST_CHUNKS))
    ends = np.unique(merged[step::step])
    return ends[ends > merged[0]] if len(merged) else ends


def _chunks(
    file: Path, modality: Modality, times: Int64s, ends: Int64s, spill: Path
) -> Iterator[pa.Table]:
    """One sorted, checked table per chunk, empty ones included."""
    chunk_of = np.searchsorted(ends, times, side="right")
    in_order = bool(np.all(times[1:] >= times[:-1]))
    pieces = _in_order if in_order else _spilled
    for table in pieces(file, chunk_of, len(ends) + 1, spill):
        yield _sort(_conform(table, modality, file), "event_time")


def _in_order(
    file: Path, chunk_of: Int64s, chunks: int, spill: Path
) -> Iterator[pa.Table]:
    """Chunks of a file whose rows are in time order already."""
    parquet = _open(file)
    held = parquet.schema_arrow.empty_table()
    batches = parquet.iter_batches(batch_size=4096)
    for rows in np.bincount(chunk_of, minlength=chunks):
        while held.num_rows < rows:
            held = pa.concat_tables([held, pa.Table.from_batches([next(batches)])])
        yield held.slice(0, rows)
        held = held.slice(rows)


def _spilled(
    file: Path, chunk_of: Int64s, chunks: int, spill: Path
) -> Iterator[pa.Table]:
    """Chunks of a file in any order: dealt out to one temporary file per chunk."""
    parquet = _open(file)
    writers: dict[int, pa.RecordBatchStreamWriter] = {}
    row = 0
    for batch in parquet.iter_batches(batch_size=4096):
        targets = chunk_of[row : row + batch.num_rows]
        row += batch.num_rows
        for chunk in np.unique(targets).tolist():
            if chunk not in writers:
                place = spill / f"{file.stem}-{chunk}.arrows"
                writers[chunk] = pa.ipc.new_stream(str(place), batch.schema)
            writers[chunk].write_batch(batch.filter(pa.array(targets == chunk)))
    for writer in writers.values():
        writer.close()
    for chunk in range(chunks):
        place = spill / f"{file.stem}-{chunk}.arrows"
        if not place.exists():
            yield parquet.schema_arrow.empty_table()
            continue
        with pa.OSFile(str(place)) as stream:
            yield pa.ipc.open_stream(stream).read_all()
        place.unlink()


def _files(folder: Path) -> dict[Modality, Path]:
    if not folder.is_dir():
        msg = (
            f"read archive {folder}: no such folder; expected a folder of Parquet files"
        )
        raise ArchiveError(msg)
    candidates = {modality: folder / f"{modality}.parquet" for modality in MODALITIES}
    found = {modality: file for modality, file in candidates.items() if file.is_file()}
    if not found:
        expected = ", ".join(file.name for file in candidates.values())
        msg = f"read archive {folder}: holds no events; expected one or more of {expected}"
        raise ArchiveError(msg)
    return found


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        msg = f"read {file}: not a readable Parquet file ({error})"
        raise ArchiveError(msg) from error


def _read(file: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return _open(file).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        msg = f"read {file}: its data cannot be read ({error})"
        raise ArchiveError(msg) from error


def _conform(table: pa.Table, modality: Modality, file: Path) -> pa.Table:
    """The table with the archive's columns first and in the archive's types."""
    wanted = list(KEY_FIELDS if modality == "tabular" else media_schema(modality))
    if "created_ms" in table.column_names:
        wanted.insert(len(KEY_FIELDS), pa.field("created_ms", pa.int64()))
    columns = {field.name: _column(table, field, file) for field in wanted}
    if modality == "tabular":
        for name in table.column_names:
            if table.column_names.count(name) > 1:
                msg = f"read {file}: column '{name}' appears twice; expected once"
                raise ArchiveError(msg)
            if name not in columns:
                columns[name] = _plain(table.column(name))
    return pa.table(columns)


def _column(table: pa.Table, field: pa.Field, file: Path) -> pa.ChunkedArray:
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


def _times(column: pa.ChunkedArray) -> Int64s:
    """Milliseconds since 1970; a row without a time sorts after every other."""
    values = column.cast(TIME, safe=False).cast(pa.int64())
    return np.asarray(pc.fill_null(values, _NO_TIME).to_numpy(), dtype=np.int64)


def _file_times(file: Path) -> Int64s:
    if "event_time" not in _open(file).schema_arrow.names:
        msg = f"read {file}: column 'event_time' is missing; expected one {TIME}"
        raise ArchiveError(msg)
    table = _read(file, ["event_time"])
    return _times(_column(table, KEY_FIELDS[2], file))


def _sort(table: pa.Table, time_column: str) -> pa.Table:
    second = "event_id" if "event_id" in table.column_names else "case_id"
    return table.sort_by([(time_column, "ascending"), (second, "ascending")])
