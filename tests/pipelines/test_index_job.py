"""The real index behind real HTTP; only the topic is a list."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest

from connectors.codec import encode_frame
from connectors.records import Place
from connectors.schemas import frame_of, vectors_schema
from connectors.vector_index import VectorIndex
from pipelines.index_job import IndexConfig, IndexService, open_index
from pipelines.index_writer import FrameError, IndexWriter, read_vectors
from pipelines.retrieve import NoIndexService, Query, search, stats

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]
NOW_MS = 1_000_000


def place(offset=0):
    return Place(topic="vectors", partition=0, offset=offset)


def frame(*rows):
    """Rows of (event, case, modality, fingerprint, vector, created_ms)."""
    event, case, modality, fingerprint, vectors, created = zip(*rows, strict=True)
    return frame_of(
        vectors_schema(len(vectors[0])),
        {
            "event_id": list(event),
            "case_id": list(case),
            "modality": list(modality),
            "event_time": np.zeros(len(rows), dtype=np.int64),
            "created_ms": list(created),
            "fingerprint": list(fingerprint),
            "vector": np.asarray(vectors, dtype=np.float32),
        },
    )


def row(name, vector=EAST, *, modality="text", model="fp", created=NOW_MS):
    return (f"e-{name}", f"c-{name}", modality, model, vector, created)


def writer():
    index = VectorIndex(2, {"text": "fp"})
    return index, IndexWriter(index, now_ms=lambda: NOW_MS)


def test_a_frame_is_stored_by_modality_and_its_lag_noted():
    index, to_index = writer()
    to_index.apply(
        place(),
        frame(
            row("a", created=NOW_MS - 30),
            row("b", NORTH, modality="fused", model="m1", created=NOW_MS - 10),
            row("c", created=0),
        ),
    )
    seen = to_index.stats()
    assert (seen["vectors"]["text"], seen["vectors"]["fused"]) == (2, 1)
    assert seen["newest_created_ms"] == NOW_MS - 10
    assert seen["lag_ms"] == {"p50": 20.0, "p99": pytest.approx(29.8), "of": 2}
    assert index.fingerprints == {"text": "fp", "fused": "m1"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not a frame"),
        (b'{"event_id": "e"}', "not a frame"),
        (frame(row("a"))[:-40], "damaged frame"),
        (frame(row("a", [1.0, 0.0, 0.0])), "list"),
        (encode_frame(pa.record_batch({"case_id": ["c"]})), "'event_id' is missing"),
    ],
)
def test_a_bad_frame_is_counted_and_logged_with_its_place(value, reason, caplog):
    index, to_index = writer()
    to_index.apply(place(7), value)
    to_index.apply(place(8), frame(row("good")))
    assert to_index.stats()["bad_frames"] == 1
    assert len(index) == 1
    assert "vectors[0]@7" in caplog.text
    assert reason in caplog.text


def test_one_bad_row_does_not_cost_the_others(caplog):
    index, to_index = writer()
    to_index.apply(
        place(3), frame(row("a"), row("b", [float("nan"), 1.0]), row("c", NORTH))
    )
    to_index.apply(place(4), frame(row("d", modality="video")))
    assert index.counts()["text"] == 2
    assert to_index.stats()["bad_rows"] == 2
    assert "vectors[0]@3 row 1" in caplog.text


def test_vectors_of_another_model_are_left_out_counted_and_logged_once(caplog):
    index, to_index = writer()
    for offset in range(3):
        value = frame(row("a", model="new"), row("b", model="new"), row("c"))
        to_index.apply(place(offset), value)
    assert to_index.stats()["other_model"] == {"new": 6}
    assert index.counts()["text"] == 1
    assert caplog.text.count("'new'") == 1


def test_nulls_in_a_frame_are_refused_by_column():
    schema = vectors_schema(2)
    rows = [{name: None for name in schema.names}]
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    with pytest.raises(FrameError, match=r"'event_id'.*1 nulls"):
        read_vectors(batch, 2)


class Topic:
    """A list that is read like a topic: from offsets, until stopped."""

    def __init__(self, *values):
        self.values = list(values)
        self.started_at = None

    def read(self, offsets, stop):
        at = self.started_at = offsets.get(("vectors", 0), 0)
        while not stop.is_set():
            new = self.values[at:]
            yield [(place(at + i), value) for i, value in enumerate(new)]
            at += len(new)
            time.sleep(0.005)


def model_folder(root, width=2, **fingerprints):
    folder = root / "model"
    folder.mkdir(exist_ok=True)
    manifest = {"width": width, "fingerprints": fingerprints}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def service_of(root, topic, **options):
    config = IndexConfig(
        home=root,
        bootstrap="unused",
        topic="vectors",
        model_folder=model_folder(root, text="fp"),
        **options,
    )
    return IndexService(
        config,
        read=topic.read,
        load_encoder=lambda name: pytest.fail(f"no encoder of {name} is needed"),
        now_ms=lambda: NOW_MS,
    )


def wait_for(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


@contextmanager
def running(service):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(service.run()))
    thread.start()
    try:
        yield codes
    finally:
        service.stop()
        thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_vector_is_searchable_over_http_while_the_topic_goes_on(tmp_path):
    topic = Topic(frame(row("a"), row("b", NORTH)))
    service = service_of(tmp_path, topic)
    with running(service) as codes:
        wait_for(lambda: len(service.index) == 2)
        answer = search(tmp_path, Query(by="vector", content=[0.6, 0.8], k=1))
        assert [hit["case_id"] for hit in answer["hits"]] == ["c-b"]
        topic.values.append(frame(row("z", [0.6, 0.8])))
        wait_for(lambda: len(service.index) == 3)
        answer = search(tmp_path, Query(by="vector", content=[0.6, 0.8], k=1))
        assert answer["hits"][0]["similarity"] == pytest.approx(1.0)
        assert stats(tmp_path)["offsets"] == {"vectors[0]": 2}
    assert codes == [0]
    with pytest.raises(NoIndexService, match="sluice run index"):
        stats(tmp_path)


def test_a_restart_reads_on_from_the_last_snapshot(tmp_path):
    topic = Topic(frame(row("a")), frame(row("b")))
    service = service_of(tmp_path, topic)
    with running(service):
        wait_for(lambda: len(service.index) == 2)
    topic.values.append(frame(row("c")))
    again = service_of(tmp_path, topic)
    assert len(again.index) == 2
    with running(again):
        wait_for(lambda: len(again.index) == 3)
    assert topic.started_at == 2


def test_snapshots_are_taken_while_running(tmp_path):
    topic = Topic(frame(row("a")))
    service = service_of(tmp_path, topic, snapshot_s=0.05)
    with running(service):
        wait_for(lambda: (tmp_path / "index" / "current.json").exists())
        index, offsets = open_index(tmp_path / "model", tmp_path / "index")
        assert (len(index), offsets) == (1, {("vectors", 0): 1})


def test_a_new_model_starts_an_empty_index_from_the_topics_start(tmp_path, caplog):
    topic = Topic(frame(row("a")))
    service = service_of(tmp_path, topic)
    with running(service):
        wait_for(lambda: len(service.index) == 1)
    folder = model_folder(tmp_path, text="fp2")
    index, offsets = open_index(folder, tmp_path / "index")
    assert (len(index), offsets, index.fingerprints) == (0, {}, {"text": "fp2"})
    assert "reading the topic from its start" in caplog.text


def test_a_reader_that_fails_ends_the_service_with_code_1(tmp_path, caplog):
    def read(offsets, stop):
        msg = "broker is gone"
        raise OSError(msg)
        yield []

    topic = Topic()
    topic.read = read
    with running(service_of(tmp_path, topic)) as codes:
        wait_for(lambda: bool(codes))
    assert codes == [1]
    assert "broker is gone" in caplog.text
    assert not (tmp_path / "index.json").exists()


def test_the_service_ends_with_its_owner(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    service = service_of(tmp_path, Topic(), owner_pid=owner.pid)
    with running(service) as codes:
        wait_for(lambda: (tmp_path / "index.json").exists())
        assert json.loads((tmp_path / "index.json").read_text())["pid"] == os.getpid()
        owner.communicate(b"\n", timeout=10)
        wait_for(lambda: bool(codes))
    assert codes == [0]
