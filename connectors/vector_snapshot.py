"""An index at one moment, and the folder of checked files it is kept in."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Offsets = dict[tuple[str, int], int]

_LAYOUT = 1
_CURRENT = "current.json"
_MANIFEST = "snapshot.json"
_KEYS = "keys.arrow"


class VectorIndexError(Exception):
    """Anything a vector index refuses; the tree is drawn in `vector_index`."""


class SnapshotError(VectorIndexError):
    """A snapshot that is damaged or of another layout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenIndex:
    """A copy of an index at one moment; any thread may write it.

    Attributes:
        width: D of its vectors.
        fingerprints: the model of each space.
        offsets: (topic, partition) to the next offset to be read.
        vectors: each space as FAISS serialises it.
        rows: for each space (id, (event_id, case_id)), ids ascending.
    """

    width: int
    fingerprints: dict[str, str]
    offsets: Offsets
    vectors: dict[str, npt.NDArray[np.uint8]]
    rows: dict[str, list[tuple[int, tuple[str, str]]]]

    def write(self, folder: Path) -> None:
        """Make this the folder's snapshot; a crash midway leaves the one before.

        One writer at a time.
        """
        offsets = [[topic, part, at] for (topic, part), at in self.offsets.items()]
        facts = {
            "layout": _LAYOUT,
            "width": self.width,
            "fingerprints": self.fingerprints,
            "offsets": sorted(offsets),
        }
        files = {f"{name}.faiss": content for name, content in self.vectors.items()}
        _write_folder(folder, {_KEYS: self._keys(), **files}, facts)

    @classmethod
    def read(cls, folder: Path) -> FrozenIndex | None:
        """The folder's snapshot, or None where none was written.

        Raises:
            SnapshotError: a file is missing, altered or cut, or of another layout.
        """
        if not (folder / _CURRENT).exists():
            return None
        try:
            facts, files = _read_folder(folder)
            rows = _rows_of(files.pop(_KEYS))
            vectors = {
                name.removesuffix(".faiss"): np.frombuffer(content, dtype=np.uint8)
                for name, content in files.items()
            }
            return cls(
                width=facts["width"],
                fingerprints=facts["fingerprints"],
                offsets={(t, p): at for t, p, at in facts["offsets"]},
                vectors=vectors,
                rows={name: rows.get(name, []) for name in vectors},
            )
        except (OSError, ValueError, LookupError, TypeError) as error:
            msg = f"restore the index from {folder}: {error}; delete it to rebuild"
            raise SnapshotError(msg) from error

    def _keys(self) -> pa.Buffer:
        rows = [(s, i, e, c) for s, held in self.rows.items() for i, (e, c) in held]
        columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
        types = [pa.string(), pa.int64(), pa.string(), pa.string()]
        batch = pa.RecordBatch.from_arrays(
            [pa.array(c, t) for c, t in zip(columns, types, strict=True)],
            names=["modality", "id", "event_id", "case_id"],
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return sink.getvalue()


def _rows_of(keys: bytes) -> dict[str, list[tuple[int, tuple[str, str]]]]:
    table = pa.ipc.open_file(keys).read_all()
    columns = [table[n].to_pylist() for n in ("modality", "id", "event_id", "case_id")]
    rows: dict[str, list[tuple[int, tuple[str, str]]]] = {}
    for space, key, event_id, case_id in zip(*columns, strict=True):
        rows.setdefault(space, []).append((key, (event_id, case_id)))
    return rows


def _write_folder(
    folder: Path, files: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stage = folder / ".stage"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    sums = {name: _write_file(stage / name, content) for name, content in files.items()}
    manifest = json.dumps({"facts": dict(facts), "files": sums}, indent=1)
    _write_file(stage / _MANIFEST, manifest.encode())
    name = f"snapshot-{_newest_number(folder) + 1:08d}"
    stage.rename(folder / name)
    pointer = folder / ".current.new"
    _write_file(pointer, json.dumps({"snapshot": name}).encode())
    pointer.replace(folder / _CURRENT)
    _sync_folder(folder)
    for old in folder.glob("snapshot-*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    name = json.loads((folder / _CURRENT).read_text())["snapshot"]
    manifest = json.loads((folder / name / _MANIFEST).read_text())
    facts = manifest["facts"]
    if facts["layout"] != _LAYOUT:
        msg = f"its layout is {facts['layout']}, this version reads {_LAYOUT}"
        raise ValueError(msg)
    files = {
        file: _read_file(folder / name / file, sha256)
        for file, sha256 in manifest["files"].items()
    }
    return facts, files


def _write_file(path: Path, content: Any) -> str:
    """Write to the disk itself; returns the SHA-256 of the content."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def _read_file(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        msg = f"{path.name} was altered or cut: its SHA-256 is not the recorded one"
        raise ValueError(msg)
    return content


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _newest_number(folder: Path) -> int:
    return max(
        (int(p.name.split("-")[1]) for p in folder.glob("snapshot-*")), default=0
    )
