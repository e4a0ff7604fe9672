import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from connectors.events import EventReader
from connectors.poison import POISON
from connectors.records import MODALITIES, Place

COLUMNS = {"amount": "number", "customer": "id"}
MEDIA_KINDS = [k for k in POISON if k.startswith(("image", "jpeg", "png"))]
MEDIA_KINDS += [k for k in POISON if k.startswith(("audio", "wav"))]
#: Well-formed events whose content only an encoder can refuse.
LEFT_TO_ENCODERS = {*MEDIA_KINDS, "text_of_100k_characters"}


def make(kind, seed=0):
    return POISON[kind](np.random.default_rng(seed))


def read(topic, value):
    modality = topic.removeprefix("events.")
    reader = EventReader(
        modality,
        columns=COLUMNS if modality == "tabular" else None,
        now_ms=lambda: 1_770_000_000_000,
    )
    return reader.read(value, Place(topic=topic, partition=0, offset=0))


def test_there_are_many_kinds_for_every_topic():
    assert len(POISON) >= 30
    topics = {make(kind)[0] for kind in POISON}
    assert topics == {f"events.{modality}" for modality in MODALITIES}


@pytest.mark.parametrize("kind", POISON)
def test_the_same_seed_makes_the_same_poison(kind):
    assert make(kind) == make(kind)


@pytest.mark.parametrize("kind", [k for k in POISON if k not in LEFT_TO_ENCODERS])
def test_a_malformed_event_is_refused_with_a_reason(kind):
    for seed in range(5):
        rows, letters = read(*make(kind, seed))
        assert rows is None
        assert len(letters) == 1
        assert letters[0].reason


@pytest.mark.parametrize("kind", sorted(LEFT_TO_ENCODERS))
def test_bad_content_arrives_in_a_well_formed_event(kind):
    rows, letters = read(*make(kind))
    assert letters == []
    assert rows is not None
    assert rows.event_id[0].as_py().startswith("poison-")


def test_two_draws_have_two_ids():
    events = [json.loads(make("amount_null", seed)[1]) for seed in (1, 2)]
    assert events[0]["event_id"] != events[1]["event_id"]
    assert events[0]["case_id"] != events[1]["case_id"]


def test_the_huge_picture_is_small_to_send_and_valid_to_its_last_byte(monkeypatch):
    from connectors.poison import _huge_png

    value = base64.b64decode(json.loads(make("png_of_12000_x_12000")[1])["payload"])
    assert len(value) < 1_000_000
    with pytest.warns(Image.DecompressionBombWarning):
        assert Image.open(io.BytesIO(value)).size == (12_000, 12_000)
    small = Image.open(io.BytesIO(_huge_png(200)))
    assert np.asarray(small).shape == (200, 200, 3)
    assert not np.asarray(small).any()


def test_the_long_value_is_over_sixteen_mebibytes():
    assert len(make("value_of_20_mb")[1]) > 16 * 1024 * 1024
