import dataclasses

import pytest

from pipelines.config import ConfigError, JobConfig


@pytest.fixture
def given(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    return {"bootstrap": "127.0.0.1:9092", "model_folder": str(tmp_path)}


def test_settings_come_back_from_their_file(given, tmp_path):
    config = JobConfig(**given, prefix="run.", nodes=2, shards=4, batch_wait_ms=7)
    config.write(tmp_path / "job.json")
    assert JobConfig.read(tmp_path / "job.json") == config
    assert JobConfig.from_dict(dataclasses.asdict(config)) == config


def test_topics_carry_the_prefix(given):
    assert JobConfig(**given, prefix="run.").topic("decisions") == "run.decisions"
    assert JobConfig(**given).topic("decisions") == "decisions"


@pytest.mark.parametrize(
    ("key", "near"), [("node", "nodes"), ("batch_row", "batch_rows"), ("xyz", "")]
)
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(given, key, near):
    with pytest.raises(ConfigError, match=f"{key}: unknown setting; .* '{near}"):
        JobConfig.from_dict({**given, key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [("nodes", 0), ("shards", -1), ("batch_rows", "16"), ("checkpoint_ms", 1.5)],
)
def test_a_wrong_value_is_named(given, key, value):
    with pytest.raises(ConfigError, match=f"{key}: .*above 0, got {value!r}"):
        JobConfig.from_dict({**given, key: value})


def test_there_cannot_be_more_nodes_than_shards(given):
    with pytest.raises(ConfigError, match="nodes: 5 is more than the 4 shards"):
        JobConfig(**given, nodes=5, shards=4)


def test_a_missing_setting_is_named(given):
    del given["bootstrap"]
    with pytest.raises(ConfigError, match="bootstrap"):
        JobConfig.from_dict(given)


def test_a_folder_without_a_model_says_how_to_get_one(given, tmp_path):
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"no manifest\.json; train .* sluice train"):
        JobConfig(**given)
