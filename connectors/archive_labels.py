"""The labels of an archive: which of them say something, and their place in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.archive import Archive, iter_slices
from connectors.partitions import partitions_of
from connectors.records import Modality


def usable_labels(labels: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The labels that say something of a case, and how many do not, by reason.

    A label that is neither 0 nor 1 (null, -1) is one that is not known: training leaves
    such a case out too.
    """
    case_id, label = labels.column("case_id"), labels.column("label")
    checks = {
        "no case_id": pc.not_equal(case_id, ""),
        "no label_time": pc.is_valid(labels.column("label_time")),
        "label is not 0 or 1": pc.is_in(label, value_set=pa.array([0, 1], pa.int8())),
    }
    left_out: dict[str, int] = {}
    good = np.ones(labels.num_rows, dtype=bool)
    for reason, check in checks.items():
        passed = pc.fill_null(check, False).to_numpy()
        failed = int((good & ~passed).sum())
        if failed:
            left_out[reason] = failed
        good &= passed
    return labels.filter(pa.array(good)), left_out


def iter_with_labels(
    source: Archive | Path | str, labels: pa.Table, *, frame_rows: int = 256
) -> Iterator[tuple[Modality | Literal["labels"], pa.RecordBatch]]:
    """The slices of `iter_slices`, and the labels as slices before they count.

    A label comes before every slice with an event at its label_time or later, and so
    less than a block before its time: who reads it must look at its label_time.

    Args:
        source: an archive in memory, or its folder.
        labels: rows sorted by label_time, none without one.
        frame_rows: most events in a block.
    """
    times = labels.column("label_time").cast(pa.int64()).to_numpy()
    whole = labels.combine_chunks().to_batches()
    given = 0
    for modality, batch in iter_slices(source, frame_rows=frame_rows):
        last_ms = batch.column("event_time")[-1].value
        timeless = last_ms is None
        due = len(times) if timeless else int(np.searchsorted(times, last_ms, "right"))
        if due > given:
            yield "labels", whole[0].slice(given, due - given)
            given = due
        yield modality, batch
    if given < len(times):
        yield "labels", whole[0].slice(given)


def by_partition(labels: pa.RecordBatch, partitions: int) -> list[pa.RecordBatch]:
    """The labels in one part for each partition that Kafka gives their cases to.

    The labels of a case are in one part, in their order.
    """
    chosen = partitions_of(labels.column("case_id").to_pylist(), partitions)
    return [
        labels.take(pa.array(np.flatnonzero(chosen == number)))
        for number in np.unique(chosen)
    ]
