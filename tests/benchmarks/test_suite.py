from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import report, state, suite
from benchmarks.beside import bound, decisions_value
from benchmarks.driver import Phase
from benchmarks.rig import Run
from benchmarks.state import flatness
from benchmarks.throughput import is_steady
from connectors.codec import decode_frame
from pipelines import cli

LATENCY = {"p50": 5.0, "p95": 8.0, "p99": 12.0, "p999": 20.0, "max": 31.0, "missing": 0}
HELD = {
    "events_per_s": 100_000,
    "held_s": 60.0,
    "drained_events_per_s": 110_000,
    "tried": [],
    "missing": 0,
    "latency_ms": {},
    "cpu_s_per_event": 1.8e-5,
    "cpu_us_per_event": {"broker": 3.0, "tm-1": 15.0},
}
LOOPS = {
    "a": {"events": 9, "events_per_s": 400_000, "cpu_us_per_event": 2.5},
    "b": {"events": 9, "events_per_s": 30_000, "cpu_us_per_event": 31.0},
    "c": {"events": 9, "events_per_s": 8_000, "cpu_us_per_event": 110.0},
    "kafka_alone": {"events": 9, "cpu_us_per_event": 1.5},
    "note": "no recovery",
}


class SomeRig:
    """Stands where a stack and a job would be."""

    local = folder = None

    def __init__(self, config, say):
        self.closed = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True

    def close(self):
        assert self.closed

    def restarts(self):
        return 0

    def settings(self):
        return {"nodes": 1, "shards": 16, "checkpoint_ms": 10_000}


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(suite, "Rig", SomeRig)
    monkeypatch.setattr(suite, "warm_up", lambda *given: None)
    monkeypatch.setattr(suite, "latency", lambda *given, **more: dict(LATENCY))
    monkeypatch.setattr(
        suite, "sustained", lambda rig, times, form, say: {**HELD, "form": form}
    )
    monkeypatch.setattr(suite, "loops_beside", lambda *given, **more: LOOPS)
    sizes = {"entities": 5, "bytes_per_row": 66.0}
    grown = {"samples": [{"events": 5}], "rows_growth": 0.0}
    answers = {state.state_of: sizes, state.growth: grown}
    monkeypatch.setattr(suite, "alone", lambda run, *given: answers[run])


def test_the_line_of_json_holds_what_is_asked_of_it(measured, tmp_path, capsys):
    assert cli.main(["bench", "--json", "--home", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    found = json.loads(lines[0])
    assert found["frames_events_per_s"] == found["json_events_per_s"] == 100_000
    assert found["loop_events_per_s"] == 30_000
    assert found["bound_events_per_s"] == 500_000
    assert found["share_of_bound"] == 0.2
    assert found["json_share_of_loop"] == pytest.approx(3.333)
    assert set(found["latency_ms"]) == {"1000", "20000", "20000_hot"}
    assert {"p50", "p95", "p99", "p999", "max"} <= set(found["latency_ms"]["1000"])
    assert found["cpu_s_per_event"] == 1.8e-5
    assert set(found["loops"]) >= {"a", "b", "c"}
    assert {"warm_s", "frame_rows", "nodes", "shards"} <= set(found["settings"])
    assert found["cpu"]


def test_the_table_shows_the_same_numbers(measured, tmp_path, capsys):
    assert cli.main(["bench", "--home", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for number in ("100,000 events/s", "30,000 events/s", "p99 12.0 ms", "500,000"):
        assert number in shown


def test_one_part_alone(measured, tmp_path, capsys):
    assert cli.main(["bench", "--json", "--only", "json", "--home", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "json_events_per_s" in found
    assert "frames_events_per_s" not in found
    assert report.table(found)


def test_missing_decisions_are_a_failure(measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(suite, "sustained", lambda *given: {**HELD, "missing": 3})
    given = ["bench", "--only", "throughput", "--home", str(tmp_path)]
    assert cli.main(given) == 1
    assert "missing: 3" in capsys.readouterr().out


def a_run(lag_per_s: float, *, seconds: float = 30.0, missing: int = 0) -> Run:
    phase = Phase(seconds=30.0, rate=1_000)
    samples = [
        (float(s), 1_000 * s, int((1_000 - lag_per_s) * s)) for s in range(int(seconds))
    ]
    return Run(
        phase=phase,
        sent=int(1_000 * seconds),
        missing=missing,
        samples=samples,
        latencies_ms=np.empty(0, np.int64),
        cpu_s={"broker": 0.3},
    )


def test_a_rate_is_held_when_the_lag_stays_and_nothing_is_missing():
    assert is_steady(a_run(0.0))
    assert not is_steady(a_run(20.0))
    assert not is_steady(a_run(0.0, missing=1))
    assert not is_steady(a_run(0.0, seconds=12.0))  # given up


def test_cpu_is_told_by_event_and_process():
    assert a_run(0.0).cpu_us_per_event() == {"broker": 10.0}


def test_frames_are_sent_at_five_milliseconds_or_512_rows():
    rows = [Phase(seconds=1, rate=rate).step_rows for rate in (10, 1_000, 20_000, 2e5)]
    assert rows == [1, 5, 100, 512]
    assert Phase(seconds=1).step_rows == 512


def test_the_bound_is_both_cores_on_features_trees_and_kafka():
    assert bound(LOOPS) == 500_000


def test_a_frame_of_decisions_has_as_many_rows_as_one_of_events():
    assert decode_frame(decisions_value(7)).num_rows == 7


def test_growth_counts_from_where_the_longest_window_is_full():
    sizes = [(100_000, 10), (400_000, 100), (800_000, 110), (5_000_000, 110)]
    samples = [
        {"events": events, "rows": n, "bytes": n, "resident_bytes": n}
        for events, n in sizes
    ]
    assert flatness(samples)["rows_growth"] == 0.0
    assert flatness(samples[:2]) == {}
