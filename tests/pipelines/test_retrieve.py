"""Queries over real HTTP to a real index; the encoder is two-dimensional."""

import argparse
import http.client
import json

import numpy as np
import pytest

from connectors.vector_index import VectorIndex
from encoders.base import Encoder, EncoderConfig, PayloadError
from pipelines.commands import query as command
from pipelines.retrieve import (
    ADDRESS_FILE,
    NoIndexService,
    Query,
    QueryError,
    Retriever,
    search,
    start_server,
    stats,
)

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


class Compass(Encoder):
    """Words and bytes of direction to vectors."""

    config_class = EncoderConfig
    width = 2

    def __init__(self, modality):
        self.modality = modality
        self.fingerprint = f"fp-{modality}"

    def decode(self, payload):
        name = payload.decode() if isinstance(payload, bytes) else payload
        if name not in ("east", "north"):
            msg = f"no such direction: {name}"
            raise PayloadError(msg)
        return EAST if name == "east" else NORTH

    def encode(self, decoded):
        return np.asarray(decoded, dtype=np.float32).reshape(-1, 2)

    def save(self, folder):
        raise NotImplementedError


def filled():
    index = VectorIndex(2)
    index.upsert(
        ["t1", "t2"], ["c1", "c2"], "text", [EAST, NORTH], fingerprint="fp-text"
    )
    index.upsert(
        ["i1", "i3"], ["c1", "c3"], "image", [NORTH, WEST], fingerprint="fp-image"
    )
    index.upsert(
        ["f1", "f2"], ["c1", "c2"], "fused", [EAST, [0.6, 0.8]], fingerprint="fp-fused"
    )
    return index


@pytest.fixture
def served(tmp_path):
    """A home folder whose index answers, and the encoders it has loaded."""
    loaded = []

    def load(modality):
        loaded.append(modality)
        return Compass(modality)

    server = start_server(Retriever(filled(), load), lambda: {"vectors": {"text": 2}})
    port = server.server_address[1]
    address = {"url": f"http://127.0.0.1:{port}", "port": port}
    (tmp_path / ADDRESS_FILE).write_text(json.dumps(address))
    yield tmp_path, port, loaded
    server.shutdown()
    server.server_close()


def hits(home, **query):
    answer = search(home, Query(**query))
    return [
        (h["case_id"], h["modality"], round(h["similarity"], 3)) for h in answer["hits"]
    ]


def test_a_sentence_searches_sentences_and_loads_its_encoder_once(served):
    home, _, loaded = served
    for _ in range(2):
        assert hits(home, by="text", content="north") == [
            ("c2", "text", 1.0),
            ("c1", "text", 0.0),
        ]
    assert loaded == ["text"]


def test_a_picture_searches_pictures_or_the_space_asked_for(served):
    home, _, loaded = served
    assert hits(home, by="image", content=b"north", k=1) == [("c1", "image", 1.0)]
    assert hits(home, by="image", content=b"north", modality="text", k=1) == [
        ("c2", "text", 1.0)
    ]
    assert loaded == ["image"]


def test_all_merges_every_space(served):
    home, _, _ = served
    assert hits(home, by="vector", content=EAST, k=3, modality="all") == [
        ("c1", "fused", 1.0),
        ("c1", "text", 1.0),
        ("c2", "fused", 0.6),
    ]


def test_a_case_is_compared_by_its_fused_vector_and_is_no_hit_itself(served):
    home, _, _ = served
    assert hits(home, by="case", content="c1") == [("c2", "fused", 0.6)]


def test_a_case_without_a_fused_vector_is_compared_by_what_is_stored(served):
    home, _, _ = served
    assert hits(home, by="case", content="c3") == [("c1", "image", 0.0)]


def test_a_case_in_another_space_uses_its_own_vector_there_or_the_fused(served):
    home, _, _ = served
    assert hits(home, by="case", content="c1", modality="image") == [
        ("c3", "image", 0.0)
    ]
    assert hits(home, by="case", content="c2", modality="image") == [
        ("c1", "image", 0.8),
        ("c3", "image", -0.6),
    ]


def test_the_answer_says_what_it_searched_and_how_long(served):
    home, _, _ = served
    answer = search(home, Query(by="text", content="east"))
    assert answer["by"] == "text"
    assert answer["modalities"] == ["text"]
    assert 0 <= answer["encode_ms"] <= answer["latency_ms"] < 5000
    assert set(answer["hits"][0]) == {"case_id", "event_id", "modality", "similarity"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "exactly one of text"),
        (b'{"text": "east", "case": "c1"}', "exactly one of text"),
        (b'{"text": "east", "limit": 3}', "not known: limit"),
        (b'{"text": " "}', "text must be a string that is not empty"),
        (b'{"text": 3}', "text must be a string"),
        (b'{"text": "east", "k": 0}', "k must be"),
        (b'{"text": "east", "k": true}', "k must be"),
        (b'{"text": "east", "modality": 3}', "modality must be"),
        (b'{"text": "east", "modality": "video"}', "'video'; known: text, image"),
        (b'{"text": "upwards"}', "no such direction"),
        (b'{"image_b64": "%%%"}', "image_b64 is not base64"),
        (b'{"case": "c9"}', "case 'c9' has no vectors"),
        (b'{"vector": [1, "x"]}', "list of numbers"),
        (b'{"vector": []}', r"shape (1, 0)"),
        (b'{"vector": [1, 0, 0]}', "shape (1, 3)"),
        (b'{"vector": [NaN, 0]}', "length nan"),
        (b'{"vector": [3, 4]}', "length 5"),
        (b'{"vector": [1' + b"0" * 400 + b", 0]}", "list of numbers"),
    ],
)
def test_a_bad_query_is_answered_400_with_the_reason(served, body, reason):
    _, port, _ = served
    status, answer = post(port, "/search", body)
    assert (status, reason in answer["error"]) == (400, True), answer


def post(port, path, body, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, body, headers or {})
    response = connection.getresponse()
    answer = json.load(response)
    connection.close()
    return response.status, answer


def test_health_stats_and_unknown_paths(served):
    home, port, _ = served
    assert stats(home) == {"vectors": {"text": 2}}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/health")
    assert json.load(connection.getresponse()) == {"status": "ok"}
    connection.close()
    assert post(port, "/delete", b"{}")[0] == 404


def test_a_name_pointed_at_this_address_is_refused(served):
    _, port, _ = served
    body = json.dumps({"text": "east"})
    status, _ = post(port, "/search", body, {"Host": f"evil.example:{port}"})
    assert status == 403


def test_an_encoder_of_another_model_is_refused_by_both_names():
    index = VectorIndex(2, {"text": "older"})
    retriever = Retriever(index, Compass)
    with pytest.raises(QueryError, match=r"'fp-text'.*'older'"):
        retriever.answer(Query(by="text", content="east"))


def test_no_service_says_how_to_start_one(tmp_path):
    with pytest.raises(NoIndexService, match="start it with: sluice run index"):
        search(tmp_path, Query(by="text", content="east"))
    (tmp_path / ADDRESS_FILE).write_text('{"url": "http://127.0.0.1:9"}')
    with pytest.raises(NoIndexService, match="start it with: sluice run index"):
        search(tmp_path, Query(by="text", content="east"))


def test_a_proxy_in_the_environment_is_not_asked(served, monkeypatch):
    home, _, _ = served
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert hits(home, by="text", content="east", k=1) == [("c1", "text", 1.0)]


def ask(home, *argv, as_json=False):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(argv)
    args.home, args.json = home, as_json
    return command.run(args)


def test_the_command_prints_a_table(served, capsys):
    home, _, _ = served
    assert ask(home, "--text", "north", "-k", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "case", "modality", "similarity"]
    assert lines[1].split() == ["1", "c2", "text", "1.0000"]
    assert lines[2].split() == ["2", "c1", "text", "0.0000"]


def test_the_command_prints_one_line_of_json(served, capsys, tmp_path):
    home, _, _ = served
    picture = tmp_path / "picture"
    picture.write_bytes(b"north")
    assert ask(home, "--image", str(picture), as_json=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["hits"][0]["case_id"] == "c1"


def test_the_command_fails_with_1_and_a_reason_and_2_for_bad_usage(
    served, tmp_path, capsys
):
    home, _, _ = served
    assert ask(home, "--case", "c9") == 1
    assert "case 'c9' has no vectors" in capsys.readouterr().err
    assert ask(home, "--audio", str(tmp_path / "absent.wav")) == 1
    assert "absent.wav" in capsys.readouterr().err
    assert ask(tmp_path / "nobody", "--text", "east") == 1
    assert "sluice run index" in capsys.readouterr().err
    for argv in ([], ["--text", "a", "--case", "b"], ["--text", "a", "-k", "0"]):
        with pytest.raises(SystemExit) as ended:
            ask(home, *argv)
        assert ended.value.code == 2
