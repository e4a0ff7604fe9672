"""One definition of every feature, for the stream, the backfill and the training set.

Legend: `B` rows, `F` features of the task, `V` window features of one entity.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from automl.keys import text_keys
from automl.task import CalendarFeature, TaskSpec, WindowFeature
from automl.window_plan import COMPARE

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
    become uint64 keys (`automl.keys`).
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
            columns[name] = text_keys(values)
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
            windows: For each of `entities`, what `EntityWindows.observe` gave: (B, V).
        """
        out = np.empty((len(times_ms), len(self.feature_names)), dtype=np.float64)
        out[:, self._row_slots] = row_features(self.spec, times_ms, columns)
        for entity, slots in self._entity_slots.items():
            out[:, slots] = windows[entity]
        return out
