"""The rows a tree was fitted on, kept in its model folder for the next retraining."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROWS_FILE = "rows.parquet"
#: Latest rows kept; older ones are forgotten.
MOST_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class FittedRows:
    """Labelled feature rows in event-time order.

    Attributes:
        x: float64 (N, F).
        y: int64 (N,) of 0 and 1.
        event_time_ms: int64 (N,).
    """

    x: NDArray[np.float64]
    y: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]

    def extended(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.int64],
        event_time_ms: NDArray[np.int64],
    ) -> FittedRows:
        """These rows and later ones, the oldest beyond `MOST_ROWS` left out."""
        return FittedRows(
            np.concatenate([self.x, x])[-MOST_ROWS:],
            np.concatenate([self.y, y])[-MOST_ROWS:],
            np.concatenate([self.event_time_ms, event_time_ms])[-MOST_ROWS:],
        )

    def write(self, folder: Path) -> None:
        """Write `rows.parquet` into a model folder."""
        columns = {f"f{i}": self.x[:, i] for i in range(self.x.shape[1])}
        table = pa.table({"y": self.y, "t": self.event_time_ms, **columns})
        pq.write_table(table, folder / ROWS_FILE, compression="zstd")

    @classmethod
    def read(cls, folder: Path) -> FittedRows:
        """The rows of a model folder."""
        table = pq.read_table(folder / ROWS_FILE)
        x = [table.column(i).to_numpy() for i in range(2, table.num_columns)]
        return cls(
            np.column_stack(x),
            table.column("y").to_numpy(),
            table.column("t").to_numpy(),
        )
