import json

from benchmarks.fused_case import main


def test_each_part_of_a_case_has_its_cpu_time(capsys):
    assert main(["--calls", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"score", "leave_one_out", "agreement"}
    assert all(0 < one["median_ms"] <= one["p99_ms"] for one in found.values())
