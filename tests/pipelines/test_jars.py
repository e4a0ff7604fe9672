"""Jars: pinned by checksum, told apart, refused when altered or not to be had."""

import hashlib

import pytest

from pipelines import jars


def test_every_line_of_the_pins_is_a_jar_and_a_sha256():
    pins = jars.pins()
    assert len(pins) == 47
    assert all(name.endswith(".jar") and len(d) == 64 for name, d in pins.items())


def test_the_pins_are_of_the_versions_in_the_maven_file():
    versions = jars.versions()
    assert f"kafka_2.13-{versions['kafka']}.jar" in jars.pins()
    assert f"flink-sql-connector-kafka-{versions['connector']}.jar" in jars.pins()


def test_a_missing_and_an_altered_jar_are_named(tmp_path):
    (tmp_path / "good.jar").write_bytes(b"good")
    (tmp_path / "altered.jar").write_bytes(b"gooe")
    digest = hashlib.sha256(b"good").hexdigest()
    wanted = dict.fromkeys(("good.jar", "altered.jar", "absent.jar"), digest)
    assert jars.wrong_jars(tmp_path, wanted) == ["altered.jar", "absent.jar"]


def test_without_maven_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(jars.JarsError, match=r"mvn is not installed.*apt-get install"):
        jars.fetch(tmp_path)


def test_without_java_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(jars.JarsError, match="openjdk-17-jre-headless"):
        jars.java()


def test_a_jar_that_is_not_the_pinned_one_is_never_used(tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "mvn"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\n"
        'for a in "$@"; do case $a in -DoutputDirectory=*) d=${a#*=};; esac; done\n'
        "echo wrong > $d/one.jar\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setattr(jars, "pins", lambda: {"one.jar": "0" * 64})
    with pytest.raises(jars.JarsError, match=r"one\.jar differ from jars\.sha256"):
        jars.fetch(tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.jar"))
