"""The short form of `sluice bench`, on a stack of its own."""

from __future__ import annotations

import json

import pytest

from pipelines import cli

pytestmark = pytest.mark.integration


def test_a_quick_run_gives_every_figure(tmp_path, capsys):
    assert cli.main(["bench", "--json", "--quick", "--home", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == 0
    assert found["job_restarts"] == 0
    assert found["loop_events_per_s"] > 0
    assert found["bound_events_per_s"] > 0
    assert set(found["latency_ms"]) == {"1000", "20000", "20000_hot"}
    assert {"frames_events_per_s", "json_events_per_s", "share_of_bound"} <= set(found)
    assert found["state"]["growth"]["samples"]
