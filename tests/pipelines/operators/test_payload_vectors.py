from __future__ import annotations

import numpy as np
import pytest

from encoders.base import EncoderError, PayloadError
from pipelines.decode_child import Refused
from pipelines.operators.payload_vectors import (
    CALL_BATCHES,
    PayloadVectors,
    Recent,
    digest_of,
)


class Lengths:
    """An encoder of texts by their length; it cannot encode `nan`."""

    def __init__(self):
        self.calls = []

    def decode(self, payload):
        if payload == "bad":
            msg = "it is bad"
            raise PayloadError(msg)
        return payload

    def encode(self, decoded):
        self.calls.append(list(decoded))
        if "nan" in decoded:
            msg = "rows hold NaN"
            raise EncoderError(msg)
        return np.array([[len(x), 0] for x in decoded], np.float32).reshape(-1, 2)


class Apart:
    """Stands where the process that decodes would be."""

    def __init__(self):
        self.told = []

    def begin(self, modality, payloads):
        self.told.append(("begin", *payloads))
        self.batch = payloads

    def finish(self):
        self.told.append("finish")
        return [
            Refused("decoder", "it died") if x == b"die" else x.decode()
            for x in self.batch
        ]


@pytest.fixture
def lengths():
    return Lengths()


def vectors_of(encoder, process=None, modality="text", cached=8):
    return PayloadVectors({modality: encoder}, process, batch_rows=2, cached=cached)


def firsts(found):
    return [x.kind if isinstance(x, Refused) else x[0] for x in found]


def test_each_content_is_encoded_once_in_batches(lengths):
    vectors = vectors_of(lengths)
    found = vectors.of("text", ["a", "bb", "a", "ccc", "bb"])
    assert firsts(found) == [1, 2, 1, 3, 2]
    assert lengths.calls == [["a", "bb", "ccc"]]
    assert (vectors.seen, vectors.repeats) == (5, 2)
    assert firsts(vectors.of("text", ["bb", "dddd"])) == [2, 4]
    assert lengths.calls[1:] == [["dddd"]]
    assert (vectors.seen, vectors.repeats) == (7, 3)


def test_what_was_forgotten_is_encoded_again(lengths):
    vectors = vectors_of(lengths, cached=1)
    vectors.of("text", ["a", "bb", "ccc"])
    assert firsts(vectors.of("text", ["a"])) == [1]
    assert len(lengths.calls) == 2


@pytest.mark.parametrize("count", [1, 2, 8, 9, 17, 40])
def test_calls_are_as_large_as_they_may_be_and_of_one_size(lengths, count):
    found = vectors_of(lengths).of("text", ["a" * (n + 1) for n in range(count)])
    assert firsts(found) == [*range(1, count + 1)]
    sizes = [len(call) for call in lengths.calls]
    assert sum(sizes) == count
    assert len(sizes) == -(-count // (2 * CALL_BATCHES))
    assert max(sizes) - min(sizes) <= 1


def test_a_payload_that_cannot_be_decoded_has_a_reason(lengths):
    found = vectors_of(lengths).of("text", ["a", "bad", "bb"])
    assert found[1] == Refused("unreadable", "it is bad")
    assert firsts(found)[::2] == [1, 2]


def test_a_payload_without_a_finite_vector_costs_itself_alone(lengths):
    found = vectors_of(lengths).of("text", ["nan", "bb"])
    assert found[0] == Refused("unreadable", "rows hold NaN")
    assert found[1][0] == 2


def test_the_next_call_is_decoded_while_one_is_encoded(lengths):
    apart = Apart()
    vectors = vectors_of(lengths, apart, "image")
    encode = lengths.encode
    lengths.encode = lambda decoded: apart.told.append("encode") or encode(decoded)
    payloads = [b"a" * (n + 1) for n in range(11)]
    assert firsts(vectors.of("image", payloads)) == [*range(1, 12)]
    first, second = ("begin", *payloads[:5]), ("begin", *payloads[5:])
    assert apart.told == [first, "finish", second, "encode", "finish", "encode"]
    assert vectors.of("image", []) == []


def test_a_payload_that_killed_its_decoder_is_not_tried_again(lengths):
    apart = Apart()
    vectors = vectors_of(lengths, apart, "image")
    assert firsts(vectors.of("image", [b"die", b"a"])) == ["decoder", 1]
    assert firsts(vectors.of("image", [b"die", b"die"])) == ["decoder", "decoder"]
    assert apart.told.count("finish") == 1


def test_what_was_unused_longest_is_let_go():
    recent = Recent(2)
    for name in (b"a", b"b"):
        recent.put(name, name)
    assert recent.get(b"a") == b"a"
    recent.put(b"c", b"c")
    assert recent.get(b"b") is None
    assert (recent.get(b"a"), recent.get(b"c")) == (b"a", b"c")


def test_equal_bytes_of_two_modalities_are_two_payloads():
    assert digest_of("text", "é") == digest_of("text", "é".encode())
    assert digest_of("text", "a") != digest_of("image", b"a")
    assert len(digest_of("tabular", np.ones(3))) == 16
