import base64
import json

import pytest

from pipelines.query import Query, QueryError


def test_a_query_survives_its_way_over_the_wire():
    for by, content in (
        ("text", "hello"),
        ("image", b"\x00\xff"),
        ("audio", b"RIFF"),
        ("case", "c1"),
        ("vector", [0.5, 0.5]),
    ):
        query = Query(by=by, content=content, modality="fused", k=3)
        assert Query.from_json(json.loads(json.dumps(query.to_json()))) == query


def test_media_payloads_are_base64_in_the_body():
    body = Query(by="audio", content=b"RIFF").to_json()
    assert body == {
        "audio_b64": base64.b64encode(b"RIFF").decode(),
        "modality": None,
        "k": 10,
    }


def test_a_query_of_two_kinds_is_refused_naming_all():
    with pytest.raises(QueryError, match="exactly one of text, image_b64, audio_b64"):
        Query.from_json({"text": "east", "case": "c1"})
