import json
import shutil

import pytest

from automl.registry import ArtefactError, Registry
from pipelines import publish as module
from pipelines.publish import announce, publish


@pytest.fixture
def announced(monkeypatch):
    sent = []

    class Sending:
        def __init__(self, bootstrap):
            assert bootstrap == "b:1"

        def send(self, topic, value, *, key):
            sent.append((topic, key, json.loads(value)))

        def flush(self):
            sent.append("flushed")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(module, "Producer", Sending)
    return sent


@pytest.fixture
def copy(registry, tmp_path):
    shutil.copytree(registry.root, tmp_path / "models")
    return Registry(tmp_path / "models")


def test_a_published_version_is_champion_and_announced(copy, announced):
    version = copy.get("tiny", 2)
    publish(copy, version, "b:1", prefix="run.")
    assert copy.champion("tiny").version == 2
    told = {"name": "tiny", "version": 2, "folder": str(version.folder.resolve())}
    assert announced == [("run.models", "tiny", told), "flushed"]


def test_an_altered_version_changes_nothing(copy, announced):
    version = copy.get("tiny", 2)
    (version.folder / "tree.txt").write_text("tree\n")
    with pytest.raises(ArtefactError, match=r"tree\.txt: altered or cut short"):
        publish(copy, version, "b:1")
    assert copy.champion("tiny").version == 1
    assert announced == []


def test_announcing_alone_leaves_the_champion(copy, announced):
    announce(copy.get("tiny", 2), "b:1")
    assert copy.champion("tiny").version == 1
    assert announced[0][0] == "models"
