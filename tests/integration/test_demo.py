"""The README's first command in short form: everything at once, from nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


def test_a_short_demo_accounts_for_every_event(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--json"]
    command += ["--events", "900", "--seconds", "15", "--home", str(tmp_path / "home")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    events_in = sum(found["events_in"].values())
    assert set(found["events_in"]) == {"tabular", "text", "image", "audio"}
    assert events_in == found["decided"] + found["dead_lettered"] + found["late"]
    assert (found["lost"], found["duplicated"], found["job_restarts"]) == (0, 0, 0)
    assert found["dead_lettered"] >= 5
    assert found["alerts"] >= 1
    assert found["model_versions"][0] == 1
    # the newest message is found again by its own words
    (case_id, similarity), *_ = found["search"]["hits"]
    assert similarity > 0.99
    assert case_id.startswith("live-")
    assert found["peak_rss_mb"] < 8192
