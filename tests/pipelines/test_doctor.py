"""The doctor: each finding says what was seen and, when it is amiss, what to do."""

import argparse
import json

import pytest

from pipelines import doctor
from pipelines.commands import doctor as command


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_402"', 8),
        ("not a java", None),
    ],
)
def test_the_java_version_is_read_from_what_it_prints(printed, version):
    assert doctor.java_version(printed) == version


def test_this_environment_has_python_and_the_packages(tmp_path):
    found = {f.what: f for f in doctor.examine(tmp_path, tmp_path)}
    assert found["Python 3.11"].ok
    assert found["Python packages"].ok
    assert all(finding.ok or finding.remedy for finding in found.values())


def test_absent_tools_and_jars_come_with_their_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {f.what: f for f in doctor.examine(tmp_path, tmp_path)}
    assert not found["Java 17 or later"].ok
    assert "openjdk-17-jre-headless" in found["Java 17 or later"].remedy
    assert not found["Maven"].ok
    assert "apt-get install maven" in found["Maven"].remedy
    assert found["Java jars"].seen.startswith("0 of 47")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    required = ["numpy>=2", "no-such-package>=1", 'mypy>=1; extra == "dev"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: required)
    found = {f.what: f for f in doctor.examine(tmp_path, tmp_path)}
    assert found["Python packages"].seen == "missing: no-such-package"


def test_the_command_prints_one_line_of_json_and_fails_when_amiss(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.run(argparse.Namespace(home=tmp_path, json=True)) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert {finding["what"] for finding in answer["findings"]} >= {"memory", "disk"}
