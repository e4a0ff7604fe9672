"""Frames: 1..N records as one Kafka value, an Arrow IPC stream behind four bytes."""

from __future__ import annotations

import pyarrow as pa

MAGIC = b"SLF"
VERSION = 1
_HEADER = MAGIC + bytes([VERSION])
#: What ends an Arrow IPC stream.
_END = b"\xff\xff\xff\xff\0\0\0\0"
#: What `_is_plain` found, by schema as bytes.
_PLAIN: dict[bytes, bool] = {}


class CodecError(Exception):
    """A value is no frame this version can read; the message says why."""


def encode_frame(batch: pa.RecordBatch) -> bytes:
    """One Kafka value holding the rows of `batch`.

    Layout: `SLF`, one version byte, then an Arrow IPC stream of one record batch.
    """
    if not _is_plain(batch.schema):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return _HEADER + bytes(sink.getvalue())
    # the parts of such a stream, put together without a writer, which takes longer
    return b"".join([_HEADER, batch.schema.serialize(), batch.serialize(), _END])


def _is_plain(schema: pa.Schema) -> bool:
    """Whether no column has a dictionary, which takes a writer to send apart."""
    if schema.metadata:  # which may be another one each time
        schema = schema.remove_metadata()
    told = schema.serialize().to_pybytes()
    if told not in _PLAIN:
        _PLAIN[told] = not any(map(_has_dictionary, schema.types))
    return _PLAIN[told]


def _has_dictionary(kind: pa.DataType) -> bool:
    inner = kind.num_fields if pa.types.is_nested(kind) else 0
    return pa.types.is_dictionary(kind) or any(
        _has_dictionary(kind.field(i).type) for i in range(inner)
    )


def is_frame(value: bytes) -> bool:
    """Whether `value` claims to be a frame (of any version)."""
    return value.startswith(MAGIC)


def decode_frame(value: bytes) -> pa.RecordBatch:
    """The rows of a frame, fully checked, so that reading them cannot fail later.

    Raises:
        CodecError: not a frame, of an unknown version, cut short or inconsistent.
    """
    if not is_frame(value):
        msg = f"not a frame: starts with {value[:4]!r}, expected {_HEADER!r}"
        raise CodecError(msg)
    if value[3:4] != _HEADER[3:]:
        version = value[3] if len(value) > 3 else "none"
        msg = f"unknown frame version {version}; this reader knows {VERSION}"
        raise CodecError(msg)
    try:
        with pa.ipc.open_stream(pa.py_buffer(value)[4:]) as reader:
            batches = list(reader)
        for batch in batches:
            batch.validate(full=True)
            names = batch.schema.names  # fails when a name is not UTF-8
    except (pa.ArrowException, OSError, ValueError) as error:
        msg = f"damaged frame of {len(value)} bytes: {error}"
        raise CodecError(msg) from error
    if len(batches) != 1:
        msg = f"a frame holds one record batch, this one {len(batches)}"
        raise CodecError(msg)
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        msg = f"a frame holds column {twice[0]!r} twice"
        raise CodecError(msg)
    return batches[0]
