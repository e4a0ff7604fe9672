import pyarrow as pa
import pytest

from connectors.archive import Archive, write_archive
from connectors.codec import decode_frame
from connectors.demo import DemoWorld
from connectors.schemas import TIME
from pipelines import replay as module
from pipelines.replay import Sent, replay

AT_MS = 1_760_000_000_000


class Sending:
    def __init__(self, bootstrap, *, linger_ms):
        self.sent = []
        self.flushed = False
        Sending.last = self

    def send(self, topic, value, *, key):
        self.sent.append((topic, key, decode_frame(value)))

    def flush(self, timeout_s):
        self.flushed = True

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
    for topic, key, batch in sending.last.sent:
        assert topic.startswith("run.events.")
        assert key == batch.column("case_id")[0].as_py()
        assert batch.column("created_ms").null_count == 0
        times += batch.column("event_time").cast(pa.int64()).to_pylist()
    assert times == sorted(times)
    assert len(times) == past.events
    assert sending.last.flushed


def test_frames_keep_the_order_of_each_modality(sending, archive):
    folder, past = archive
    replay(folder, "b:1", frame_rows=8)
    seen = {}
    for topic, _, batch in sending.last.sent:
        # payments go one to a value: their windows rest on the order of each entity
        assert batch.num_rows <= (1 if topic == "events.tabular" else 8)
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
    last = sending.last.sent[-1][2].num_rows
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
