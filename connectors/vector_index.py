"""The FAISS store of embeddings: upsert, delete, search, snapshot, restore.

Shapes: `N` vectors, `D` shared width.

Errors::

    VectorIndexError
    ├── VectorError        ids, widths or numbers that cannot be stored or asked for
    ├── FingerprintError   vectors of another model than this index was built for
    └── SnapshotError      a snapshot that is damaged or of another layout
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from connectors.vector_snapshot import (
    FrozenIndex,
    Offsets,
    SnapshotError,
    VectorIndexError,
)

__all__ = [
    "SPACES",
    "FingerprintError",
    "Hit",
    "Offsets",
    "SnapshotError",
    "VectorError",
    "VectorIndex",
    "VectorIndexError",
]

#: The spaces an index keeps; each is searched alone or merged with the others.
SPACES: tuple[str, ...] = ("text", "image", "audio", "tabular", "fused")

#: How far from 1 the length of a stored vector may be.
LENGTH_TOLERANCE = 1e-3


Floats = npt.NDArray[np.float32]


class VectorError(VectorIndexError):
    """Ids, widths or numbers that cannot be stored or asked for."""


class FingerprintError(VectorIndexError):
    """Vectors of another model than this index was built for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One stored vector near a query.

    Attributes:
        case_id: the case the vector belongs to.
        event_id: the event it was made from.
        modality: the space it was found in.
        similarity: cosine, -1..1.
    """

    case_id: str
    event_id: str
    modality: str
    similarity: float


@dataclass(slots=True)
class _Space:
    """The vectors of one modality; ids only grow, so the id map stays sorted."""

    index: Any
    ids: dict[str, int] = field(default_factory=dict)
    rows: dict[int, tuple[str, str]] = field(default_factory=dict)

    def overwrite(self, ids: Sequence[int], vectors: Floats) -> None:
        """Write vectors over those of ids already held, in place."""
        flat: Any = faiss.downcast_index(self.index.index)
        size = flat.ntotal * flat.d
        stored = faiss.rev_swig_ptr(flat.get_xb(), size).reshape(-1, flat.d)
        held = faiss.vector_to_array(self.index.id_map)
        stored[np.searchsorted(held, np.asarray(ids))] = vectors


class VectorIndex:
    """Exact nearest neighbours by cosine, one space per modality.

    Applying the same vectors again changes nothing, so a reader may replay its
    topic from the offsets of the last snapshot. Safe to use from several threads.

    Args:
        width: D, the width of every vector.
        fingerprints: the model each space was built for. A space that is not
            named takes the fingerprint of its first vectors.
        threads: CPU threads of a search; FAISS keeps one number per process.
    """

    def __init__(
        self,
        width: int,
        fingerprints: Mapping[str, str] | None = None,
        *,
        threads: int = 1,
    ) -> None:
        if width < 1:
            msg = f"build a vector index: width must be at least 1, not {width}"
            raise VectorError(msg)
        faiss.omp_set_num_threads(threads)
        self.width = width
        self._fingerprints = dict(fingerprints or {})
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._next_id = 0
        self._cases: dict[str, dict[int, str]] = {}
        self._spaces = {
            space: _Space(faiss.IndexIDMap2(faiss.IndexFlatIP(self.width)))
            for space in SPACES
        }

    def __len__(self) -> int:
        return sum(self.counts().values())

    @property
    def fingerprints(self) -> dict[str, str]:
        """The model each space holds vectors of, as far as known."""
        return dict(self._fingerprints)

    def counts(self) -> dict[str, int]:
        """Vectors held, by modality."""
        return {name: len(space.rows) for name, space in self._spaces.items()}

    def upsert(
        self,
        event_ids: Sequence[str],
        case_ids: Sequence[str],
        modality: str,
        vectors: npt.ArrayLike,
        *,
        fingerprint: str,
    ) -> None:
        """Store vectors (N, D) of unit length; an event held before is replaced.

        All are stored or, with an error, none.

        Raises:
            VectorError: an unknown modality, lengths that differ, NaN, wrong D or
                a vector that is not of unit length.
            FingerprintError: the space holds vectors of another model.
        """
        space = self._space(modality)
        rows = self._checked(vectors, what=f"store {modality} vectors")
        if not len(rows) == len(event_ids) == len(case_ids):
            msg = (
                f"store {modality} vectors: {len(event_ids)} event ids, "
                f"{len(case_ids)} case ids and {len(rows)} vectors; give one of each"
            )
            raise VectorError(msg)
        last = {event: at for at, event in enumerate(event_ids)}
        with self._lock:
            self.check_fingerprint(modality, fingerprint)
            if last:
                self._fingerprints.setdefault(modality, fingerprint)
            old = [at for event, at in last.items() if event in space.ids]
            new = [at for event, at in last.items() if event not in space.ids]
            if old:
                space.overwrite([space.ids[event_ids[at]] for at in old], rows[old])
            if new:
                ids = np.arange(len(new), dtype=np.int64) + self._next_id
                space.index.add_with_ids(rows[new], ids)
                self._next_id += len(new)
                space.ids.update(
                    (event_ids[at], int(i)) for at, i in zip(new, ids, strict=True)
                )
            for event, at in last.items():
                self._file_under(modality, event, case_ids[at])

    def _file_under(self, modality: str, event_id: str, case_id: str) -> None:
        space = self._spaces[modality]
        key = space.ids[event_id]
        if key in space.rows and (before := space.rows[key][1]) != case_id:
            self._cases[before].pop(key)
        space.rows[key] = (event_id, case_id)
        self._cases.setdefault(case_id, {})[key] = modality

    def delete(self, case_id: str) -> int:
        """Forget every vector of a case; returns how many there were."""
        with self._lock:
            held = self._cases.pop(case_id, {})
            for name in set(held.values()):
                space = self._spaces[name]
                gone = [key for key, modality in held.items() if modality == name]
                space.index.remove_ids(np.asarray(gone, dtype=np.int64))
                for key in gone:
                    space.ids.pop(space.rows.pop(key)[0])
        return len(held)

    def search(
        self,
        vector: npt.ArrayLike,
        k: int,
        modality: str | None = None,
        *,
        exclude_case: str | None = None,
    ) -> list[Hit]:
        """The k nearest vectors, best first; equal ones by event id.

        Args:
            vector: (D,), of unit length.
            k: how many hits at most, at least 1.
            modality: the space to look in; None looks in all and merges.
            exclude_case: a case whose own vectors are left out.
        """
        if k < 1:
            msg = f"search vectors: k must be at least 1, not {k}"
            raise VectorError(msg)
        query = self._checked(np.asarray(vector)[None], what="search vectors")
        names = SPACES if modality is None else (modality,)
        hits = [
            hit for name in names for hit in self._near(query, k, name, exclude_case)
        ]
        hits.sort(key=lambda hit: (-hit.similarity, hit.event_id, hit.modality))
        return hits[:k]

    def _near(
        self, query: Floats, k: int, modality: str, exclude_case: str | None
    ) -> Iterable[Hit]:
        space = self._space(modality)
        with self._lock:
            own = self._cases.get(exclude_case, {}) if exclude_case else {}
            count = min(k + len(own), len(space.rows))
            if not count:
                return []
            similarities, ids = space.index.search(query, count)
            found = [
                (space.rows[int(i)], s)
                for i, s in zip(ids[0], similarities[0], strict=True)
            ]
        return [
            Hit(case_id=case, event_id=event, modality=modality, similarity=float(s))
            for (event, case), s in found
            if case != exclude_case
        ]

    def vector_of(self, case_id: str, modality: str) -> Floats | None:
        """The vector (D,) of a case's newest event of a modality, if one is held."""
        space = self._space(modality)
        with self._lock:
            held = self._cases.get(case_id, {})
            keys = [key for key, name in held.items() if name == modality]
            if not keys:
                return None
            vector: Floats = space.index.reconstruct(max(keys))
        return vector

    def check_fingerprint(self, modality: str, fingerprint: str) -> None:
        """Refuse a model other than the one a space holds vectors of."""
        held = self._fingerprints.get(modality, fingerprint)
        if held != fingerprint:
            msg = (
                f"use {modality} vectors of model {fingerprint!r}: this index was "
                f"built for {held!r}; give the new model's vectors their own index"
            )
            raise FingerprintError(msg)

    def freeze(self, offsets: Mapping[tuple[str, int], int]) -> FrozenIndex:
        """A copy to be written elsewhere; `offsets` are the next to be read."""
        with self._lock:
            return FrozenIndex(
                width=self.width,
                fingerprints=dict(self._fingerprints),
                offsets=dict(offsets),
                vectors={
                    name: faiss.serialize_index(space.index)
                    for name, space in self._spaces.items()
                },
                rows={name: list(s.rows.items()) for name, s in self._spaces.items()},
            )

    def snapshot(self, folder: Path, offsets: Mapping[tuple[str, int], int]) -> None:
        """Write a snapshot; a crash midway leaves the one before."""
        self.freeze(offsets).write(folder)

    def restore(self, folder: Path) -> Offsets:
        """Take over a folder's snapshot; returns the offsets to read on from.

        Returns {} and changes nothing when there is no snapshot.

        Raises:
            SnapshotError: it is damaged or of another layout or width.
            FingerprintError: it holds vectors of another model.
        """
        frozen = FrozenIndex.read(folder)
        if frozen is None:
            return {}
        for name, fingerprint in frozen.fingerprints.items():
            self.check_fingerprint(name, fingerprint)
        try:
            spaces = self._thawed(frozen)
        except (ValueError, LookupError, RuntimeError) as error:
            msg = f"restore the index from {folder}: {error}; delete it to rebuild"
            raise SnapshotError(msg) from error
        with self._lock:
            self._clear()
            self._spaces = spaces
            self._fingerprints.update(frozen.fingerprints)
            for name, space in spaces.items():
                for key, (_, case_id) in space.rows.items():
                    self._cases.setdefault(case_id, {})[key] = name
                    self._next_id = max(self._next_id, key + 1)
        return frozen.offsets

    def _thawed(self, frozen: FrozenIndex) -> dict[str, _Space]:
        if frozen.width != self.width:
            msg = f"its width is {frozen.width}, this index's {self.width}"
            raise ValueError(msg)
        spaces = {}
        for name in SPACES:
            index: Any = faiss.deserialize_index(frozen.vectors[name])
            rows = dict(frozen.rows[name])
            if faiss.vector_to_array(index.id_map).tolist() != list(rows):
                msg = f"its {name} vectors and keys do not match"
                raise ValueError(msg)
            ids = {event_id: key for key, (event_id, _) in rows.items()}
            spaces[name] = _Space(index, ids, rows)
        return spaces

    def _space(self, modality: str) -> _Space:
        if modality not in self._spaces:
            msg = f"no vectors are kept for {modality!r}; known: {', '.join(SPACES)}"
            raise VectorError(msg)
        return self._spaces[modality]

    def _checked(self, vectors: npt.ArrayLike, *, what: str) -> Floats:
        rows: Floats = np.ascontiguousarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            msg = f"{what}: shape {rows.shape} is not (N, {self.width})"
            raise VectorError(msg)
        lengths = np.linalg.norm(rows, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))
        if wrong.size:
            msg = (
                f"{what}: row {wrong[0]} has length {lengths[wrong[0]]:.4g}; "
                "scale it to unit length and replace NaN first"
            )
            raise VectorError(msg)
        return rows
