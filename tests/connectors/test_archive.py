from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.archive import (
    Archive,
    ArchiveError,
    column_kinds,
    count_events,
    iter_slices,
    read_archive,
    with_created_ms,
    write_archive,
)
from connectors.schemas import TIME


def times(*ms):
    return pa.array(ms, pa.int64()).cast(TIME)


def payments(ids, ms, **columns):
    return pa.table(
        {"event_id": ids, "case_id": ids, "event_time": times(*ms), **columns}
    )


def pictures(ids, ms, payloads):
    table = payments(ids, ms)
    return table.append_column("payload", pa.array(payloads, pa.binary()))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "archive"


def write(folder, **tables):
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def test_an_archive_comes_back_as_written_sorted_by_time_then_id(folder):
    table = payments(["b", "c", "a"], [20, 10, 20], amount=[1.0, float("nan"), 3.0])
    labels = pa.table(
        {"case_id": ["a"], "label_time": times(99), "label": pa.array([1], pa.int8())}
    )
    write_archive(folder, Archive(tables={"tabular": table}, labels=labels))
    back = read_archive(folder)
    assert list(back.tables) == ["tabular"]
    assert back.tables["tabular"]["event_id"].to_pylist() == ["c", "a", "b"]
    assert np.isnan(back.tables["tabular"]["amount"][0].as_py())
    assert back.labels == labels
    assert back.events == 3
    assert count_events(folder) == {"tabular": 3}


def test_bad_single_values_stay_in(folder):
    table = pictures([None, "b"], [5, None], [b"not a picture", None])
    back = read_archive(write(folder, image=table)).tables["image"]
    assert back["event_id"].to_pylist() == [None, "b"]
    assert back["event_time"].to_pylist() == [
        datetime(1970, 1, 1, 0, 0, 0, 5000, UTC),
        None,
    ]
    assert back["payload"].to_pylist() == [b"not a picture", None]


def test_other_writers_types_are_read_as_the_same_archive(folder):
    table = pa.table(
        {
            "event_id": pa.array(["a"], pa.large_string()),
            "case_id": pa.array(["a"]).dictionary_encode(),
            "event_time": pa.array([1_000_999], pa.timestamp("us")),
            "amount": pa.array([3]).cast(pa.decimal128(30, 2)),
            "place": pa.array(["x"]).dictionary_encode(),
        }
    )
    back = read_archive(write(folder, tabular=table)).tables["tabular"]
    assert back["event_time"].cast(pa.int64()).to_pylist() == [1000]
    assert column_kinds(back) == {"amount": "number", "place": "string"}
    assert column_kinds(table) == {"amount": "number", "place": "string"}


def test_column_kinds_leaves_keys_and_untyped_columns_out():
    schema = pa.schema(
        {
            "event_id": pa.string(),
            "created_ms": pa.int64(),
            "n": pa.int16(),
            "flag": pa.bool_(),
            "tags": pa.list_(pa.string()),
        }
    )
    assert column_kinds(schema) == {"n": "number", "flag": "bool"}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (payments(["a"], [1]).drop_columns(["case_id"]), ["case_id", "missing"]),
        (payments([1], [1]), ["event_id", "int64", "string"]),
        (
            payments(["a"], [1]).set_column(2, "event_time", pa.array(["noon"])),
            ["event_time", "string", "timestamp"],
        ),
    ],
)
def test_a_wrong_column_is_named_with_its_file_and_what_was_expected(
    folder, table, words
):
    write(folder, tabular=table)
    for read in (read_archive, lambda path: list(iter_slices(path))):
        with pytest.raises(ArchiveError) as caught:
            read(folder)
        assert all(word in str(caught.value) for word in ["tabular.parquet", *words])


def test_a_folder_without_events_or_with_a_broken_file_is_refused(folder):
    with pytest.raises(ArchiveError, match="no such folder"):
        read_archive(folder)
    folder.mkdir()
    with pytest.raises(ArchiveError, match=r"tabular\.parquet"):
        read_archive(folder)
    (folder / "text.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ArchiveError, match=r"text\.parquet"):
        read_archive(folder)


def test_data_damaged_inside_a_file_is_an_archive_error(folder):
    table = pictures(["a", "b"], [1, 2], [b"x" * 5000, b"y" * 5000])
    file = write(folder) / "image.parquet"
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, file, **plain)
    content = bytearray(file.read_bytes())
    page = content.index(b"xxxxxxxx")  # its header stands right before it
    content[page - 40 : page] = b"\xff" * 40
    file.write_bytes(bytes(content))
    for read in (read_archive, lambda path: list(iter_slices(path))):
        with pytest.raises(ArchiveError, match=r"image\.parquet"):
            read(folder)


def test_a_block_of_events_is_cut_into_one_slice_per_modality():
    archive = Archive(
        tables={
            "tabular": payments(["a", "b", "c"], [1, 3, 5]),
            "image": pictures(["d", "e"], [2, 4], [b"1", b"2"]),
        }
    )
    slices = [
        (modality, batch.column("event_id").to_pylist())
        for modality, batch in iter_slices(archive, frame_rows=3)
    ]
    assert slices == [
        ("tabular", ["a", "b"]),
        ("image", ["d"]),
        ("tabular", ["c"]),
        ("image", ["e"]),
    ]


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_folder_read_piece_by_piece_is_in_order_and_whole(folder, shuffled):
    rng = np.random.default_rng(1)
    tables = {}
    for name, rows in (("tabular", 1000), ("image", 700)):
        ms = np.sort(rng.integers(0, 400, rows)).tolist()  # many equal times
        ms[-1] = None
        ids = [f"{name}{i:04d}" for i in range(rows)]
        tables[name] = pictures(ids, ms, [b"x"] * rows)
    if shuffled:
        tables = {n: t.take(rng.permutation(t.num_rows)) for n, t in tables.items()}
    write(folder, **tables)
    memory = list(iter_slices(read_archive(folder), frame_rows=1))
    pieces = list(iter_slices(folder, frame_rows=1, chunk_rows=50))
    assert [(m, b.column("event_id")[0]) for m, b in pieces] == [
        (m, b.column("event_id")[0]) for m, b in memory
    ]
    seen = [b.column("event_time")[0].value for _, b in pieces]
    assert seen[-2:] == [None, None]
    assert seen[:-2] == sorted(seen[:-2])
    assert len(pieces) == 1700
    assert sum(b.num_rows for _, b in iter_slices(folder, chunk_rows=64)) == 1700


def test_the_spill_folder_is_gone_when_the_reader_stops_early(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spill"))
    (tmp_path / "spill").mkdir()
    write(folder, tabular=payments(["a", "b", "c"], [3, 2, 1]))
    slices = iter_slices(folder, frame_rows=1, chunk_rows=1)
    next(slices)
    assert list((tmp_path / "spill").iterdir())
    slices.close()
    assert not list((tmp_path / "spill").iterdir())


def test_an_empty_table_gives_no_slices(folder):
    write(folder, tabular=payments(["a"], [1]).slice(0, 0))
    assert list(iter_slices(folder)) == []
    assert list(iter_slices(read_archive(folder))) == []


def test_the_producers_clock_is_stamped_after_the_keys_and_replaced_when_there():
    batch = payments(["a"], [1], amount=[2.0]).to_batches()[0]
    stamped = with_created_ms(with_created_ms(batch, 5), 6)
    assert stamped.schema.names == [
        "event_id",
        "case_id",
        "event_time",
        "created_ms",
        "amount",
    ]
    assert stamped.column("created_ms").to_pylist() == [6]
