import json

import numpy as np
import pyarrow as pa
import pytest
from pyflink.common import Row

from automl.keys import key_of
from connectors.codec import encode_frame
from connectors.schemas import frame_of, vectors_schema
from pipelines.operators.route import RouteToCases
from pipelines.operators.shards import shard_of

MODELS = "run.models"
GOOD = np.array([[1.0, 0.0]], dtype=np.float32)


def route(topic, value):
    operator = RouteToCases(
        models=MODELS, shards=6, nodes=3, dead_letters="run.dead-letters"
    )
    operator.open(None)
    return list(
        operator.process_element(Row(0, (f"{topic} 0 4".encode(), value)), None)
    )


def embeddings(vectors, **changes):
    rows = len(vectors)
    columns = {
        "event_id": [f"e{i}" for i in range(rows)],
        "case_id": [f"k{i}" for i in range(rows)],
        "modality": ["text"] * rows,
        "event_time": np.arange(rows) + 1000,
        "created_ms": np.arange(rows),
        "fingerprint": ["f"] * rows,
        "vector": vectors,
    }
    return frame_of(vectors_schema(vectors.shape[1]), {**columns, **changes})


def test_an_announcement_reaches_every_node():
    value = json.dumps({"name": "m", "version": 2, "folder": "/m/v2", "by": "x"})
    out = route(MODELS, value.encode())
    place = {"topic": MODELS, "partition": 0, "offset": 4}
    known = {"name": "m", "version": 2, "folder": "/m/v2", "place": place}
    assert [tuple(row) for row in out] == [(0, known), (2, known), (4, known)]


def test_a_tombstone_is_nothing():
    assert route(MODELS, None) == []


def test_embeddings_go_to_the_node_of_their_case():
    vectors = np.eye(20, 4, dtype=np.float32)
    out = route("run.embeddings", embeddings(vectors))
    seen = {}
    for node, rows in out:
        assert rows.modality == "embedding"
        for i, case_id in enumerate(rows.case_id.to_pylist()):
            assert shard_of(key_of(case_id), 6) // 2 * 2 == node
            assert rows.keys("case_id")[i] == key_of(case_id)
            seen[rows.event_id[i].as_py()] = (
                rows.columns["vector"][i].tolist(),
                int(rows.event_time_ms[i]),
                rows.columns["fingerprint"][i].as_py(),
            )
    assert seen == {f"e{i}": (v.tolist(), 1000 + i, "f") for i, v in enumerate(vectors)}


def test_a_sliced_frame_of_vectors_keeps_its_own_rows():
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    whole = pa.ipc.open_stream(embeddings(vectors)[4:]).read_next_batch()
    ((_, rows),) = route("run.embeddings", encode_frame(whole.slice(2, 1)))
    assert rows.columns["vector"].tolist() == [[4.0, 5.0]]


def other(name, values):
    """A frame of one embedding in which a column is of another type."""
    batch = pa.ipc.open_stream(embeddings(GOOD)[4:]).read_next_batch()
    columns = {n: batch.column(n) for n in batch.schema.names} | {name: values}
    return encode_frame(pa.RecordBatch.from_pydict(columns))


NAN = np.array([[np.nan, 1.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("topic", "value", "reason"),
    [
        (MODELS, b"{", "JSONDecodeError"),
        (MODELS, b"\xff", "UnicodeDecodeError"),
        (MODELS, b"[1]", "TypeError"),
        (MODELS, b'{"name": "m", "version": 1}', "KeyError: 'folder'"),
        (MODELS, b'{"name": "m", "version": "x", "folder": "f"}', "ValueError"),
        ("run.embeddings", b"", "CodecError: not a frame"),
        ("run.embeddings", None, "CodecError: not a frame"),
        ("run.embeddings", embeddings(GOOD)[:90], "CodecError: damaged frame"),
        ("run.embeddings", embeddings(NAN), "missing or non-finite"),
        ("run.embeddings", embeddings(GOOD, created_ms=[None]), "ArrowInvalid"),
        ("run.embeddings", embeddings(GOOD, case_id=[None]), "1 of its texts are"),
        ("run.embeddings", embeddings(GOOD, modality=[None]), "column 'modality'"),
        ("run.embeddings", other("vector", ["text"]), "AttributeError"),
        ("run.embeddings", other("event_time", [[1]]), "ArrowNotImplementedError"),
        ("run.embeddings", other("vector", [None]), "Error"),
        (MODELS, b"[" * 5000 + b"]" * 5000, "RecursionError"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter(topic, value, reason, apart):
    on, (letter,) = apart(route(topic, value))
    assert on == []
    assert letter["kind"] == "unreadable"
    assert letter["reason"].startswith(f"read {topic}[0]@4: ")
    assert reason in letter["reason"]
    assert letter["value"] == (value or b"")
