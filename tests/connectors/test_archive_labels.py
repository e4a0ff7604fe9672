import numpy as np
import pyarrow as pa

from connectors.archive import Archive, write_archive
from connectors.archive_labels import by_partition, iter_with_labels, usable_labels
from connectors.schemas import LABELS, TIME


def labels_table(cases, ms, labels):
    columns = (cases, pa.array(ms, TIME), pa.array(labels, pa.int8()))
    return pa.table([*columns], schema=LABELS)


def test_what_says_nothing_of_a_case_is_counted_once_under_its_first_reason():
    table = labels_table(
        ["a", "", None, "d", "e", None], [1, 2, 3, None, 5, None], [0, 1, 1, 1, -1, -1]
    )
    kept, left_out = usable_labels(table)
    assert kept.to_pydict() == table.slice(0, 1).to_pydict()
    assert left_out == {"no case_id": 3, "no label_time": 1, "label is not 0 or 1": 1}


def test_labels_with_nothing_to_say_against_all_stay():
    table = labels_table(["a", "a"], [1, 2], [0, 1])
    assert usable_labels(table) == (table, {})
    assert usable_labels(table.slice(0, 0)) == (table.slice(0, 0), {})


def test_labels_between_events_are_one_slice_also_when_read_in_chunks(tmp_path):
    rng = np.random.default_rng(3)
    ms = rng.integers(0, 20_000, 9000)
    ids = [f"{i:05d}" for i in range(9000)]
    keys = {"event_id": ids, "case_id": ids, "event_time": pa.array(ms, TIME)}
    write_archive(tmp_path, Archive(tables={"tabular": pa.table(keys)}))
    known = np.sort(rng.integers(-5, 25_000, 500))
    labels = labels_table(["x"] * 500, known, [1] * 500)
    given, events, kinds = 0, 0, []
    for kind, batch in iter_with_labels(tmp_path, labels, frame_rows=64):
        kinds.append(kind)
        if kind == "labels":
            given += batch.num_rows
            continue
        events += batch.num_rows
        last_ms = batch.column("event_time")[-1].value
        assert given == (known <= last_ms).sum()
    assert (events, given) == (9000, 500)
    assert "labels,labels" not in ",".join(kinds)


def test_a_part_for_each_partition_keeps_the_order_of_a_case():
    cases = [f"c{number % 9}" for number in range(90)]
    table = labels_table(cases, [*range(90)], [number % 2 for number in range(90)])
    parts = by_partition(table.to_batches()[0], 4)
    assert 1 < len(parts) <= 4
    of_case = [set(part.column("case_id").to_pylist()) for part in parts]
    assert len(set.union(*of_case)) == sum(map(len, of_case)) == 9
    for part in parts:
        times = part.column("label_time").cast(pa.int64()).to_pylist()
        assert times == sorted(times)


def test_without_events_the_labels_come_all_the_same():
    table = labels_table(["a", "b"], [1, 2], [0, 1])
    ((kind, batch),) = iter_with_labels(Archive(tables={}), table)
    assert kind == "labels"
    assert batch.column("case_id").to_pylist() == ["a", "b"]
