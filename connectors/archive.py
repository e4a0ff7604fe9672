"""An archive: a folder of Parquet files <-> tables and event-time ordered slices."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.archive_columns import (
    KEY_FIELDS,
    ArchiveError,
    column_kinds,
    conform,
    media_schema,
    typed_column,
)
from connectors.records import MODALITIES, Modality
from connectors.schemas import LABELS, TIME

__all__ = [
    "Archive",
    "ArchiveError",
    "column_kinds",
    "count_events",
    "iter_slices",
    "media_schema",
    "read_archive",
    "read_labels",
    "with_created_ms",
    "write_archive",
]

Int64s = npt.NDArray[np.int64]

_NO_TIME = np.iinfo(np.int64).max
_MOST_CHUNKS = 256


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


def read_archive(path: Path | str) -> Archive:
    """The whole archive in memory; bad single values stay for the stream to judge.

    Raises:
        ArchiveError: no such folder, no file of events, or a wrong column.
    """
    folder = Path(path)
    tables: dict[Modality, pa.Table] = {
        modality: _sort(conform(_read(file), modality, file), "event_time")
        for modality, file in _files(folder).items()
    }
    return Archive(tables=tables, labels=read_labels(folder))


def read_labels(path: Path | str) -> pa.Table | None:
    """The labels of an archive sorted by label_time, or None when it has none."""
    file = Path(path) / "labels.parquet"
    if not file.is_file():
        return None
    table = _read(file)
    columns = [typed_column(table, field, file) for field in LABELS]
    return _sort(pa.table(columns, schema=LABELS), "label_time")


def write_archive(path: Path | str, archive: Archive) -> None:
    """Write the tables (and labels) as an archive folder, one Parquet file each."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    for modality, table in archive.tables.items():
        file = folder / f"{modality}.parquet"
        checked = conform(table, modality, file)
        pq.write_table(checked, file, row_group_size=8192, compression="zstd")
    if archive.labels is not None:
        labels = archive.labels.select(LABELS.names).cast(LABELS)
        pq.write_table(labels, folder / "labels.parquet", compression="zstd")


def count_events(path: Path | str) -> dict[Modality, int]:
    """Rows by modality, from the footers alone."""
    files = _files(Path(path))
    return {modality: _open(file).metadata.num_rows for modality, file in files.items()}


def iter_slices(
    source: Archive | Path | str,
    *,
    frame_rows: int = 256,
    chunk_rows: int = 8192,
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
            tables = {m: next(stream) for m, stream in streams.items()}
            yield from _cut(tables, frame_rows)


def with_created_ms(batch: pa.RecordBatch, created_ms: int) -> pa.RecordBatch:
    """The slice with the producer's clock in `created_ms`, after the keys."""
    stamp = pa.array(np.full(batch.num_rows, created_ms, dtype=np.int64))
    columns = {n: batch.column(n) for n in batch.schema.names if n != "created_ms"}
    names = list(columns)
    names.insert(len(KEY_FIELDS), "created_ms")
    arrays = [stamp if name == "created_ms" else columns[name] for name in names]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _cut(
    tables: Mapping[Modality, pa.Table], frame_rows: int
) -> Iterator[tuple[Modality, pa.RecordBatch]]:
    """Slices of tables that are each sorted already."""
    names = [modality for modality in MODALITIES if modality in tables]
    times = [_times(tables[name].column("event_time")) for name in names]
    owner = np.repeat(np.arange(len(names)), [len(column) for column in times])
    if not len(owner):
        return
    instants = np.concatenate(times)
    order = np.lexsort((owner, instants))
    starts = [0] * len(names)
    for at in range(0, len(order), frame_rows):
        block = order[at : at + frame_rows]
        counts = np.bincount(owner[block], minlength=len(names))
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
    try:
        for table in pieces(file, chunk_of, len(ends) + 1, spill):
            yield _sort(conform(table, modality, file), "event_time")
    except (pa.ArrowException, OSError) as error:
        msg = f"read {file}: its data cannot be read ({error})"
        raise ArchiveError(msg) from error


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
        msg = f"read archive {folder}: holds no events; expected any of {expected}"
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


def _times(column: pa.ChunkedArray) -> Int64s:
    """Milliseconds since 1970; a row without a time sorts after every other."""
    values = column.cast(TIME, safe=False).cast(pa.int64())
    return np.asarray(pc.fill_null(values, _NO_TIME).to_numpy(), dtype=np.int64)


def _file_times(file: Path) -> Int64s:
    if "event_time" not in _open(file).schema_arrow.names:
        msg = f"read {file}: column 'event_time' is missing; expected one {TIME}"
        raise ArchiveError(msg)
    table = _read(file, ["event_time"])
    return _times(typed_column(table, KEY_FIELDS[2], file))


def _sort(table: pa.Table, time_column: str) -> pa.Table:
    second = "event_id" if "event_id" in table.column_names else "case_id"
    return table.sort_by([(time_column, "ascending"), (second, "ascending")])
