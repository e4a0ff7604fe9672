"""Versions of a model on disk: save, promote, roll back, list.

ROOT/NAME/v0001/manifest.json   what the version is, with the SHA-256 of its files
ROOT/NAME/v0001/...             weights, as `save` was given them
ROOT/NAME/champion.json         the serving alias: version and the ones before it
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automl.manifest import (
    MANIFEST_FILE,
    ArtefactError,
    Manifest,
    files_in,
    load_manifest,
    sha256,
    verify,
)

__all__ = [
    "ArtefactError",
    "Manifest",
    "ModelVersion",
    "Registry",
    "load_manifest",
    "verify",
]

CHAMPION_FILE = "champion.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"v(\d{4,9})")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """A stored version: where it lies and what its manifest says."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """The version's number."""
        return self.manifest.version


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file that is whole or not there, even after a crash."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Registry:
    """Stored model versions below one folder; safe for several processes at once.

    Args:
        root: made when it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def save(
        self,
        name: str,
        stage: Path,
        *,
        parent: int | None,
        task: Mapping[str, Any],
        features: Sequence[str],
        width: int,
        modalities: Sequence[str],
        fingerprints: Mapping[str, str],
        threshold: float,
        prior_logit: float,
        metrics: Mapping[str, Any],
        created_at: str,
        reliability: Mapping[str, float] | None = None,
    ) -> ModelVersion:
        """Copies a folder of files into the next version, whole or not at all.

        The name is of letters, digits, `.`, `_`, `-`; the stage is left as it is; for
        the rest see Manifest.

        Raises:
            ArtefactError: the name is unusable, or the stage holds no plain files.
        """
        home = self._home(name)
        home.mkdir(parents=True, exist_ok=True)
        copy = Path(tempfile.mkdtemp(dir=home, prefix=".stage-"))
        try:
            files = _copy_stage(stage, copy)
            with self._locked(name):
                version = max((v for v, _ in self._versions(name)), default=0) + 1
                manifest = Manifest(
                    name=name,
                    version=version,
                    parent=parent,
                    created_at=created_at,
                    task=dict(task),
                    features=tuple(features),
                    width=width,
                    modalities=tuple(modalities),
                    fingerprints=dict(fingerprints),
                    threshold=float(threshold),
                    prior_logit=float(prior_logit),
                    metrics=dict(metrics),
                    files=files,
                    reliability=dict(reliability or {}),
                )
                _write_json(copy / MANIFEST_FILE, asdict(manifest))
                verify(copy)
                copy.chmod(0o755)
                folder = home / f"v{version:04d}"
                copy.rename(folder)
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)
            raise
        return ModelVersion(folder=folder, manifest=load_manifest(folder))

    def save_next(
        self,
        parent: Manifest,
        stage: Path,
        *,
        metrics: Mapping[str, Any],
        created_at: str,
        **changes: Any,
    ) -> ModelVersion:
        """Saves a stage as a child of `parent`, like it but for what is given here."""
        given = asdict(parent) | {"parent": parent.version} | changes
        given |= {"metrics": metrics, "created_at": created_at}
        del given["version"], given["files"]
        return self.save(stage=stage, **given)

    def get(self, name: str, version: int) -> ModelVersion:
        """Gives one version; its files are not verified yet."""
        folder = self._home(name) / f"v{version:04d}"
        if not folder.is_dir():
            known = [v for v, _ in self._versions(name)]
            msg = f"registry: {folder}: no such version; known: {known}"
            raise ArtefactError(msg)
        manifest = load_manifest(folder)
        if (manifest.name, manifest.version) != (name, version):
            msg = (
                f"registry: {folder / MANIFEST_FILE}: says it is {manifest.name}"
                f" version {manifest.version}"
            )
            raise ArtefactError(msg)
        return ModelVersion(folder=folder, manifest=manifest)

    def list(self, name: str) -> list[ModelVersion]:
        """Gives every version of a model, oldest first."""
        return [self.get(name, version) for version, _ in self._versions(name)]

    def names(self) -> tuple[str, ...]:
        """Gives the names of the stored models, sorted."""
        if not self.root.is_dir():
            return ()
        return tuple(
            sorted(
                path.name
                for path in self.root.iterdir()
                if _NAME.fullmatch(path.name) and self._versions(path.name)
            )
        )

    def champion(self, name: str) -> ModelVersion | None:
        """Gives the serving version, or None when none was promoted."""
        history = self._history(name)
        return self.get(name, history[-1]) if history else None

    def promote(self, name: str, version: int) -> ModelVersion:
        """Makes a version the champion, after verifying its files."""
        chosen = self.get(name, version)
        verify(chosen.folder)
        with self._locked(name):
            history = [v for v in self._history(name) if v != version]
            self._set_history(name, [*history, version])
        return chosen

    def rollback(self, name: str) -> ModelVersion:
        """Makes the champion before this one the champion again.

        Raises:
            ArtefactError: there is none, or its files cannot be trusted.
        """
        with self._locked(name):
            history = self._history(name)
            if len(history) < 2:
                msg = f"rollback: {name}: no champion before this one"
                raise ArtefactError(msg)
            earlier = self.get(name, history[-2])
            verify(earlier.folder)
            self._set_history(name, history[:-1])
        return earlier

    def _home(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            msg = f"registry: model name {name!r} is not of A-Z a-z 0-9 . _ -"
            raise ArtefactError(msg)
        return self.root / name

    def _versions(self, name: str) -> tuple[tuple[int, Path], ...]:
        home = self._home(name)
        if not home.is_dir():
            return ()
        found = (
            (int(match[1]), path)
            for path in home.iterdir()
            if (match := _VERSION.fullmatch(path.name)) and path.is_dir()
        )
        return tuple(sorted(found))

    def _history(self, name: str) -> tuple[int, ...]:
        path = self._home(name) / CHAMPION_FILE
        if not path.exists():
            return ()
        try:
            given = json.loads(path.read_bytes())
            history = (*given["earlier"], given["version"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"registry: {path}: {error!r}"
            raise ArtefactError(msg) from error
        if not all(isinstance(version, int) for version in history):
            msg = f"registry: {path}: versions must be whole numbers, got {history}"
            raise ArtefactError(msg)
        return history

    def _set_history(self, name: str, history: Sequence[int]) -> None:
        alias = {"version": history[-1], "earlier": list(history[:-1])}
        _write_json(self._home(name) / CHAMPION_FILE, alias)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Holds the model's lock against other threads and processes."""
        home = self._home(name)
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _copy_stage(stage: Path, copy: Path) -> dict[str, str]:
    """Copies the files of a stage; gives their names and SHA-256."""
    files: dict[str, str] = {}
    for name, path in files_in(stage):
        if path.is_symlink() or not path.is_file():
            msg = f"save: {path}: not a plain file"
            raise ArtefactError(msg)
        if name == MANIFEST_FILE:
            msg = f"save: {path}: the registry writes the manifest itself"
            raise ArtefactError(msg)
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        files[name] = sha256(target)
    if not files:
        msg = f"save: {stage}: holds no files"
        raise ArtefactError(msg)
    return files
