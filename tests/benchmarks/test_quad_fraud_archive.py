import json
from pathlib import Path

import pytest

from automl.task import TaskSpec
from benchmarks.quad_fraud_archive import SourceError, build_archive, main
from connectors.archive import column_kinds, read_archive

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / "shared/data", ROOT.parent / "shared/data"]
DATA = next((f for f in FOLDERS if (f / "quad-fraud").is_dir()), None)
needs_data = pytest.mark.skipif(DATA is None, reason="shared/data is not here")


@needs_data
def test_fifty_cases_become_an_archive(tmp_path, capsys):
    args = ["--data", str(DATA), "--cases", "50", "--out", str(tmp_path)]
    assert main(args) == 0
    counts = json.loads(capsys.readouterr().out)["events"]
    archive = read_archive(tmp_path)
    assert {m: t.num_rows for m, t in archive.tables.items()} == counts
    assert counts["tabular"] == archive.labels.num_rows == 50
    payments = archive.tables["tabular"]
    assert payments["case_id"].to_pylist()[0] == "499394"  # first of the test week
    kinds = column_kinds(payments)
    assert kinds["TX_AMOUNT"] == "number"
    assert kinds["CUSTOMER_ID"] == "string"
    assert not {"TX_FRAUD", "TX_FRAUD_SCENARIO", "spam"} & set(kinds)
    task = json.loads((tmp_path / "task.json").read_text())
    TaskSpec.from_json(task).resolve(kinds)
    cases = set(payments["case_id"].to_pylist())
    for modality, magic in (("image", b"\x89PNG"), ("audio", b"RIFF")):
        table = archive.tables[modality]
        assert set(table["case_id"].to_pylist()) < cases
        assert all(p.startswith(magic) for p in table["payload"].to_pylist())
    delay = archive.labels["label_time"][0].value - payments["event_time"][0].value
    assert delay == 7 * 86_400_000


@needs_data
def test_a_sample_is_drawn_over_the_whole_split_in_time_order():
    first = build_archive(DATA, split="train", cases=50)
    drawn = build_archive(DATA, split="train", cases=50, sample_seed=1)
    again = build_archive(DATA, split="train", cases=50, sample_seed=1)
    times = drawn.tables["tabular"]["event_time"].to_pylist()
    assert times == sorted(times)
    assert times[-1] > first.tables["tabular"]["event_time"].to_pylist()[-1]
    assert drawn.tables == again.tables


@needs_data
def test_with_history_all_earlier_payments_are_there_and_media_of_the_cases_alone():
    alone = build_archive(DATA, split="train", cases=50)
    found = build_archive(DATA, split="train", cases=50, history=True)
    times = found.tables["tabular"]["event_time"].to_pylist()
    assert min(times).strftime("%Y-%m-%d") == "2018-04-01"
    assert max(times) == max(alone.tables["tabular"]["event_time"].to_pylist())
    assert len(times) == found.labels.num_rows > 300_000
    assert found.tables["audio"] == alone.tables["audio"]


def test_a_missing_source_is_named(tmp_path, capsys):
    with pytest.raises(SourceError, match=r"test_links\.parquet"):
        build_archive(tmp_path, split="test")
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "no such file" in capsys.readouterr().err
