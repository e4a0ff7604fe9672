from __future__ import annotations

import os

from benchmarks import encode_memory


def test_growth_compares_the_last_third_with_the_first(monkeypatch):
    sizes = iter([100, 100, 101, 102, 102, 102])
    clock = iter([0, 0, 20, 40, 60, 80, 100, 200])
    monkeypatch.setattr(encode_memory.time, "monotonic", lambda: next(clock))
    found = encode_memory.growth(lambda: next(sizes), lambda: 0, 2.0, lambda line: None)
    assert found["samples_mb"] == [100, 100, 101, 102, 102, 102]
    assert (found["growth"], found["missing"]) == (0.02, 0)


def test_a_plan_is_the_model_and_the_named_parts_once_for_each_node(monkeypatch):
    bare = {"libraries_mb": 500.2, "model_mb": 150.4}
    monkeypatch.setattr(encode_memory, "_decoding", lambda folder, call_rows: 50.0)
    monkeypatch.setattr(encode_memory, "alone", lambda run, *given, how: bare)
    found = encode_memory.planned(None, 2, 16)
    jvm_mb = encode_memory.JVM_MB + encode_memory.OVERHEAD_MB
    assert found["fixed"]["jvm_limits_mb"] == jvm_mb
    assert found["planned_mb"] == 2 * (150 + 500 + 50 + jvm_mb)


def test_a_process_without_children_decodes_nothing():
    found = encode_memory.resident_mb(os.getpid())
    assert found["node_mb"] > 10
