from __future__ import annotations

import numpy as np
import pytest

from benchmarks.media import Payloads, vectors_frame
from connectors.codec import decode_frame
from connectors.records import MEDIA
from encoders.audio import AudioConfig, decode_clip
from encoders.image import ImageConfig, decode_picture

DECODE = {
    "image": lambda payload: decode_picture(payload, ImageConfig()),
    "audio": lambda payload: decode_clip(payload, AudioConfig()),
}


@pytest.mark.parametrize("modality", MEDIA)
def test_every_payload_is_another(modality):
    payloads = Payloads(modality)
    found = [payloads[n] for n in (0, 1, 256, 512)]
    assert len(set(found)) == 4
    assert payloads[256] == found[2]


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_a_number_changes_the_bytes_and_not_the_content(modality):
    payloads = Payloads(modality)
    first, again = (DECODE[modality](payloads[n]) for n in (3, 259))
    assert np.array_equal(first, again)


def test_a_frame_holds_as_many_payloads_as_are_asked_for():
    payloads = Payloads("text")
    frame = decode_frame(payloads.frame(64, 6, payloads=3))
    assert len(set(frame.column("text").to_pylist())) == 3
    assert len(set(frame.column("event_id").to_pylist())) == 6
    assert decode_frame(vectors_frame("text", 8, 5)).num_rows == 5
