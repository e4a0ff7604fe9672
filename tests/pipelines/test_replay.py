import argparse
import json
from types import SimpleNamespace

import pyarrow as pa
import pytest

from connectors import kafka
from connectors.archive import Archive, ArchiveError, write_archive
from connectors.codec import decode_frame, encode_frame
from connectors.demo import DemoWorld
from connectors.labels import Label, read_labels
from connectors.partitions import partitions_of
from connectors.records import Place
from connectors.schemas import LABELS, TIME
from pipelines import replay as module
from pipelines import stack
from pipelines.commands import replay as command
from pipelines.replay import Sent, replay

AT_MS = 1_760_000_000_000


class Sending:
    def __init__(self, bootstrap, *, linger_ms):
        self.sent = []
        self.stored = 0
        Sending.last = self

    def send(self, topic, value, *, key):
        if not topic.endswith("labels"):
            labels = [i for i, one in enumerate(self.sent) if one[0].endswith("labels")]
            assert all(i < self.stored for i in labels)
        self.sent.append((topic, key, decode_frame(value)))

    def partitions(self, topic):
        assert topic.endswith("labels")
        return 2

    def events(self):
        return [one for one in self.sent if not one[0].endswith("labels")]

    def flush(self, timeout_s):
        self.stored = len(self.sent)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.fixture
def sending(monkeypatch):
    monkeypatch.setattr(module, "Producer", Sending)
    return Sending


@pytest.fixture
def archive(tmp_path):
    past = DemoWorld(seed=4).past(40, AT_MS)
    write_archive(tmp_path, past)
    return tmp_path, past


def test_every_row_is_sent_once_in_event_time_order(sending, archive):
    folder, past = archive
    sent = replay(folder, "b:1", prefix="run.", frame_rows=1)
    assert sent.total == past.events
    assert sent.repeated == 0
    assert sent.events == {m: len(t) for m, t in past.tables.items()}
    times = []
    for topic, key, batch in sending.last.events():
        assert topic.startswith("run.events.")
        assert key == batch.column("case_id")[0].as_py()
        assert batch.column("created_ms").null_count == 0
        times += batch.column("event_time").cast(pa.int64()).to_pylist()
    assert times == sorted(times)
    assert len(times) == past.events
    assert sending.last.stored == len(sending.last.sent)


def test_frames_keep_the_order_of_each_modality(sending, archive):
    folder, past = archive
    replay(folder, "b:1", frame_rows=8)
    seen = {}
    for topic, _, batch in sending.last.events():
        assert batch.num_rows <= 8
        seen.setdefault(topic, []).extend(batch.column("event_id").to_pylist())
    for modality, table in past.tables.items():
        assert seen[f"events.{modality}"] == table["event_id"].to_pylist()


def test_progress_is_told(sending, archive):
    seen = []
    folder, past = archive
    replay(folder, "b:1", progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == past.events


def test_a_rate_is_held(sending, archive, monkeypatch):
    clock = {"s": 100.0}
    monkeypatch.setattr(module.time, "monotonic", lambda: clock["s"])
    monkeypatch.setattr(
        module.time, "sleep", lambda s: clock.__setitem__("s", clock["s"] + s)
    )
    folder, past = archive
    replay(folder, "b:1", rate=50.0, frame_rows=4)
    took_s = clock["s"] - 100.0
    last = sending.last.events()[-1][2].num_rows
    assert took_s == pytest.approx((past.events - last) / 50.0, abs=0.1)


def test_an_event_id_sent_before_is_told_apart(sending, archive, tmp_path):
    _, past = archive
    table = past.tables["text"]
    thrice = pa.concat_tables([table, table.slice(0, 3), table.slice(0, 1)])
    past.tables["text"] = thrice
    write_archive(tmp_path / "again", past)
    sent = replay(tmp_path / "again", "b:1")
    cases, ids = (table[name].to_pylist() for name in ("case_id", "event_id"))
    assert sent.again == {
        (cases[0], "text", ids[0]): 2,
        (cases[1], "text", ids[1]): 1,
        (cases[2], "text", ids[2]): 1,
    }
    assert sent.repeated == 4
    assert sent.events["text"] == len(table) + 4
    assert sent.total == past.events


def test_one_id_in_two_cases_and_no_id_are_no_repetition(sending, tmp_path):
    table = pa.table(
        {
            "event_id": ["1", "1", None, None],
            "case_id": ["a", "b", "a", "a"],
            "event_time": pa.array([AT_MS] * 4, TIME),
            "text": ["x"] * 4,
        }
    )
    image = table.rename_columns(["event_id", "case_id", "event_time", "payload"])
    image = image.set_column(3, "payload", image["payload"].cast(pa.binary()))
    write_archive(tmp_path, Archive(tables={"text": table, "image": image}))
    sent = replay(tmp_path, "b:1")
    assert (sent.total, sent.repeated) == (8, 0)


def test_large_rows_travel_in_frames_of_their_own(sending, archive, monkeypatch):
    monkeypatch.setattr(module, "FRAME_BYTES", 4000)
    folder, past = archive
    assert replay(folder, "b:1").total == past.events
    for _, _, batch in sending.last.sent:
        assert batch.num_rows == 1 or batch.nbytes <= 6000
    images = [b for t, _, b in sending.last.sent if t.endswith("image")]
    assert sum(b.num_rows for b in images) == len(past.tables["image"])


def test_nothing_sent_is_nothing():
    assert Sent().total == 0


def messages(*rows):
    """A table of texts from (case_id, event_time)."""
    cases, times = ([*column] for column in zip(*rows, strict=True))
    keys = {"event_id": [f"e-{case}" for case in cases], "case_id": cases}
    return pa.table({**keys, "event_time": pa.array(times, TIME), "text": cases})


def labels_table(*rows):
    """Labels from (case_id, label_time, label)."""
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    arrays = (pa.array([*c], f.type) for c, f in zip(columns, LABELS, strict=True))
    return pa.table([*arrays], schema=LABELS)


@pytest.mark.parametrize(
    ("frame_rows", "expected"),
    [
        # known at 20: before the events of 20; one without a time is the last of all
        (1, ["x", "A", "a", "B", "C", "b", "D", "c", "E"]),
        (2, ["x", "a", "A", "B", "b", "C", "D", "c", "E"]),
        (64, ["x", "a", "b", "c", "A", "B", "C", "D", "E"]),
    ],
)
def test_a_label_is_there_before_the_events_of_its_time(
    sending, tmp_path, monkeypatch, frame_rows, expected
):
    text = messages(("A", 10), ("B", 20), ("C", 20), ("D", 30), ("E", None))
    labels = labels_table(("c", 40, 0), ("b", 25, 1), ("a", 20, 1), ("x", 5, 0))
    write_archive(tmp_path, Archive(tables={"text": text}, labels=labels))
    monkeypatch.setattr(sending, "partitions", lambda self, topic: 1)
    sent = replay(tmp_path, "b:1", prefix="run.", frame_rows=frame_rows)
    order = [
        case_id
        for _, _, batch in sending.last.sent
        for case_id in batch.column("case_id").to_pylist()
    ]
    assert order == expected
    assert (sent.total, sent.labels) == (5, 4)


def test_labels_of_all_modalities_are_in_place_whatever_the_frames(sending, archive):
    folder, past = archive
    sent = replay(folder, "b:1", frame_rows=16)
    assert sent.labels == past.labels.num_rows == 40
    known = past.labels.column("label_time").cast(pa.int64()).to_numpy()
    given = 0
    for topic, _, batch in sending.last.sent:
        if topic == "labels":
            given += batch.num_rows
        else:
            last_ms = batch.column("event_time").cast(pa.int64())[-1].as_py()
            assert given >= (known <= last_ms).sum()


def test_labels_travel_together_to_the_partition_of_their_cases(sending, tmp_path):
    rows = [
        (f"case-{number % 50}", AT_MS + number, number % 2) for number in range(200)
    ]
    table = labels_table(*rows)
    text = messages(("a", AT_MS + 1000))
    write_archive(tmp_path, Archive(tables={"text": text}, labels=table))
    replay(tmp_path, "b:1")
    *frames, (topic, _, _) = sending.last.sent
    assert topic == "events.text"
    assert len(frames) == 2
    found = {}
    for topic, key, batch in frames:
        cases = batch.column("case_id").to_pylist()
        assert (topic, key) == ("labels", cases[0])
        assert len({*partitions_of(cases, 2).tolist()}) == 1
        for row in batch.to_pylist():
            found.setdefault(row["case_id"], []).append(row["label"])
    expected = {}
    for case_id, _, label in rows:
        expected.setdefault(case_id, []).append(label)
    assert found == expected


def test_a_label_is_one_the_retrain_process_reads(sending, tmp_path):
    labels = labels_table(("a", AT_MS, 1), ("a", AT_MS + 1, 0))
    write_archive(
        tmp_path, Archive(tables={"text": messages(("a", AT_MS + 2))}, labels=labels)
    )
    replay(tmp_path, "b:1")
    place = Place(topic="labels", partition=0, offset=0)
    topic, key, batch = sending.last.sent[0]
    read, letters = read_labels(encode_frame(batch), place)
    assert (topic, key, letters) == ("labels", "a", [])
    assert read == [
        Label(case_id="a", label_time_ms=AT_MS, label=1),
        Label(case_id="a", label_time_ms=AT_MS + 1, label=0),
    ]


@pytest.mark.parametrize(
    ("rate", "rows"), [(None, 512), (10.0, 1), (500.0, 10), (1e6, 512)]
)
def test_a_frame_holds_what_a_rate_gives_in_a_moment(sending, tmp_path, rate, rows):
    text = messages(*((f"c{number}", number) for number in range(1200)))
    write_archive(tmp_path, Archive(tables={"text": text.slice(0, 2 * rows)}))
    replay(tmp_path, "b:1", rate=rate)
    assert [batch.num_rows for _, _, batch in sending.last.sent] == [rows] * 2


def test_labels_that_say_nothing_are_left_out_and_counted(sending, tmp_path):
    labels = labels_table(
        ("a", 1, 1), ("b", 2, None), ("c", 3, -1), (None, 4, 1), ("d", None, 0)
    )
    write_archive(tmp_path, Archive(tables={"text": messages(("a", 1))}, labels=labels))
    sent = replay(tmp_path, "b:1")
    assert [key for topic, key, _ in sending.last.sent if topic == "labels"] == ["a"]
    assert sent.labels == 1
    assert sent.labels_left_out == {
        "no case_id": 1,
        "no label_time": 1,
        "label is not 0 or 1": 2,
    }


def test_labels_can_be_left_where_they_are(sending, archive):
    folder, past = archive
    (folder / "labels.parquet").write_bytes(b"not looked at")
    sent = replay(folder, "b:1", labels=False)
    assert {topic for topic, _, _ in sending.last.sent} == {
        f"events.{modality}" for modality in past.tables
    }
    assert (sent.total, sent.labels) == (past.events, 0)


def test_an_unreadable_file_of_labels_is_known_before_anything_is_sent(
    sending, archive
):
    folder, _ = archive
    (folder / "labels.parquet").write_bytes(b"nonsense")
    sending.last = None
    with pytest.raises(ArchiveError, match=r"labels\.parquet"):
        replay(folder, "b:1")
    assert sending.last is None


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_prints_events_and_labels(
    sending, tmp_path, monkeypatch, capsys, as_json
):
    labels = labels_table(("a", 1, 1), ("b", 2, 0), ("c", 3, None))
    write_archive(tmp_path, Archive(tables={"text": messages(("a", 1))}, labels=labels))
    local = SimpleNamespace(bootstrap="b:1")
    monkeypatch.setattr(stack, "find", lambda home: local)
    monkeypatch.setattr(kafka, "create_topics", lambda bootstrap: None)
    args = argparse.Namespace(home=tmp_path, archive=tmp_path, rate=None, json=as_json)
    assert command.run(args) == 0
    shown = capsys.readouterr()
    if as_json:
        assert json.loads(shown.out) == {
            "text": 1,
            "labels": 2,
            "labels_left_out": 1,
            "repeated": 0,
        }
    else:
        assert shown.out == "1 events, 2 labels\n"
    assert "left out 1 labels: label is not 0 or 1" in shown.err
