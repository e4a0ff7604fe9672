"""An archive read as the stream reads it: same checks, same features, same vectors.

Legend: `N` cases, `M` modalities, `D` shared width, `F` features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from automl.arrival import backfill
from automl.task import TaskSpec
from connectors.archive import Archive
from connectors.codec import encode_frame
from connectors.events import EventReader
from connectors.records import CONTENT_COLUMN, MEDIA, MODALITIES, DeadLetter, Place
from connectors.rows import EventRows, concat_rows
from connectors.schemas import TIME
from encoders.base import Encoder, PayloadError
from pipelines.operators.read import now_ms

FRAME_ROWS = 4096
#: A value of the stream is at most some three times as large.
FRAME_BYTES = 5 * 1024 * 1024


@dataclass(slots=True)
class Joined:
    """The cases of an archive that have a tabular event, in event-time order.

    Attributes:
        case_id: N ids.
        event_id: N ids of the tabular events.
        event_time_ms: int64 (N,).
        features: float64 (N, F).
        item: int64 (N, M), which decoded item of a modality a case has; -1 for none.
        items: distinct decoded payloads by modality.
        dead: events that the stream would have dead-lettered.
    """

    case_id: list[str]
    event_id: list[str]
    event_time_ms: NDArray[np.int64]
    features: NDArray[np.float64]
    item: NDArray[np.int64]
    items: dict[str, list[Any]]
    dead: list[DeadLetter]

    def take(self, rows: NDArray[np.intp]) -> Joined:
        """Some of the cases, in the order given; all decoded items stay."""
        item = self.item[rows]
        item[:, MODALITIES.index("tabular")] = np.arange(len(rows))
        return replace(
            self,
            case_id=[self.case_id[row] for row in rows],
            event_id=[self.event_id[row] for row in rows],
            event_time_ms=self.event_time_ms[rows],
            features=self.features[rows],
            item=item,
        )

    def between(self, since: str | None, until: str | None) -> Joined:
        """The cases of the days from `since` up to, not with, `until`."""
        start_ms, stop_ms = day_bounds(since, until)
        times = self.event_time_ms
        return self.take(np.flatnonzero((times >= start_ms) & (times < stop_ms)))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool (N, M), which modalities a case has."""
        mask: NDArray[np.bool_] = self.item >= 0
        return mask


def read_rows(
    table: pa.Table,
    modality: str,
    columns: Mapping[str, str],
    number_limits: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[EventRows | None, list[DeadLetter]]:
    """The valid rows of one archive table, by the very checks of the stream."""
    reader = EventReader(
        modality, columns=columns, number_limits=number_limits, now_ms=now_ms
    )
    parts: list[EventRows] = []
    dead: list[DeadLetter] = []
    for number, batch in enumerate(_frames(table)):
        place = Place(topic=f"{modality}.parquet", partition=0, offset=number)
        rows, letters = reader.read(encode_frame(batch), place)
        dead += letters
        if rows is not None:
            parts.append(rows)
    return (concat_rows(parts) if parts else None), dead


def _frames(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows in batches of a size that the stream takes as one value."""
    per_row = table.nbytes / max(1, table.num_rows)
    rows = max(1, min(FRAME_ROWS, int(FRAME_BYTES / max(1.0, per_row))))
    for batch in table.to_batches(max_chunksize=rows):
        # rows differ in size: of a batch that is still too large each goes alone
        step = batch.num_rows if batch.nbytes <= 2 * FRAME_BYTES else 1
        for at in range(0, batch.num_rows, step):
            yield batch.slice(at, step)


def backfill_rows(
    spec: TaskSpec, rows: EventRows, labels: pa.Table | None = None
) -> pa.Table:
    """`backfill` of rows that passed the checks.

    Args:
        spec: a resolved task.
        rows: tabular events, as `read_rows` gives them.
        labels: case_id, label_time and label; what features on the label count.
    """
    columns = {name: pa.array(rows.columns[name]) for name in spec.needed_columns}
    table = pa.table(
        {
            "event_id": rows.event_id,
            "case_id": rows.case_id,
            "event_time": pa.array(rows.event_time_ms).cast(TIME),
            **columns,
        }
    )
    return backfill(spec, table, labels)


def join(spec: TaskSpec, archive: Archive, encoders: Mapping[str, Encoder]) -> Joined:
    """Features of every tabular event, with the media of its case decoded once.

    Args:
        spec: a resolved task.
        archive: tables by modality; tabular must be among them.
        encoders: decode the media they are for; other media are left out.
    """
    if "tabular" not in archive.tables:
        msg = "archive has no tabular.parquet; features and decisions rest on it"
        raise ValueError(msg)
    rows, dead = read_rows(
        archive.tables["tabular"],
        "tabular",
        spec.needed_columns,
        spec.number_limits(),
    )
    if rows is None:
        msg = (
            f"no tabular event of the archive can be used; the first: {dead[0].reason}"
        )
        raise ValueError(msg)
    table = backfill_rows(spec, rows, archive.labels)
    names = [table.column(name).to_numpy() for name in spec.feature_names]
    cases = table.column("case_id").to_pylist()
    found = Joined(
        case_id=cases,
        event_id=table.column("event_id").to_pylist(),
        event_time_ms=table.column("event_time").cast(pa.int64()).to_numpy(),
        features=np.column_stack(names) if names else np.empty((len(cases), 0)),
        item=np.full((len(cases), len(MODALITIES)), -1, dtype=np.int64),
        items={},
        dead=dead,
    )
    found.item[:, MODALITIES.index("tabular")] = np.arange(len(cases))
    row_of = {case_id: i for i, case_id in enumerate(cases)}
    for modality in MEDIA:
        if modality in archive.tables and modality in encoders:
            _join_media(found, row_of, archive.tables[modality], encoders[modality])
    return found


def _join_media(
    found: Joined, row_of: Mapping[str, int], table: pa.Table, encoder: Encoder
) -> None:
    modality = encoder.modality
    rows, dead = read_rows(table, modality, {})
    found.dead += dead
    items: list[Any] = []
    known: dict[Any, int] = {}
    reasons: dict[Any, str] = {}
    column = MODALITIES.index(modality)
    cases = [] if rows is None else rows.case_id.to_pylist()
    payloads = [] if rows is None else rows.columns[CONTENT_COLUMN[modality]]
    for i, case_id in enumerate(cases):
        assert rows is not None
        payload = payloads[i].as_py()
        number = known.get(payload)
        if number is None:
            try:
                items.append(encoder.decode(payload))
                number = len(items) - 1
            except PayloadError as error:
                number = -1
                reasons[payload] = str(error)
            known[payload] = number
        if number < 0:  # one letter per event, also of a payload seen before
            reason = reasons[payload]
            found.dead.append(rows.dead_letter(i, kind="unreadable", reason=reason))
        if case_id in row_of and number >= 0:
            found.item[row_of[case_id], column] = number
    found.items[modality] = items


def embed(
    joined: Joined, encoders: Mapping[str, Encoder], *, batch_rows: int = 64
) -> NDArray[np.float32]:
    """Embeddings (N, M, D) of all cases, each distinct payload encoded once."""
    width = next(iter(encoders.values())).width
    out = np.zeros((len(joined.case_id), len(MODALITIES), width), dtype=np.float32)
    for column, modality in enumerate(MODALITIES):
        if modality not in encoders:
            continue
        encoder = encoders[modality]
        there = joined.item[:, column] >= 0
        wanted, back = np.unique(joined.item[there, column], return_inverse=True)
        if modality == "tabular":
            items = [encoder.decode(row) for row in joined.features]
        else:
            items = [joined.items[modality][number] for number in wanted]
        parts = [
            encoder.encode(items[at : at + batch_rows])
            for at in range(0, len(items), batch_rows)
        ]
        if parts:
            out[there, column] = np.concatenate(parts)[back]
    return out


def labels_of(archive: Archive, case_id: list[str]) -> NDArray[np.int64]:
    """int64 (N,): the label of each case, -1 where none is known."""
    if archive.labels is None:
        return np.full(len(case_id), -1, dtype=np.int64)
    known = dict(
        zip(
            archive.labels.column("case_id").to_pylist(),
            archive.labels.column("label").to_pylist(),
            strict=True,
        )
    )
    found = (known.get(case) for case in case_id)
    return np.array([-1 if one is None else one for one in found], dtype=np.int64)


def day_bounds(since: str | None, until: str | None) -> tuple[int, int]:
    """Milliseconds of the start of two days (UTC); a missing one bounds nothing."""

    def start_ms(day: str) -> int:
        at = datetime.fromisoformat(day)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)

    return (
        start_ms(since) if since is not None else -(2**62),
        start_ms(until) if until is not None else 2**62,
    )
