import base64
import io
import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from automl.keys import key_of
from connectors.codec import decode_frame
from connectors.feature_rows import VALUES
from connectors.origins import Origins
from connectors.records import Place
from connectors.rows import EventRows, concat_rows
from encoders import load_encoders
from pipelines.operators.encode import LANES, EncodeMedia
from pipelines.operators.read import keyed
from pipelines.operators.shards import shard_of

AT_MS = 1_760_000_000_000
NUMBER = itertools.count()


@pytest.fixture
def counted():
    return Counter()


@pytest.fixture
def runtime(new_runtime, counted):
    """One that counts what the operator tells Flink."""

    def counter(name):
        return SimpleNamespace(inc=lambda n=1: counted.update({name: n}))

    found = new_runtime()
    found.get_metrics_group = lambda: SimpleNamespace(counter=counter)
    return found


@pytest.fixture
def event(rows_of):
    """One event of a medium as rows; its id says its content."""

    def make(content, modality="text", case="k1"):
        fields = {
            "event_id": f"e{next(NUMBER)}-{content[:4]}",
            "case_id": case,
            "event_time_ms": AT_MS,
            "created_ms": 5,
        }
        name = "text" if modality == "text" else "payload"
        return rows_of(modality, {**fields, name: content})

    return make


@pytest.fixture(scope="module")
def pictures():
    def png(level):
        file = io.BytesIO()
        Image.new("RGB", (24, 24), (level, 0, 0)).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    return [png(level) for level in (0, 100, 200)]


@pytest.fixture(scope="module")
def encoders(model_folder):
    return load_encoders(model_folder / "encoders")


@pytest.fixture
def operator(runtime, settings):
    opened = runtime.open(EncodeMedia(settings))
    opened.calls = []
    for encoder in opened._vectors.encoders.values():
        count_calls(encoder, opened.calls)
    yield opened
    opened.close()


def count_calls(encoder, calls):
    encode = encoder.encode

    def counted(decoded):
        calls.append(len(decoded))
        return encode(decoded)

    encoder.encode = counted


def vectors(out, tables):
    return {row["event_id"]: row["vector"] for row in tables(out)["run.embeddings"]}


def test_a_full_batch_leaves_at_once(runtime, operator, event, tables):
    words = ["call", "me", "later", "free"]
    parts = [event(word) for word in words]
    for part in parts[:3]:
        assert runtime.give(operator, 0, part) == []
    out = runtime.give(operator, 0, parts[3])
    assert operator.calls == [4]
    found = vectors(out, tables)
    assert list(found) == [part.event_id[0].as_py() for part in parts]
    assert np.allclose(np.linalg.norm(list(found.values()), axis=1), 1)


def test_an_unfilled_batch_leaves_when_its_first_payload_has_waited(
    runtime, operator, event, tables
):
    assert runtime.give(operator, 0, event("call")) == []
    runtime.clock_ms += 15
    assert runtime.give(operator, 0, event("free")) == []
    assert runtime.wait(operator, 4) == []
    assert len(vectors(runtime.wait(operator, 1), tables)) == 2
    assert runtime.wait(operator, 1000) == []
    # a new batch waits its own time
    runtime.give(operator, 0, event("later"))
    assert runtime.wait(operator, 19) == []
    assert len(vectors(runtime.wait(operator, 1), tables)) == 1


def test_payloads_that_come_alone_do_not_wait(runtime, operator, event, tables):
    for _ in range(3):
        runtime.give(operator, 0, event("call"))
        runtime.wait(operator, 500)
    assert len(vectors(runtime.give(operator, 0, event("free")), tables)) == 1


def test_batches_of_two_keys_do_not_mix(runtime, operator, event, tables):
    for word in ("call", "me", "later"):
        runtime.give(operator, 0, event(word))
    assert runtime.give(operator, 1, event("free")) == []
    assert len(runtime.kept[("waiting", 0)]) == 3
    assert len(vectors(runtime.wait(operator, 20), tables)) == 4


def test_a_large_frame_is_encoded_in_few_calls(runtime, operator, rows_of, tables):
    keys = {"event_time_ms": AT_MS, "case_id": "k"}
    events = [{**keys, "event_id": f"e{i}", "text": f"call {i}"} for i in range(45)]
    out = runtime.give(operator, 0, rows_of("text", *events, frame=True))
    assert operator.calls == [15, 15, 15]
    assert list(vectors(out, tables)) == [f"e{i}" for i in range(45)]


def test_what_is_of_one_case_keeps_its_order(runtime, operator, rows_of, tables):
    words = ["call", "me", "later", "free", "prize", "win", "money", "now", "call me"]
    out = []
    for first in (0, 5):  # a full batch with a rest, then one that waits
        events = [
            {"event_time_ms": AT_MS, "case_id": f"k{i % 2}", "event_id": f"e{i}"}
            | {"text": words[i]}
            for i in range(first, min(first + 5, 9))
        ]
        out += runtime.give(operator, 0, rows_of("text", *events, frame=True))
    out += runtime.wait(operator, 20)
    rows = tables(out)["run.embeddings"]
    for case, ids in {"k0": [0, 2, 4, 6, 8], "k1": [1, 3, 5, 7]}.items():
        found = [row["event_id"] for row in rows if row["case_id"] == case]
        assert found == [f"e{i}" for i in ids]
    keys = {(row["case_id"], key) for _, key, v in out for row in frame_rows(v)}
    assert len(keys) == 2  # one partition for each case


def frame_rows(value):
    return decode_frame(value).to_pylist()


def test_an_equal_payload_is_decoded_and_encoded_once(
    runtime, operator, event, tables, counted
):
    encoder, decoded = operator._vectors.encoders["text"], []
    decode = encoder.decode
    encoder.decode = lambda payload: decoded.append(payload) or decode(payload)
    first = [event("free prize"), event("free prize"), event("win"), event("win")]
    out = [x for part in first for x in runtime.give(operator, 0, part)]
    assert operator.calls == [2]
    again = [event("win"), event("win"), event("free prize"), event("call")]
    out += [x for part in again for x in runtime.give(operator, 0, part)]
    assert operator.calls == [2, 1]
    assert decoded == ["free prize", "win", "call"]
    found = list(vectors(out, tables).values())
    assert len(found) == 8
    assert found[0] == found[1] == found[6]
    assert found[2] == found[3] == found[4] == found[5] != found[0]
    assert counted == {"payloads": 8, "repeats": 5}


def test_vectors_are_those_of_the_encoder_with_its_fingerprint(
    runtime, operator, event, encoders, tables, pictures
):
    part = event(pictures[1], "image", "case-9")
    runtime.give(operator, 0, part)
    out = runtime.wait(operator, 20)
    encoder = encoders["image"]
    payload = base64.b64decode(pictures[1])
    expected = encoder.encode([encoder.decode(payload)])[0]
    found = tables(out)
    (row,) = found["run.embeddings"]
    assert row["vector"] == expected.tolist()
    assert row["fingerprint"] == encoder.fingerprint
    assert (row["modality"], row["case_id"]) == ("image", "case-9")
    assert (row["event_time"].timestamp() * 1000, row["created_ms"]) == (AT_MS, 5)
    assert found["run.vectors"] == [row]
    lane = str(shard_of(key_of("case-9"), 4)).encode()
    assert {key for topic, key, _ in out if topic == "run.embeddings"} == {lane}


def test_each_case_keeps_its_lane_and_the_index_gets_the_batch_whole(
    runtime, operator, event, tables
):
    cases = [f"case-{n}" for n in range(40)]
    parts = [event("call", case=case) for case in cases]
    out = runtime.give(operator, 0, concat_rows(parts))
    keys = {"run.embeddings": [], "run.vectors": []}
    for topic, key, value in out:
        of = [row["case_id"] for row in tables([(topic, key, value)])[topic]]
        keys[topic].append((key.decode(), of))
    lanes = {str(n): [] for n in range(LANES)}
    for case in cases:
        lanes[str(shard_of(key_of(case), LANES))].append(case)
    assert dict(keys["run.embeddings"]) == lanes
    assert keys["run.vectors"] == [("0", cases)]


def test_one_bad_payload_is_one_dead_letter_and_the_rest_are_encoded(
    runtime, operator, event, tables, pictures
):
    broken = base64.b64encode(b"no picture at all").decode()
    parts = [event(pictures[0], "image"), event(broken, "image")]
    parts += [event(broken, "image"), event(pictures[2], "image")]
    out = [x for part in parts for x in runtime.give(operator, 0, part)]
    found = tables(out)
    ids = [part.event_id[0].as_py() for part in parts]
    assert [x["event_id"] for x in found["run.dead-letters"]] == ids[1:3]
    assert [x["event_id"] for x in found["run.embeddings"]] == [ids[0], ids[3]]
    letter = found["run.dead-letters"][0]
    assert (letter["kind"], letter["modality"]) == ("unreadable", "image")
    assert letter["reason"]
    assert broken.encode() in letter["value"]  # the JSON event as it was sent
    assert operator.calls == [2]


def test_a_batch_of_bad_payloads_alone_gives_letters_alone(
    runtime, operator, event, tables
):
    runtime.give(operator, 0, event("   "))
    runtime.give(operator, 0, event("x" * 10_001))
    found = tables(runtime.wait(operator, 20))
    assert set(found) == {"run.dead-letters"}
    assert [x["reason"] for x in found["run.dead-letters"]] == [
        "text is empty or blank",
        "text has 10001 characters, limit 10000",
    ]


def test_a_batch_of_two_modalities_goes_to_two_encoders(
    runtime, operator, event, tables, pictures
):
    parts = [event("call"), event(pictures[0], "image"), event("me")]
    parts.append(event(pictures[1], "image"))
    out = [x for part in parts for x in runtime.give(operator, 0, part)]
    assert operator.calls == [2, 2]
    rows = tables(out)["run.embeddings"]
    assert [x["modality"] for x in rows] == ["text"] * 2 + ["image"] * 2


def test_payloads_that_wait_survive_a_restart(
    runtime, operator, settings, event, tables
):
    for word in ("call", "me", "later"):
        runtime.give(operator, 0, event(word))
    restarted = runtime.open(EncodeMedia(settings))
    # three of them wait already: the fourth fills the batch
    out = runtime.give(restarted, 0, event("free"))
    assert len(vectors(out, tables)) == 4
    runtime.give(restarted, 0, event("prize"))
    again = runtime.open(EncodeMedia(settings))
    assert len(vectors(runtime.wait(again, 1000), tables)) == 1


def test_an_event_without_an_encoder_is_a_dead_letter(runtime, operator, event, tables):
    clip = base64.b64encode(b"RIFF").decode()
    runtime.give(operator, 0, event(clip, "audio"))
    runtime.give(operator, 0, event("call"))
    found = tables(runtime.wait(operator, 20))
    assert len(found["run.embeddings"]) == 1
    (letter,) = found["run.dead-letters"]
    assert letter["kind"] == "mismatch"
    assert "audio" in letter["reason"]


def test_features_are_encoded_to_vectors_and_to_nothing_else(
    runtime, operator, encoders, tables
):
    x = np.array([[90.0, 0, 50, 50, 50, 50], [10.0, 1, 2, np.nan, 1, 1]])
    place = Place(topic="run.features", partition=0, offset=4)
    rows = EventRows(
        modality="tabular",
        event_id=pa.array(["e1", "e2"]),
        case_id=pa.array(["k1", "k2"]),
        event_time_ms=np.full(2, AT_MS),
        created_ms=np.zeros(2, dtype=np.int64),
        origins=Origins.of_frame(place, np.arange(2, dtype=np.int32)),
        columns={VALUES: x},
    )
    runtime.give(operator, 0, keyed(rows))
    found = tables(runtime.wait(operator, 20))
    # the score job takes no embeddings of features: it makes its own
    assert set(found) == {"run.vectors"}
    encoder = encoders["tabular"]
    expected = encoder.encode([encoder.decode(row) for row in x])
    made = {one["event_id"]: one for one in found["run.vectors"]}
    assert made["e1"]["vector"] == pytest.approx(expected[0].tolist(), abs=1e-6)
    assert made["e2"]["vector"] == pytest.approx(expected[1].tolist(), abs=1e-6)
    assert {one["modality"] for one in made.values()} == {"tabular"}
    assert {one["fingerprint"] for one in made.values()} == {encoder.fingerprint}
