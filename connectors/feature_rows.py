"""Frames of the `features` topic as rows, for whoever learns from or encodes them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectors.codec import CodecError, decode_frame
from connectors.records import DeadLetter, Place
from connectors.rows import EventRows, Origins
from connectors.schemas import rows_of_list

#: The (B, F) column of feature values.
VALUES = "values"


class FeatureReader:
    """Reads what the score job wrote; stands in for an `EventReader`."""

    def read(
        self, value: bytes | None, place: Place
    ) -> tuple[EventRows | None, list[DeadLetter]]:
        """Rows of modality tabular with the column `values`, or a dead letter."""
        try:
            batch = decode_frame(value or b"")
            return _rows(batch, place), []
        except (CodecError, KeyError, AttributeError, pa.ArrowException) as error:
            letter = DeadLetter(
                place=place,
                row=-1,
                kind="unreadable",
                reason=f"not a features frame: {error}",
                event_id="",
                modality="tabular",
                value=value or b"",
            )
            return None, [letter]


def _rows(batch: pa.RecordBatch, place: Place) -> EventRows:
    return EventRows(
        modality="tabular",
        event_id=batch.column("event_id").to_pylist(),
        case_id=batch.column("case_id").to_pylist(),
        event_time_ms=batch.column("event_time").cast(pa.int64()).to_numpy(),
        created_ms=batch.column("created_ms").to_numpy(),
        origins=Origins.of_frame(place, np.arange(batch.num_rows, dtype=np.int32)),
        columns={VALUES: rows_of_list(batch.column(VALUES))},
    )
