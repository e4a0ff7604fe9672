import dataclasses
import json

import pytest

from pipelines.config import ConfigError, JobConfig


@pytest.fixture
def given(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    return {"bootstrap": "127.0.0.1:9092", "model_folder": str(tmp_path)}


def test_settings_come_back_from_their_file(given, tmp_path):
    config = JobConfig(**given, prefix="run.", nodes=2, shards=4, batch_wait_ms=7)
    (tmp_path / "job.json").write_text(config.to_json())
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
    [
        ("nodes", 0),
        ("nodes", True),
        ("shards", -1),
        ("shards", 2**31),
        ("batch_rows", "16"),
        ("batch_wait_ms", 0),
        ("collect_wait_ms", 0),
        ("cached_vectors", -1),
        ("media_wait_ms", -1),
        ("media_wait_ms", None),
        ("case_ttl_s", 0),
        ("case_ttl_s", False),
        ("checkpoint_ms", 1.5),
        ("checkpoint_ms", 9),
    ],
)
def test_a_wrong_number_is_named(given, key, value):
    with pytest.raises(ConfigError, match=f"^{key}: .*whole number.*, got {value!r}$"):
        JobConfig.from_dict({**given, key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bootstrap", ""),
        ("bootstrap", "localhost"),
        ("bootstrap", 9092),
        ("prefix", None),
        ("prefix", "a/b"),
        ("prefix", "x" * 201),
        ("model_folder", 3),
        ("model_folder", ""),
    ],
)
def test_a_wrong_text_is_named(given, key, value):
    with pytest.raises(ConfigError, match=f"^{key}: expected .*, got {value!r}$"):
        JobConfig.from_dict({**given, key: value})


def test_several_brokers_may_be_named(given):
    given["bootstrap"] = "one:9092,two:9093"
    assert JobConfig.from_dict(given).bootstrap == "one:9092,two:9093"


def test_a_case_is_kept_longer_than_its_media_wait(given):
    assert JobConfig(**given, case_ttl_s=11, media_wait_ms=10_999)
    with pytest.raises(ConfigError, match=r"case_ttl_s: 11 s is not .* 11000 ms"):
        JobConfig(**given, case_ttl_s=11, media_wait_ms=11_000)


@pytest.mark.parametrize("text", ["{", "[]", "null", '"a"', "[" * 100_000, b"\xff"])
def test_a_file_that_holds_no_settings_is_named(tmp_path, text):
    path = tmp_path / "job.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"^read settings .*job\.json: "):
        JobConfig.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"read settings .*none\.json"):
        JobConfig.read(tmp_path / "none.json")


def test_a_wrong_value_is_named_with_its_file(given, tmp_path):
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**given, "nodes": 0}))
    with pytest.raises(ConfigError, match=r"job\.json: nodes: .* got 0"):
        JobConfig.read(path)


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
