"""Frames of the `features` topic as rows, for whoever learns from or encodes them."""

from __future__ import annotations

import pyarrow as pa

from connectors.codec import CodecError, decode_frame
from connectors.frame_rows import rows_of_frame
from connectors.records import DeadLetter, Place
from connectors.rows import EventRows
from connectors.schemas import rows_of_list

#: What a value of other content makes the reading below raise.
_OTHER = (CodecError, KeyError, AttributeError, ValueError, pa.ArrowException)
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
            values = {VALUES: rows_of_list(batch.column(VALUES))}
            return rows_of_frame(batch, place, modality="tabular", columns=values), []
        except _OTHER as error:
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
