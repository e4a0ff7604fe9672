"""Kafka values that must end in dead-letters: one maker per kind of bad event."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from connectors.codec import MAGIC, VERSION, encode_frame
from connectors.drawing import receipt
from connectors.schemas import TIME
from connectors.topics import event_topic
from connectors.voice import spoken_amount

Poison = tuple[str, bytes]
Maker = Callable[[np.random.Generator], Poison]

_GOOD_TIME_MS = 1_760_000_000_000
_DROP = object()
_RAW = "@raw@"


def _event(rng: np.random.Generator, content: dict[str, Any]) -> dict[str, Any]:
    number = int(rng.integers(2**48))
    keys = {
        "event_id": f"poison-{number:012x}",
        "case_id": f"poison-case-{number:012x}",
        "event_time_ms": _GOOD_TIME_MS,
    }
    return {name: v for name, v in {**keys, **content}.items() if v is not _DROP}


def _payment(**changes: Any) -> dict[str, Any]:
    """A row that would be good but for `changes`."""
    good = {
        "amount": 42.5,
        "customer": "c00001",
        "terminal": "t0001",
        "device": "d00001",
        "device_type": "web",
        "channel": "online",
        "category": "travel",
        "country": "DE",
        "foreign": False,
        "merchant_risk": 0.3,
        "device_age_days": 100.0,
    }
    return {**good, **changes}


def _json(rng: np.random.Generator, modality: str, content: dict[str, Any]) -> Poison:
    text = json.dumps(_event(rng, content))
    return event_topic(modality), text.encode("utf-8")


def _tabular(**changes: Any) -> Maker:
    return lambda rng: _json(rng, "tabular", _payment(**changes))


def _number(literal: str) -> Maker:
    """A payment whose amount is written as `literal`, which json.dumps cannot write."""

    def make(rng: np.random.Generator) -> Poison:
        topic, value = _json(rng, "tabular", _payment(amount=_RAW))
        return topic, value.replace(f'"{_RAW}"'.encode(), literal.encode())

    return make


def _text(text: Any, **changes: Any) -> Maker:
    return lambda rng: _json(rng, "text", {"text": text, **changes})


def _media(modality: str, payload: Callable[[np.random.Generator], bytes]) -> Maker:
    def make(rng: np.random.Generator) -> Poison:
        encoded = base64.b64encode(payload(rng)).decode("ascii")
        return _json(rng, modality, {"payload": encoded})

    return make


def _payload(modality: str, payload: Any) -> Maker:
    """An event whose `payload` field is that JSON value as it stands."""
    return lambda rng: _json(rng, modality, {"payload": payload})


def _bytes(modality: str, value: bytes) -> Maker:
    return lambda rng: (event_topic(modality), value)


def _cut_json(rng: np.random.Generator) -> Poison:
    topic, value = _json(rng, "tabular", _payment())
    return topic, value[: int(rng.integers(20, len(value) - 1))]


def _invalid_utf8(rng: np.random.Generator) -> Poison:
    topic, value = _json(rng, "text", {"text": _RAW})
    return topic, value.replace(_RAW.encode(), b"caf\xe9 \xff\xfe")


def _deep(rng: np.random.Generator) -> Poison:
    topic, value = _json(rng, "tabular", _payment(amount=_RAW))
    return topic, value.replace(f'"{_RAW}"'.encode(), b"[" * 5000 + b"]" * 5000)


def _megabytes_20(rng: np.random.Generator) -> Poison:
    return _json(rng, "tabular", _payment(note="x" * 20_000_000))


def _batch(rng: np.random.Generator, **changes: Any) -> pa.RecordBatch:
    """A one-row events.tabular frame that would be good but for `changes`."""
    row = _event(rng, _payment(**changes))
    time = pa.array([row.pop("event_time_ms")], pa.int64()).cast(TIME)
    arrays = {name: pa.array([value]) for name, value in row.items()}
    return pa.RecordBatch.from_pydict({**arrays, "event_time": time})


def _frame(
    change: Callable[[bytes], bytes] = bytes, **changes: Any
) -> Callable[[np.random.Generator], Poison]:
    return lambda rng: (
        event_topic("tabular"),
        change(encode_frame(_batch(rng, **changes))),
    )


def _cut_image(rng: np.random.Generator, *, form: str) -> bytes:
    good = receipt(rng, merchant="Corner Fuel", amount=42.5)
    out = io.BytesIO()
    Image.open(io.BytesIO(good)).save(out, format=form)
    return out.getvalue()[: len(out.getvalue()) // 2]


def _gif(rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    Image.new("L", (32, 32), int(rng.integers(256))).save(out, format="GIF")
    return out.getvalue()


def _damaged_png(rng: np.random.Generator) -> bytes:
    """A PNG whose pixel data was overwritten in the middle."""
    good = bytearray(receipt(rng, merchant="Corner Fuel", amount=42.5))
    middle = len(good) // 2
    good[middle : middle + 200] = rng.bytes(200)
    return bytes(good)


@cache
def _huge_png(side: int = 12_000) -> bytes:
    """A valid RGB PNG of `side` x `side` black pixels: small here, 432 MB decoded."""
    rows = bytes(10 * (1 + 3 * side))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = deflate.compress(rows) + deflate.flush(zlib.Z_FULL_FLUSH)
    adler = (((side // 10 * len(rows)) % 65_521) << 16) | 1  # of zeros alone
    stream = b"\x78\xda" + head * (side // 10) + deflate.flush()
    stream += struct.pack(">I", adler)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    check = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + check


def _wav(rng: np.random.Generator) -> bytes:
    return spoken_amount(rng, amount=123.0, pitch_hz=120.0)


def _cut_wav(rng: np.random.Generator) -> bytes:
    good = _wav(rng)
    return good[: len(good) // 2]


def _wav_header(
    *, rate_hz: int = 8000, channels: int = 1, form: int = 1, bits: int = 8, data: bytes
) -> bytes:
    frame_bytes = channels * bits // 8
    pace = min(rate_hz * frame_bytes, 2**32 - 1)
    fmt = struct.pack("<HHIIHH", form, channels, rate_hz, pace, frame_bytes, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _wav_of(data: bytes = bytes(8000), **settings: int) -> Maker:
    return _media("audio", lambda rng: _wav_header(data=data, **settings))


def _png_bytes(rng: np.random.Generator) -> bytes:
    return receipt(rng, merchant="Corner Fuel", amount=42.5)


#: Kind -> maker of (topic, value), with an event_id in it wherever one can be read.
POISON: dict[str, Maker] = {
    # the value itself
    "empty_value": _bytes("tabular", b""),
    "null_bytes": _bytes("text", bytes(64)),
    "random_bytes": lambda rng: (event_topic("image"), b"\xff" + rng.bytes(300)),
    "value_of_20_mb": _megabytes_20,
    "bad_json": _bytes("tabular", b'{"event_id": "poison-bad", amount: 12,}'),
    "cut_json": _cut_json,
    "json_array": _bytes("tabular", b'[{"event_id": "poison-array"}]'),
    "json_number": _bytes("audio", b"42"),
    "json_text": _bytes("image", b'"just text"'),
    "json_null": _bytes("text", b"null"),
    "json_5000_levels_deep": _deep,
    "invalid_utf8": _invalid_utf8,
    "unknown_schema_version": _tabular(schema_version=99),
    # frames
    "frame_of_unknown_version": _frame(lambda v: MAGIC + b"\x63" + v[4:]),
    "frame_cut_short": _frame(lambda v: v[: len(v) // 2]),
    "frame_of_magic_only": _bytes("image", MAGIC + bytes([VERSION])),
    "frame_of_noise": lambda rng: (
        event_topic("audio"),
        MAGIC + bytes([VERSION]) + rng.bytes(500),
    ),
    "frame_without_case_id_column": lambda rng: (
        event_topic("tabular"),
        encode_frame(_batch(rng).drop_columns(["case_id"])),
    ),
    "frame_with_null_case_id": _frame(case_id=None),
    "frame_with_nan_amount": _frame(amount=float("nan")),
    "frame_with_text_amount": _frame(amount="much"),
    # numbers and types
    "amount_nan": _tabular(amount=float("nan")),
    "amount_infinite": _tabular(amount=float("inf")),
    "amount_1e400": _number("1e400"),
    "amount_of_400_digits": _number("1" + "0" * 400),
    "amount_of_5000_digits": _number("9" * 5000),
    "amount_as_text": _tabular(amount="12.50"),
    "amount_as_list": _tabular(amount=[12.5]),
    "amount_as_bool": _tabular(amount=True),
    "amount_null": _tabular(amount=None),
    "amount_missing": _tabular(amount=_DROP),
    "customer_as_object": _tabular(customer={"id": "c00001"}),
    # keys and times
    "event_id_missing": _tabular(event_id=_DROP),
    "case_id_missing": _tabular(case_id=_DROP),
    "case_id_empty": _tabular(case_id=""),
    "case_id_as_number": _tabular(case_id=17),
    "time_missing": _tabular(event_time_ms=_DROP),
    "time_as_text": _tabular(event_time_ms="yesterday"),
    "time_iso_garbage": _tabular(event_time_ms=_DROP, event_time="2025-99-99T99:99"),
    "time_negative": _tabular(event_time_ms=-1),
    "year_1970": _tabular(event_time_ms=1000),
    "year_2999": _tabular(event_time_ms=32_472_144_000_000),
    # text
    "text_missing": _text(_DROP),
    "text_as_number": _text(12),
    "text_of_100k_characters": _text("spam " * 20_000),
    "text_with_half_a_surrogate": _text("broken \ud83d face"),
    # pictures
    "payload_missing": lambda rng: _json(rng, "image", {}),
    "payload_not_base64": _payload("image", "*** not base64 ***"),
    "payload_as_number": _payload("image", 12),
    "image_of_no_bytes": _payload("image", ""),
    "image_is_text": _media("image", lambda rng: b"I am a picture, believe me."),
    "image_is_gif": _media("image", _gif),
    "jpeg_cut": _media("image", partial(_cut_image, form="JPEG")),
    "png_cut": _media("image", partial(_cut_image, form="PNG")),
    "png_damaged": _media("image", _damaged_png),
    "png_of_12000_x_12000": _media("image", lambda rng: _huge_png()),
    # clips
    "audio_of_no_bytes": _payload("audio", ""),
    "audio_is_png": _media("audio", _png_bytes),
    "audio_is_noise": _media("audio", lambda rng: rng.bytes(2000)),
    "wav_cut": _media("audio", _cut_wav),
    "wav_header_only": _media("audio", lambda rng: _wav(rng)[:30]),
    "wav_of_no_samples": _wav_of(b""),
    "wav_of_absurd_rate": _wav_of(rate_hz=2_000_000_000),
    "wav_of_1_hz": _wav_of(rate_hz=1),
    "wav_of_250_channels": _wav_of(bytes(250 * 40), channels=250),
    "wav_of_ten_minutes": _wav_of(bytes(600 * 8000)),
    "wav_of_nan": _wav_of(b"\x00\x00\xc0\x7f" * 8000, form=3, bits=32),
}
