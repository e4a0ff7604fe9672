"""Payloads of text, image and audio that all differ, and a model for them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from automl.registry import Registry
from connectors.codec import encode_frame
from connectors.drawing import receipt
from connectors.records import CONTENT_COLUMN, MEDIA
from connectors.schemas import TIME, frame_of, vectors_schema
from connectors.voice import spoken_amount
from connectors.wording import message
from encoders import Encoder, build_encoder, save_encoders

MODEL = "media"
#: Payloads that are drawn; the others are these with a number in a place of no meaning.
DRAWN = 256
EVENT_TIME_MS = 1_760_000_000_000
#: Where the first chunk of a PNG ends.
_AFTER_HEADER = 33


def media_model(home: Path) -> Path:
    """Folder of a model with the usual encoder of each medium, untrained."""
    registry = Registry(home / "models")
    stage = home / "stage"
    encoders: dict[str, Encoder] = {
        modality: build_encoder({"modality": modality}) for modality in MEDIA
    }
    save_encoders(encoders, stage / "encoders")
    return registry.save(
        MODEL,
        stage,
        parent=None,
        task={"name": MODEL},
        features=[],
        width=encoders["text"].width,
        modalities=list(MEDIA),
        fingerprints={m: e.fingerprint for m, e in encoders.items()},
        threshold=0.5,
        prior_logit=0.0,
        metrics={},
        created_at="2026-01-01T00:00:00+00:00",
    ).folder.resolve()


class Payloads:
    """As many different payloads of one modality as are asked for, by number.

    Args:
        modality: text, image or audio.
        seed: of those that are drawn.
    """

    def __init__(self, modality: str, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        draw: dict[str, Callable[[], str | bytes]] = {
            "text": lambda: message(rng, merchant="Blue Cafe"),
            "image": lambda: receipt(
                rng, merchant="Blue Cafe", amount=float(rng.uniform(1, 500))
            ),
            "audio": lambda: spoken_amount(
                rng,
                amount=float(rng.uniform(1, 5000)),
                pitch_hz=float(rng.uniform(90, 250)),
            ),
        }
        self.modality = modality
        self._drawn = [draw[modality]() for _ in range(DRAWN)]

    def __getitem__(self, number: int) -> str | bytes:
        """Payload `number`: its bytes are those of no other number."""
        drawn = self._drawn[number % DRAWN]
        if isinstance(drawn, str):
            return f"{drawn} {number}"
        stamped = picture_with if self.modality == "image" else clip_with
        return stamped(drawn, number)

    def frame(self, first: int, rows: int, *, payloads: int | None = None) -> bytes:
        """A frame of events; their payloads repeat after so many, if that is given."""
        numbers = range(first, first + rows)
        of = [self[n if payloads is None else n % payloads] for n in numbers]
        ids = [f"{n:09d}" for n in numbers]
        return encode_frame(
            pa.RecordBatch.from_pydict(
                {
                    "event_id": ids,
                    "case_id": [f"c{one}" for one in ids],
                    "event_time": pa.array([EVENT_TIME_MS] * rows).cast(TIME),
                    CONTENT_COLUMN[self.modality]: of,
                }
            )
        )


def picture_with(png: bytes, number: int) -> bytes:
    """The picture with a comment after its header."""
    body = b"tEXtn\0" + str(number).encode()
    comment = struct.pack(">I", len(body) - 4) + body
    comment += struct.pack(">I", zlib.crc32(body))
    return png[:_AFTER_HEADER] + comment + png[_AFTER_HEADER:]


def clip_with(wav: bytes, number: int) -> bytes:
    """The clip with a note behind its samples."""
    note = b"note" + struct.pack("<IQ", 8, number)
    size = struct.pack("<I", len(wav) + len(note) - 8)
    return wav[:4] + size + wav[8:] + note


def vectors_frame(modality: str, width: int, rows: int) -> bytes:
    """A frame of vectors of the usual size, as the job writes it."""
    vectors = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    ids = [f"{n:09d}" for n in range(rows)]
    return frame_of(
        vectors_schema(width),
        {
            "event_id": ids,
            "case_id": [f"c{one}" for one in ids],
            "modality": [modality] * rows,
            "event_time": np.full(rows, EVENT_TIME_MS),
            "created_ms": np.zeros(rows, np.int64),
            "fingerprint": ["f" * 16] * rows,
            "vector": vectors,
        },
    )
