import base64
import io
import json
import wave
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from connectors.archive import column_kinds, iter_slices, read_archive, write_archive
from connectors.demo import DemoWorld, archive_of, demo_task, events_in_order
from connectors.demo_plan import DAY_MS, DemoConfig
from connectors.drawing import identity_card, receipt
from connectors.voice import spoken_amount

START_MS = 1_760_000_000_000


@pytest.fixture(scope="module")
def live():
    return list(DemoWorld(seed=5).live(2000, START_MS))


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)), dtype=np.float64)


def samples(wav):
    with wave.open(io.BytesIO(wav)) as clip:
        assert (clip.getframerate(), clip.getnchannels()) == (8000, 1)
        raw = clip.readframes(clip.getnframes())
    return np.frombuffer(raw, np.uint8).astype(np.float64) - 128


def test_the_seed_decides_every_byte():
    first, again, other = (
        [e.to_json() for e in events_in_order(DemoWorld(seed).live(30, START_MS))]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_case_is_the_same_alone_in_a_slice_and_in_a_loop():
    cases = DemoWorld(seed=1).live(20, START_MS)
    assert cases[7] == cases[5:10][2] == list(cases)[7]


def test_parts_of_a_live_stream_have_other_ids():
    world = DemoWorld(seed=1)
    ids = [
        e.event_id
        for cases in (world.live(50, START_MS), world.live(50, START_MS, part=1))
        for e in events_in_order(cases)
    ]
    assert len(set(ids)) == len(ids)


def test_cases_come_in_time_order_within_their_span(live):
    times = [case.facts.event_time_ms for case in live]
    assert times == sorted(times)
    assert times[0] >= START_MS
    assert times[-1] < START_MS + 2000 * 50_000  # 0.02 cases per second
    night = np.mean([at % DAY_MS < DAY_MS / 4 for at in times])
    assert night < 0.2


def test_each_medium_is_missing_in_a_quarter_of_the_cases(live):
    seen = Counter(e.modality for case in live for e in case.events)
    assert 0.97 * 2000 < seen["tabular"] < 2000
    for medium in ("text", "image", "audio"):
        assert 0.71 * 2000 < seen[medium] < 0.79 * 2000
    assert all(case.events for case in live)


def test_payloads_are_small_and_of_the_promised_size(live):
    for case in live[:200]:
        if image := case.event("image"):
            assert 500 < len(image.content["payload"]) < 15_000
            assert Image.open(io.BytesIO(image.content["payload"])).format == "PNG"
        if audio := case.event("audio"):
            assert 0.8 * 8000 <= len(samples(audio.content["payload"])) <= 1.5 * 8000


def test_events_are_plain_json_and_hide_the_truth(live):
    names = {e.modality: set(e.to_json()) for case in live[:50] for e in case.events}
    keys = {"event_id", "case_id", "event_time_ms"}
    assert names["text"] == keys | {"text"}
    assert names["image"] == names["audio"] == keys | {"payload"}
    assert not names["tabular"] & {"kind", "signs", "label", "fraud"}
    event = next(e for case in live for e in case.events if e.modality == "image")
    sent = json.loads(json.dumps(event.to_json(created_ms=9)))
    assert sent["created_ms"] == 9
    assert base64.b64decode(sent["payload"]) == event.content["payload"]


def test_labels_follow_after_the_delay():
    config = DemoConfig(label_delay_ms=1234)
    case = DemoWorld(seed=1, config=config).live(5, START_MS)[3]
    assert case.label_time_ms == case.facts.event_time_ms + 1234
    assert case.label_json()["label"] == case.label == int(bool(case.facts.kind))


def test_fraud_has_its_share_and_the_new_pattern_is_live_only(live):
    kinds = Counter(case.facts.kind for case in live)
    assert sum(case.label for case in live) == 100  # 5 % of 2,000
    assert kinds["new_pattern"] == 50  # half of those
    past = DemoWorld(seed=5).past(500, START_MS)
    fraud = sum(past.labels["label"].to_pylist())
    assert fraud == 25
    newest = past.tables["tabular"]["event_time"].cast("int64").to_pylist()[-1]
    assert newest <= START_MS


def test_a_past_becomes_an_archive_and_comes_back(tmp_path):
    past = DemoWorld(seed=2).past(60, START_MS)
    write_archive(tmp_path, past)
    back = read_archive(tmp_path)
    assert back.tables == past.tables
    assert back.labels == past.labels
    assert sum(b.num_rows for _, b in iter_slices(tmp_path)) == past.events


def test_cases_without_events_make_an_empty_archive():
    assert archive_of([]).tables == {}


def rows(live, kind):
    return [case.facts.row for case in live if case.facts.kind == kind]


def test_fraud_shows_in_the_payments(live):
    ordinary = rows(live, "")

    def mean(found, name):
        return np.mean([float(row[name]) for row in found])

    assert mean(rows(live, "amount"), "amount") > 4 * mean(ordinary, "amount")
    assert (
        mean(rows(live, "terminal"), "foreign") > 0.4 > 0.1 > mean(ordinary, "foreign")
    )
    payers = Counter(row["customer"] for row in rows(live, "burst"))
    assert payers.most_common(1)[0][1] >= 4
    bursts = [c for c in live if c.facts.kind == "burst"]
    first = payers.most_common(1)[0][0]
    at = [c.facts.event_time_ms for c in bursts if c.facts.row["customer"] == first]
    assert at[3] - at[0] < 480_000


def test_the_new_pattern_is_a_corner_of_the_table_that_was_harmless_before(live):
    def inside(row):
        return row["merchant_risk"] > 0.7 and row["device_age_days"] < 0.5

    past = DemoWorld(seed=5).past(600, START_MS)
    columns = past.labels.to_pydict()
    labels = dict(zip(columns["case_id"], columns["label"], strict=True))
    before = [row for row in past.tables["tabular"].to_pylist() if inside(row)]
    assert not any(labels[row["case_id"]] for row in before)
    found = [case for case in live if inside(case.facts.row)]
    assert np.mean([case.label for case in found]) > 0.7
    caught = sum(case.facts.kind == "new_pattern" for case in found)
    assert caught >= 0.95 * 50


def test_scam_wording_is_told_by_its_words(live):
    def scam(text):
        words = (
            "http",
            "PIN",
            "URGENT",
            "transfer",
            "bitcoin",
            "safe account",
            "remote",
        )
        words += ("one-time code", "prize", "winner")
        return any(word in text for word in words)

    for case in live:
        if text := case.event("text"):
            assert scam(text.content["text"]) == ("scam_text" in case.facts.signs)


def test_a_tampered_picture_has_a_rough_patch_where_it_was_changed():
    rng = np.random.default_rng(0)

    def total(tampered):
        picture = pixels(
            receipt(rng, merchant="Corner Fuel", amount=87.2, tampered=tampered)
        )
        return np.abs(np.diff(picture[78:81, 40:])).mean()  # above the digits

    def face(tampered):
        picture = pixels(identity_card(rng, number="C00012", tampered=tampered))
        return np.abs(np.diff(picture[19:27, 8:50])).mean()  # above the head

    for rough in (total, face):
        true = [rough(False) for _ in range(20)]
        false = [rough(True) for _ in range(20)]
        assert min(false) > 2 * max(true)


def test_a_receipt_shows_how_long_its_amount_is():
    rng = np.random.default_rng(0)

    def ink(amount):
        picture = pixels(receipt(rng, merchant="Corner Fuel", amount=amount))
        return int((picture[80:104].min(axis=0) < 100).sum())

    assert ink(8.5) < ink(88.5) < ink(888.5)


def test_a_robotic_voice_is_even_and_has_no_background():
    rng = np.random.default_rng(0)
    true = samples(spoken_amount(rng, amount=123, pitch_hz=120))
    robot = samples(spoken_amount(rng, amount=123, pitch_hz=120, robotic=True))
    assert (robot == 0).mean() > 0.2 > (true == 0).mean()


def test_a_clip_says_its_digits():
    rng = np.random.default_rng(0)

    def spectrum(amount):
        clip = samples(spoken_amount(rng, amount=amount, pitch_hz=120))
        power = np.abs(np.fft.rfft(clip, 8000))
        return power / np.linalg.norm(power)

    same = spectrum(777) @ spectrum(777)
    other = spectrum(777) @ spectrum(111)
    assert same > 0.6 > 0.4 > other


def test_a_mismatch_is_at_least_fourfold(live):
    from connectors.demo import _other

    rng = np.random.default_rng(0)
    for amount in (1.0, 39.0, 500.0, 9999.0):
        ratio = _other(amount, rng) / amount
        assert ratio >= 3.99 or ratio <= 0.2501
        assert _other(amount, rng) >= 1.0


def test_the_task_reads_columns_that_the_payments_have():
    task = json.loads(json.dumps(demo_task()))
    kinds = column_kinds(DemoWorld(seed=1).past(20, START_MS).tables["tabular"])
    names = [f if isinstance(f, str) else f["name"] for f in task["features"]]
    assert len(set(names)) == len(names) >= 14
    for feature in task["features"]:
        if isinstance(feature, dict):
            assert feature["entity"] in task["entities"]
            assert feature.get("column", "amount") in kinds
        elif not feature.startswith(("hour", "weekday")):
            assert kinds[feature] in ("number", "bool")
    assert all(kinds[column] == "string" for column in task["entities"].values())


@pytest.mark.parametrize(("cases", "rate"), [(0, 1.0), (5, -1.0)])
def test_a_world_of_nothing_is_refused(cases, rate):
    with pytest.raises(ValueError, match="above 0"):
        DemoWorld().live(cases, START_MS, rate)


def test_one_case_alone_is_still_possible():
    assert len(list(DemoWorld().live(1, START_MS, rate=50.0))) == 1
