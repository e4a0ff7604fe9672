import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.archive import Archive, write_archive
from connectors.records import DeadLetter, Place
from connectors.schemas import DEAD_LETTERS, TIME
from pipelines.cli import main

START_MS = 1_760_000_000_000
ROWS = 200
TASK = {
    "name": "tiny",
    "entities": {"card": "card"},
    "features": [
        {"name": "n", "entity": "card", "agg": "count", "window": "1h"},
        {"name": "risk", "entity": "card", "agg": "count", "column": "label"}
        | {"window": "1h"},
        "amount",
    ],
}


@pytest.fixture
def sluice(tmp_path, capsys):
    """Runs `sluice` in a folder with an archive; gives exit code, stdout, stderr."""
    times = START_MS + 60_000 * np.arange(ROWS)
    ids = [f"e{i:03d}" for i in range(ROWS)]
    events = pa.table(
        {
            "event_id": ids,
            "case_id": ids,
            "event_time": pa.array(times).cast(TIME),
            "card": [f"c{i % 3}" for i in range(ROWS)],
            "amount": np.arange(ROWS) / 7,
        }
    )
    labels = {"case_id": ids, "label_time": pa.array(times + 600_000).cast(TIME)}
    labels["label"] = pa.array([1] * ROWS, pa.int8())
    archive = Archive(tables={"tabular": events}, labels=pa.table(labels))
    write_archive(tmp_path / "archive", archive)
    (tmp_path / "task.json").write_text(json.dumps(TASK))

    def run(command, *more):
        where = [
            "--home",
            str(tmp_path / "home"),
            "--task",
            str(tmp_path / "task.json"),
        ]
        code = main([command, *where, *map(str, more)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def served(sluice, tmp_path):
    """What `sluice features` made: a stream without a fault serves the same."""
    file = tmp_path / "served.parquet"
    assert sluice("features", tmp_path / "archive", "--out", file)[0] == 0
    return file


def test_what_the_backfill_gives_passes(sluice, served, tmp_path):
    code, out, _ = sluice("skew", tmp_path / "archive", "--served", served, "--json")
    found = json.loads(out)
    assert (code, found["rows"], found["differing_rows"]) == (0, ROWS, 0)
    assert found["passed"]


def test_a_bug_fails_and_is_listed(sluice, served, tmp_path):
    table = pq.read_table(served)
    values = table.column("n").to_numpy().copy()
    values[50] += 1
    at = table.column_names.index("n")
    pq.write_table(table.set_column(at, "n", pa.array(values)), served)
    listed = tmp_path / "differences.parquet"
    options = ["--served", served, "--limit", 1, "--out", listed]
    code, out, _ = sluice("skew", tmp_path / "archive", *options)
    assert code == 1
    assert "1 of 200 rows differ" in out
    assert "bug 1" in out
    (row,) = pq.read_table(listed).to_pylist()
    assert (row["event_id"], row["feature"], row["cause"]) == ("e050", "n", "bug")


def test_above_the_limit_fails_though_it_is_explained(sluice, served, tmp_path):
    pq.write_table(pq.read_table(served).slice(0, ROWS - 1), served)
    options = [tmp_path / "archive", "--served", served]
    code, out, _ = sluice("skew", *options)
    assert code == 1
    assert "missing_source 1" in out
    assert sluice("skew", *options, "--limit", "0.01")[0] == 0
    letter = DeadLetter(
        place=Place(topic="events.tabular", partition=0, offset=0),
        row=0,
        kind="late",
        reason="",
        event_id=f"e{ROWS - 1}",
        modality="tabular",
        value=b"",
    )
    row = {name: getattr(letter, name, None) for name in DEAD_LETTERS.names}
    row["topic"] = letter.place.topic
    file = tmp_path / "dead.parquet"
    pq.write_table(pa.Table.from_pylist([row], schema=DEAD_LETTERS), file)
    assert sluice("skew", *options, "--dead-letters", file)[0] == 0


def test_what_is_missing_is_said(sluice, served, tmp_path):
    code, _, err = sluice("skew", "--served", served)
    assert (code, "name the archive" in err) == (1, True)
    code, _, err = sluice("skew", "--topics")
    assert (code, "no stack runs" in err) == (1, True)
