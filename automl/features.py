"""One definition of every feature, for the stream, the backfill and the training set.

Legend: `B` rows, `F` features of the task, `V` window features of one entity.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from automl.aggregates import COMPARE
from automl.task import CalendarFeature, TaskSpec, WindowFeature
from automl.windows import ShardWindows

__all__ = [
    "FeatureAssembler",
    "ShardWindows",
    "backfill",
    "column_kinds",
    "event_columns",
    "row_features",
]

CHUNK_ROWS = 65_536
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
_THURSDAY = 3  # 1970-01-01, with Monday 0


def column_kinds(schema: pa.Schema) -> dict[str, str]:
    """Gives the kind of every column that a feature may read, for `resolve`."""
    kinds: dict[str, str] = {}
    for column in schema:
        dtype = column.type
        if pa.types.is_dictionary(dtype):
            dtype = dtype.value_type
        if pa.types.is_boolean(dtype):
            kinds[column.name] = "bool"
        elif pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
            kinds[column.name] = "string"
        elif (
            pa.types.is_integer(dtype)
            or pa.types.is_floating(dtype)
            or pa.types.is_decimal(dtype)
        ):
            kinds[column.name] = "number"
    return kinds


def event_columns(
    spec: TaskSpec, rows: pa.Table | pa.RecordBatch
) -> dict[str, npt.NDArray[Any]]:
    """Gives the columns that the features of `spec` read, as numpy arrays (B,).

    Numbers and bools become float64 with NaN for a missing value; strings and ids
    become object arrays of str or int with None for a missing value.
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, kind in spec.needed_columns.items():
        if name not in rows.schema.names:
            msg = f"read column '{name}': it is missing; the events must carry it"
            raise KeyError(msg)
        values = rows.column(name)
        if pa.types.is_dictionary(values.type):
            values = pc.cast(values, values.type.value_type)
        if kind in ("number", "bool"):
            floats = pc.cast(_plain(values), pa.float64(), safe=False)
            columns[name] = floats.to_numpy(zero_copy_only=False)
        else:
            if kind == "id" and pa.types.is_floating(values.type):
                msg = f"read entity column '{name}': expected string or integer ids"
                raise TypeError(msg)
            array = np.empty(len(values), dtype=object)
            array[:] = values.to_pylist()
            columns[name] = array
    return columns


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Gives one array; bools as integers, since Arrow casts those no further."""
    array = values
    if isinstance(values, pa.ChunkedArray):
        array = values.combine_chunks()
    return pc.cast(array, pa.int8()) if pa.types.is_boolean(array.type) else array


def row_features(
    spec: TaskSpec,
    times_ms: npt.NDArray[np.int64],
    columns: Mapping[str, npt.NDArray[Any]],
) -> npt.NDArray[np.float64]:
    """Gives the features that need no other row: the calendar (UTC) and raw columns.

    Returns: float64 (B, R) in the order of `spec.row_features()`.
    """
    times = np.asarray(times_ms, dtype=np.int64)
    features = spec.row_features()
    out = np.empty((len(times), len(features)), dtype=np.float64)
    for index, feature in enumerate(features):
        if isinstance(feature, CalendarFeature):
            out[:, index] = _calendar(feature, times)
        else:
            out[:, index] = np.asarray(columns[feature.name]).astype(np.float64)
    return out


def _calendar(
    feature: CalendarFeature, times_ms: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    if feature.field == "hour":
        field = times_ms // _HOUR_MS % 24
    else:
        field = (times_ms // _DAY_MS + _THURSDAY) % 7
    if feature.op is None:
        return field
    return np.asarray(COMPARE[feature.op](field, feature.value))


class FeatureAssembler:
    """Puts the parts that operators computed into one matrix, in the task's order."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.feature_names = spec.feature_names
        self._entity_slots: dict[str, list[int]] = {}
        self._row_slots: list[int] = []
        for slot, feature in enumerate(spec.features):
            if isinstance(feature, WindowFeature):
                self._entity_slots.setdefault(feature.entity, []).append(slot)
            else:
                self._row_slots.append(slot)

    @property
    def entities(self) -> list[str]:
        """The entities that have window features, in the task's order."""
        return [name for name in self.spec.entities if name in self._entity_slots]

    def assemble(
        self,
        times_ms: npt.NDArray[np.int64],
        columns: Mapping[str, npt.NDArray[Any]],
        windows: Mapping[str, npt.NDArray[Any]],
    ) -> npt.NDArray[np.float64]:
        """Gives float64 (B, F) in the order of `feature_names`.

        Args:
            times_ms: int64 (B,), event time.
            columns: The raw columns (B,) that row features read.
            windows: For each of `entities`, what `ShardWindows.observe` gave: (B, V).
        """
        out = np.empty((len(times_ms), len(self.feature_names)), dtype=np.float64)
        out[:, self._row_slots] = row_features(self.spec, times_ms, columns)
        for entity, slots in self._entity_slots.items():
            out[:, slots] = windows[entity]
        return out


def backfill(spec: TaskSpec, table: pa.Table) -> pa.Table:
    """Computes every feature of a tabular archive, as the stream would have.

    Args:
        spec: A resolved task.
        table: event_id, case_id, event_time and the columns of the events, in any
            order of rows.

    Returns: event_id, case_id, event_time and one float64 column for each feature, in
        event-time order (ties by event_id).
    """
    order = [("event_time", "ascending"), ("event_id", "ascending")]
    ordered = table.take(pc.sort_indices(table, sort_keys=order))
    times = ordered.column("event_time").cast(pa.timestamp("ms", "UTC"))
    times_ms = times.cast(pa.int64()).to_numpy()
    columns = event_columns(spec, ordered)
    assembler = FeatureAssembler(spec)
    shards = {name: ShardWindows(spec, name) for name in assembler.entities}
    matrix = np.empty((len(times_ms), len(spec.feature_names)), dtype=np.float64)
    for first in range(0, len(times_ms), CHUNK_ROWS):
        rows = slice(first, first + CHUNK_ROWS)
        part = {name: values[rows] for name, values in columns.items()}
        windows = {}
        for name, shard in shards.items():
            ids = part[shard.entity_column]
            windows[name], _ = shard.observe(ids, times_ms[rows], part)
            shard.prune()
        matrix[rows] = assembler.assemble(times_ms[rows], part, windows)
    fixed = [ordered.column("event_id"), ordered.column("case_id"), times]
    names = ["event_id", "case_id", "event_time", *spec.feature_names]
    features = [pa.array(matrix[:, index]) for index in range(matrix.shape[1])]
    return pa.table([*fixed, *features], names=names)
