import random

import pyarrow as pa
import pytest

from connectors.codec import (
    MAGIC,
    VERSION,
    CodecError,
    decode_frame,
    encode_frame,
    is_frame,
)

BATCH = pa.RecordBatch.from_pydict(
    {
        "event_id": ["e1", "e2", None],
        "at": pa.array([1, 2, 3], pa.int64()).cast(pa.timestamp("ms", "UTC")),
        "amount": [1.5, float("nan"), -0.0],
        "payload": [b"\x00", b"", b"\xff"],
        "vector": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)),
    }
)


def test_a_frame_comes_back_with_schema_nulls_and_bytes():
    value = encode_frame(BATCH)
    assert value[:4] == b"SLF\x01"
    assert is_frame(value)
    back = decode_frame(value)
    assert back.schema == BATCH.schema
    assert back.to_pydict().keys() == BATCH.to_pydict().keys()
    assert back.drop_columns(["amount"]).equals(BATCH.drop_columns(["amount"]))
    assert str(back.column("amount").to_pylist()) == "[1.5, nan, -0.0]"


def test_a_frame_of_a_slice_holds_that_slice_alone():
    long = pa.RecordBatch.from_pydict({"text": ["x" * 1000] * 1000})
    one = encode_frame(long.slice(7, 1))
    assert decode_frame(one).num_rows == 1
    assert len(one) < 2000


def written(batch):
    """A frame as the writer of a stream would write it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return b"SLF\x01" + bytes(sink.getvalue())


TEXTS = pa.array(["a", "b", "a"]).dictionary_encode()


@pytest.mark.parametrize(
    "batch",
    [
        BATCH,
        BATCH.slice(1, 1),
        BATCH.slice(0, 0),
        BATCH.replace_schema_metadata({"features": "[]"}),
        pa.RecordBatch.from_pydict({"texts": TEXTS}),
        pa.RecordBatch.from_pydict(
            {"lists": pa.ListArray.from_arrays([0, 1, 3], TEXTS)}
        ),
    ],
    ids=["whole", "slice", "empty", "metadata", "dictionary", "inner dictionary"],
)
def test_a_frame_is_an_arrow_stream_to_the_byte(batch):
    for _ in range(2):  # what was found of the schema is known the second time
        assert encode_frame(batch) == written(batch)
    back = decode_frame(encode_frame(batch))
    assert str(back.to_pylist()) == str(batch.to_pylist())


def test_a_frame_may_have_no_rows():
    assert decode_frame(encode_frame(BATCH.slice(0, 0))).num_rows == 0


@pytest.mark.parametrize("value", [b"", b"{}", b"SL", b"slf\x01"])
def test_other_bytes_are_no_frame(value):
    assert not is_frame(value)
    with pytest.raises(CodecError, match="not a frame: starts with"):
        decode_frame(value)


def test_another_version_is_named():
    value = MAGIC + bytes([VERSION + 1]) + encode_frame(BATCH)[4:]
    with pytest.raises(CodecError, match="unknown frame version 2; this reader knows"):
        decode_frame(value)
    with pytest.raises(CodecError, match="unknown frame version none"):
        decode_frame(MAGIC)


def test_no_cut_of_a_frame_is_read():
    value = encode_frame(BATCH)
    ends = [*range(4, len(value) - 8, 13), len(value) // 2]
    for end in ends:
        with pytest.raises(CodecError):
            decode_frame(value[:end])


def test_a_frame_of_two_batches_is_refused():
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, BATCH.schema) as writer:
        writer.write_batch(BATCH)
        writer.write_batch(BATCH)
    value = MAGIC + bytes([VERSION]) + bytes(sink.getvalue())
    with pytest.raises(CodecError, match="holds one record batch, this one 2"):
        decode_frame(value)


def test_a_text_that_is_not_utf8_is_refused():
    offsets = pa.py_buffer((0).to_bytes(4, "little") + (1).to_bytes(4, "little"))
    bad = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff"))
    value = encode_frame(pa.RecordBatch.from_arrays([bad], names=["text"]))
    with pytest.raises(CodecError, match="Invalid UTF8"):
        decode_frame(value)


def test_two_columns_of_one_name_are_refused():
    column = pa.array([1])
    twice = pa.RecordBatch.from_arrays([column, column], names=["amount", "amount"])
    with pytest.raises(CodecError, match="'amount' twice"):
        decode_frame(encode_frame(twice))


def test_damage_is_a_codec_error_or_harmless_never_anything_else():
    value, draw = encode_frame(BATCH), random.Random(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(value)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(4, len(value))] = draw.randrange(256)
        try:
            batch = decode_frame(bytes(damaged))
        except CodecError:
            refused += 1
        else:
            assert len(set(batch.schema.names)) == batch.num_columns
    assert refused > 300
