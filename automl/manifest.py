"""What a model version is made of: its manifest, read and verified.

ArtefactError (a version folder is not what its manifest says, or a name is unusable)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST_FILE = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArtefactError(Exception):
    """A stored model cannot be trusted or found: the message names file and reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a model version is made of.

    Attributes:
        name: the model's name.
        version: 1, 2, ...
        parent: the version it was retrained from, or None.
        created_at: RFC 3339 time, UTC.
        task: the task file it was fitted for.
        features: feature names in the order of a row.
        width: width of the embeddings.
        modalities: modalities it takes, in mask order.
        fingerprints: modality to the fingerprint of its encoder.
        threshold: a score at or above it is an alert.
        prior_logit: log-odds used when the tabular part is missing.
        metrics: figures measured when it was fitted.
        files: relative path to SHA-256, of every file but the manifest.
        reliability: how far a modality, or a pair of them ("image+audio"), was trusted
            by the latest labels, 0..1; in full where none is given.
    """

    name: str
    version: int
    parent: int | None
    created_at: str
    task: dict[str, Any]
    features: tuple[str, ...]
    width: int
    modalities: tuple[str, ...]
    fingerprints: dict[str, str]
    threshold: float
    prior_logit: float
    metrics: dict[str, Any]
    files: dict[str, str]
    reliability: dict[str, float] = field(default_factory=dict)


def sha256(path: Path) -> str:
    """Gives the SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Gives every entry below a folder that is not itself a plain folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix(), path


def load_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest of a version folder; not yet its files.

    Raises:
        ArtefactError: missing, not JSON, a key missing, unknown or of another type,
            or a file name that leaves the folder.
    """
    path = folder / MANIFEST_FILE
    try:
        given = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        msg = f"read manifest: {path}: {error}"
        raise ArtefactError(msg) from error
    if not isinstance(given, dict):
        msg = f"read manifest: {path}: expected an object, got {type(given).__name__}"
        raise ArtefactError(msg)
    known = {one.name for one in fields(Manifest)}
    given.setdefault("reliability", {})  # versions older than it
    for word, keys in (("unknown", given.keys() - known), ("no", known - given.keys())):
        if keys:
            msg = f"read manifest: {path}: {word} key '{min(keys)}'"
            raise ArtefactError(msg)
    for key, kinds in _KINDS.items():
        value = given[key]
        if not isinstance(value, kinds) or isinstance(value, bool):
            msg = f"read manifest: {path}: '{key}' holds {value!r}"
            raise ArtefactError(msg)
    for key in ("features", "modalities"):
        if not all(isinstance(item, str) for item in given[key]):
            msg = f"read manifest: {path}: '{key}' must list names"
            raise ArtefactError(msg)
    for name, weight in given["reliability"].items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            msg = f"read manifest: {path}: reliability of '{name}' is {weight!r}"
            raise ArtefactError(msg)
    for name, digest in given["files"].items():
        _check_file_name(path, name)
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            msg = f"read manifest: {path}: '{name}' has no SHA-256 but {digest!r}"
            raise ArtefactError(msg)
    return Manifest(
        **given
        | {key: tuple(given[key]) for key in ("features", "modalities")}
        | {key: float(given[key]) for key in ("threshold", "prior_logit")}
    )


_KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "version": int,
    "parent": (int, type(None)),
    "created_at": str,
    "task": dict,
    "features": list,
    "width": int,
    "modalities": list,
    "fingerprints": dict,
    "threshold": (int, float),
    "prior_logit": (int, float),
    "metrics": dict,
    "files": dict,
    "reliability": dict,
}


def _check_file_name(manifest: Path, name: str) -> None:
    pure = PurePosixPath(name)
    if (
        not name
        or pure.is_absolute()
        or "\\" in name
        or "\0" in name
        or pure.as_posix() != name
        or ".." in pure.parts
        or name == MANIFEST_FILE
    ):
        msg = f"read manifest: {manifest}: file name {name!r} leaves the folder"
        raise ArtefactError(msg)


def verify(folder: Path) -> Manifest:
    """Checks a version folder against its manifest, byte for byte.

    Raises:
        ArtefactError: naming the file that is missing, altered, extra or no plain file.
    """
    manifest = load_manifest(folder)
    held = dict(files_in(folder))
    held.pop(MANIFEST_FILE, None)
    for name, digest in sorted(manifest.files.items()):
        if name not in held:
            msg = f"verify: {folder / name}: missing"
            raise ArtefactError(msg)
        if held[name].is_symlink() or not held[name].is_file():
            msg = f"verify: {folder / name}: not a plain file"
            raise ArtefactError(msg)
        found = sha256(held[name])
        if found != digest:
            msg = (
                f"verify: {folder / name}: altered or cut short: SHA-256 {found}"
                f" instead of {digest}"
            )
            raise ArtefactError(msg)
    for name in sorted(held.keys() - manifest.files.keys()):
        msg = f"verify: {folder / name}: extra file, the manifest does not list it"
        raise ArtefactError(msg)
    return manifest
