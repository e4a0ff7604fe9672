from __future__ import annotations

import json

import pytest

from benchmarks import encode
from benchmarks.cpu import ThreadClock, _name_and_ticks
from pipelines import cli

RAW = {"events_per_s": 500.0, "decode_us": 400.0, "encode_us": 1500.0}
KAFKA = {"us_per_event": 50.0, "client_us": 20.0, "broker_us": 30.0}
JOB = {
    "events": 9000,
    "missing": 0,
    "dead": 0,
    "events_per_s": 900.0,
    "other_cores": 0.02,
    "cpu_us_per_event": {"read_us": 50.0, "encode_us": 1550.0, "decode_us": 400.0},
}


class SomeRig:
    """Stands where a stack and a job would be."""

    def __init__(self, config, say):
        self.folder, self.config = None, config
        self.counts = iter([0, 0, 0, 0, 100, 40, 0, 0, 0, 0, 2148, 1832])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, modality, count, *, payloads=None):
        return {**JOB, "events": count}

    def counted(self, name):
        return next(self.counts)

    def restarts(self):
        return 0

    def node_pids(self):
        return {"tm-1": 1, "tm-2": 2}


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(encode, "EncodeRig", SomeRig)
    monkeypatch.setattr(encode, "METRICS_S", 0.0)
    shares = encode.share_of_bound(JOB, RAW, RAW, KAFKA)
    monkeypatch.setattr(
        encode,
        "_one",
        lambda rig, m, say: encode.median_of(
            [{**JOB, **shares, "share_in_calls": 0.85}]
        ),
    )
    plan = {"model_mb": 150, "fixed": {"jvm_limits_mb": 1376}, "planned_mb": 3052}
    monkeypatch.setattr(encode, "planned", lambda *given: plan)
    sizes = {"node_mb": 900, "decode_mb": 50}
    monkeypatch.setattr(encode, "resident_mb", lambda pid: sizes)


def test_the_bound_is_two_cores_on_decoding_encoding_and_kafka():
    found = encode.share_of_bound(JOB, RAW, {**RAW, "events_per_s": 300.0}, KAFKA)
    assert found["raw_forward_per_s"] == 400.0
    assert found["bound_events_per_s"] == round(2 / (1 / 400 + 50e-6), 1)
    assert found["share_of_bound"] == round(900 / (2 / 0.00255), 3)
    assert found["share_of_bound_in_cpu"] == round(1950 / 2000, 3)


def test_the_round_with_the_median_share_is_told_and_losses_of_all():
    rounds = [
        {**JOB, "events_per_s": rate, "share_of_bound": share, "missing": 1}
        | {"share_in_calls": share - 0.1}
        for rate, share in ((900.0, 0.9), (700.0, 0.75), (800.0, 1.0))
    ]
    found = encode.median_of(rounds)
    assert (found["events_per_s"], found["share_of_bound"]) == (900.0, 0.9)
    assert (found["shares"], found["missing"]) == ([0.9, 0.75, 1.0], 3)
    assert found["shares_in_calls"] == [0.8, 0.65, 0.9]
    assert found["share_in_calls"] == 0.8


def test_the_line_of_json_holds_what_is_asked_of_it(measured, tmp_path, capsys):
    given = ["bench", "--encode", "--json", "--quick", "--home", str(tmp_path)]
    assert cli.main(given) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["encode"]) == {"text", "image", "audio"}
    for run in found["encode"].values():
        assert {"events_per_s", "raw_forward_per_s", "share_of_bound"} <= set(run)
        assert set(run["cpu_us_per_event"]) >= {"read_us", "decode_us", "encode_us"}
    assert found["cache"]["encoded"] == 256
    assert found["cache"]["hit_rate"] == 0.875
    assert found["memory"]["resident_mb"] == 1900
    assert found["memory"]["planned_mb"] == 3052


def test_the_table_shows_the_same_numbers(measured, tmp_path, capsys):
    assert cli.main(["bench", "--encode", "--home", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "256 of 2048 events of 256 payloads were encoded" in shown
    assert "900.0 events/s" in shown
    assert "other processes were at work" not in shown


def test_a_busy_machine_is_told(measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(JOB, "other_cores", 0.8)
    cli.main(["bench", "--encode", "--home", str(tmp_path)])
    assert "other processes were at work" in capsys.readouterr().out


def test_threads_are_told_apart_by_their_names():
    stat = "7 (encode (1/2)#0) S " + " ".join(str(n) for n in range(4, 40))
    assert _name_and_ticks(stat) == ("encode (1/2)#0", 14 + 15)
    import os

    assert ThreadClock([os.getpid()], {"python": "all"}).seconds().keys() == {
        "all",
        "children",
        "rest",
    }
