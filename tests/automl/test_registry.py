import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from automl.registry import ArtefactError, ModelVersion, Registry, load_manifest, verify

FIELDS: dict[str, Any] = {
    "parent": None,
    "task": {"name": "fraud"},
    "features": ["amount", "night"],
    "width": 128,
    "modalities": ["tabular", "text", "image", "audio"],
    "fingerprints": {"text": "0123456789abcdef"},
    "threshold": 0.5,
    "prior_logit": -4.75,
    "metrics": {"ap": 0.7},
    "created_at": "2026-01-02T03:04:05Z",
}


def staged(folder: Path, word: str = "tree") -> Path:
    (folder / "fusion").mkdir(parents=True)
    (folder / "tree.txt").write_text(word)
    rows = np.arange(64, dtype=np.float32)
    save_file({"own": rows}, folder / "fusion" / "weights.safetensors")
    return folder


def saved(tmp_path: Path, word: str = "tree") -> ModelVersion:
    stage = staged(tmp_path / f"stage-{word}", word)
    return Registry(tmp_path / "models").save("fraud", stage, **FIELDS)


def test_versions_count_up_and_say_what_they_hold(tmp_path: Path) -> None:
    first, second = saved(tmp_path), saved(tmp_path, "other")
    assert [first.folder.name, second.folder.name] == ["v0001", "v0002"]
    manifest = verify(first.folder)
    assert manifest == first.manifest
    assert sorted(manifest.files) == ["fusion/weights.safetensors", "tree.txt"]
    # echo -n tree | sha256sum
    assert manifest.files["tree.txt"] == (
        "dc9c5edb8b2d479e697b4b0b8ab874f32b325138598ce9e7b759eb8292110622"
    )
    assert manifest.features == ("amount", "night")
    assert Registry(tmp_path / "models").list("fraud") == [first, second]
    assert Registry(tmp_path / "models").names() == ("fraud",)


def test_the_next_version_is_like_its_parent_but_for_the_changes(
    tmp_path: Path,
) -> None:
    parent = saved(tmp_path)
    stage = staged(tmp_path / "stage-next", "other")
    child = Registry(tmp_path / "models").save_next(
        parent.manifest, stage, metrics={}, created_at="2026-02-03", threshold=0.25
    )
    assert (child.name, child.version, child.manifest.parent) == ("fraud", 2, 1)
    assert verify(child.folder) == replace(
        parent.manifest,
        version=2,
        parent=1,
        metrics={},
        created_at="2026-02-03",
        threshold=0.25,
        files=child.manifest.files,
    )
    assert child.manifest.files != parent.manifest.files


def test_the_stage_is_left_and_nothing_else_lies_in_the_home(tmp_path: Path) -> None:
    version = saved(tmp_path)
    assert (tmp_path / "stage-tree" / "tree.txt").read_text() == "tree"
    kept = {path.name for path in version.folder.parent.iterdir()}
    assert kept == {"v0001", ".lock"}


def test_a_flipped_byte_in_weights_is_refused_by_name(tmp_path: Path) -> None:
    folder = saved(tmp_path).folder
    path = folder / "fusion" / "weights.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ArtefactError, match=r"weights\.safetensors: altered"):
        verify(folder)


def test_missing_cut_and_extra_files_are_refused_by_name(tmp_path: Path) -> None:
    folder = saved(tmp_path).folder
    (folder / "more.txt").write_text("x")
    with pytest.raises(ArtefactError, match=r"more\.txt: extra"):
        verify(folder)
    (folder / "more.txt").unlink()
    (folder / "tree.txt").write_text("tre")
    with pytest.raises(ArtefactError, match=r"tree\.txt: altered or cut"):
        verify(folder)
    (folder / "tree.txt").unlink()
    with pytest.raises(ArtefactError, match=r"tree\.txt: missing"):
        verify(folder)


def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path).folder
    (folder / "tree.txt").rename(tmp_path / "tree.txt")
    (folder / "tree.txt").symlink_to(tmp_path / "tree.txt")
    with pytest.raises(ArtefactError, match="not a plain file"):
        verify(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"width": None}, "no key 'width'"),
        ({"width": "128"}, "'width' holds '128'"),
        ({"version": True}, "'version' holds True"),
        ({"features": [1]}, "must list names"),
        ({"files": {"../tree.txt": "0" * 64}}, "leaves the folder"),
        ({"files": {"/etc/hosts": "0" * 64}}, "leaves the folder"),
        ({"files": {"a/../../b": "0" * 64}}, "leaves the folder"),
        ({"files": {"a\\b": "0" * 64}}, "leaves the folder"),
        ({"files": {"tree.txt": "abc"}}, "no SHA-256"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    folder = saved(tmp_path).folder
    path = folder / "manifest.json"
    given = json.loads(path.read_text()) | change
    given = {key: value for key, value in given.items() if value is not None}
    given.setdefault("parent", None)
    path.write_text(json.dumps(given))
    with pytest.raises(ArtefactError, match=rf"manifest\.json.*{reason}"):
        verify(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"name": "fraud"', "\xff"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    folder = saved(tmp_path).folder
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ArtefactError, match=r"manifest\.json"):
        load_manifest(folder)


def test_promote_and_roll_back(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    assert registry.champion("fraud") is None
    first, second = saved(tmp_path), saved(tmp_path, "other")
    registry.promote("fraud", 1)
    registry.promote("fraud", 2)
    assert registry.champion("fraud") == second
    assert registry.rollback("fraud") == first
    assert registry.champion("fraud") == first
    with pytest.raises(ArtefactError, match="no champion before"):
        registry.rollback("fraud")
    alias = json.loads((tmp_path / "models/fraud/champion.json").read_text())
    assert alias["version"] == 1


def test_an_altered_version_is_never_promoted(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    saved(tmp_path)
    bad = saved(tmp_path, "other")
    registry.promote("fraud", 1)
    (bad.folder / "tree.txt").write_text("worse")
    with pytest.raises(ArtefactError, match="altered"):
        registry.promote("fraud", 2)
    found = registry.champion("fraud")
    assert found is not None
    assert found.version == 1
    with pytest.raises(ArtefactError, match=r"no such version; known: \[1, 2\]"):
        registry.promote("fraud", 7)


def test_savers_at_once_get_a_version_each(tmp_path: Path) -> None:
    stage = staged(tmp_path / "stage")
    versions: list[int] = []

    def save() -> None:
        version = Registry(tmp_path / "models").save("fraud", stage, **FIELDS)
        versions.append(version.version)

    threads = [threading.Thread(target=save) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == list(range(1, 9))
    for version in Registry(tmp_path / "models").list("fraud"):
        verify(version.folder)


def test_a_failed_save_leaves_no_trace(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    stage = staged(tmp_path / "stage")
    with pytest.raises(ValueError, match="JSON"):
        registry.save("fraud", stage, **(FIELDS | {"metrics": {"ap": float("nan")}}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtefactError, match="holds no files"):
        registry.save("fraud", tmp_path / "empty", **FIELDS)
    (stage / "link").symlink_to("/etc/hosts")
    with pytest.raises(ArtefactError, match="not a plain file"):
        registry.save("fraud", stage, **FIELDS)
    assert registry.list("fraud") == []
    assert {path.name for path in (tmp_path / "models/fraud").iterdir()} <= {".lock"}


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtefactError, match="model name"):
        Registry(tmp_path).champion(name)
