import numpy as np
import pyarrow as pa
import pytest

from automl.arrival import backfill
from automl.task import TaskSpec
from connectors.archive import Archive, column_kinds
from connectors.demo import DemoWorld, demo_task
from connectors.records import MODALITIES
from connectors.schemas import LABELS, TIME
from encoders.base import Encoder, PayloadError
from pipelines.offline import Joined, embed, join, labels_of, read_rows

AT_MS = 1_760_000_000_000


class Counting(Encoder):
    """Vectors that say which payload they stand for; remembers what it encoded."""

    def __init__(self, modality):
        self.modality = modality
        self.width = 4
        self.fingerprint = "0" * 16
        self.decoded = 0
        self.encoded = 0

    def decode(self, payload):
        self.decoded += 1
        if isinstance(payload, str) and payload == "bad":
            msg = "unreadable on purpose"
            raise PayloadError(msg)
        return payload

    def encode(self, decoded):
        self.encoded += len(decoded)
        rows = [
            [float(np.size(d)), float(np.nansum([len(str(d))])), 0, 1] for d in decoded
        ]
        return np.array(rows, dtype=np.float32).reshape(len(decoded), 4)

    def save(self, folder):
        raise NotImplementedError


def times(*after_ms):
    return pa.array([AT_MS + ms for ms in after_ms], pa.int64()).cast(TIME)


@pytest.fixture
def spec():
    found = TaskSpec.from_json(
        {
            "name": "t",
            "entities": {"customer": "customer"},
            "features": [
                "amount",
                {"name": "paid", "entity": "customer", "agg": "sum"}
                | {"column": "amount", "window": "1h"},
            ],
        }
    )
    return found.resolve({"amount": "number", "customer": "string"})


@pytest.fixture
def archive():
    """Cases a, b, c (c's amount is missing); texts of a, b and of nobody."""
    tabular = pa.table(
        {
            "event_id": ["2", "1", "3"],
            "case_id": ["b", "a", "c"],
            "event_time": times(1000, 0, 2000),
            "amount": [5.0, 3.0, None],
            "customer": ["x", "x", "x"],
        }
    )
    text = pa.table(
        {
            "event_id": ["t1", "t2", "t3", "t4"],
            "case_id": ["a", "b", "nobody", "b"],
            "event_time": times(1, 1001, 5, 2000),
            "text": ["hello", "hello", "alone", "bad"],
        }
    )
    labels = pa.table(
        {"case_id": ["b", "z"], "label_time": times(9, 9), "label": [1, 0]},
    ).cast(LABELS)
    return Archive(tables={"tabular": tabular, "text": text}, labels=labels)


def test_cases_are_joined_in_event_time_order(spec, archive):
    found = join(spec, archive, {"text": Counting("text")})
    assert found.case_id == ["a", "b"]
    assert found.event_id == ["1", "2"]
    assert found.event_time_ms.tolist() == [AT_MS, AT_MS + 1000]
    assert found.features.tolist() == [[3.0, 3.0], [5.0, 8.0]]
    assert found.mask.tolist() == [[True, True, False, False]] * 2


def test_what_cannot_be_used_is_dead_as_in_the_stream(spec, archive):
    found = join(spec, archive, {"text": Counting("text")})
    told = sorted((x.event_id, x.modality, x.kind) for x in found.dead)
    assert told == [("3", "tabular", "unreadable"), ("t4", "text", "unreadable")]
    reasons = {x.event_id: x.reason for x in found.dead}
    assert reasons["3"] == "amount: expected a number, got NoneType None"
    assert reasons["t4"] == "unreadable on purpose"


def test_an_equal_payload_is_decoded_and_encoded_once(spec, archive):
    encoders = {"tabular": Counting("tabular"), "text": Counting("text")}
    found = join(spec, archive, encoders)
    assert encoders["text"].decoded == 3  # hello, alone, bad
    vectors = embed(found, encoders)
    assert encoders["text"].encoded == 1  # that of a case with a payment
    assert vectors.shape == (2, len(MODALITIES), 4)
    assert (vectors[0, 1] == vectors[1, 1]).all()
    assert vectors[0, 1].any()
    assert not vectors[:, 2:].any()


def test_every_event_with_an_unreadable_payload_has_its_own_letter(spec, archive):
    text = archive.tables["text"]
    bad = pa.array(["bad", "hello", "bad", "bad"])
    archive.tables["text"] = text.set_column(3, "text", bad)
    encoder = Counting("text")
    found = join(spec, archive, {"text": encoder})
    letters = [x for x in found.dead if x.modality == "text"]
    assert sorted(x.event_id for x in letters) == ["t1", "t3", "t4"]
    assert {x.reason for x in letters} == {"unreadable on purpose"}
    assert encoder.decoded == 2
    assert found.mask[:, 1].tolist() == [False, True]


def test_batches_do_not_change_embeddings(spec, archive):
    encoders = {"tabular": Counting("tabular"), "text": Counting("text")}
    found = join(spec, archive, encoders)
    whole, single = (embed(found, encoders, batch_rows=n) for n in (64, 1))
    assert whole.tobytes() == single.tobytes()


def test_media_without_an_encoder_are_left_out(spec, archive):
    found = join(spec, archive, {})
    assert found.mask[:, 1:].tolist() == [[False] * 3] * 2
    assert [x.event_id for x in found.dead] == ["3"]


def test_features_equal_the_backfill_of_the_archive():
    past = DemoWorld(seed=9).past(120, AT_MS)
    table = past.tables["tabular"]
    spec = TaskSpec.from_json(demo_task()).resolve(column_kinds(table))
    found = join(spec, past, {})
    expected = backfill(spec, table)
    assert found.event_id == expected["event_id"].to_pylist()
    columns = [expected[name].to_numpy() for name in spec.feature_names]
    assert found.features.tobytes() == np.column_stack(columns).tobytes()


def test_a_number_out_of_the_limits_of_the_task_is_dead(spec, archive, monkeypatch):
    limits = {"amount": (0.0, 4.0)}
    monkeypatch.setattr(TaskSpec, "number_limits", lambda self: limits)
    found = join(spec, archive, {})
    assert found.event_id == ["1"]
    reasons = {x.event_id: (x.kind, x.reason) for x in found.dead}
    assert reasons["2"] == ("limits", "amount: 5 is over the limit of 4")


def test_features_of_labels_count_the_labels_of_the_archive(archive):
    visits = {"entity": "customer", "window": "1h"}
    spec = TaskSpec.from_json(
        {
            "name": "t",
            "entities": {"customer": "customer"},
            "features": [
                {"name": "fraud", **visits, "agg": "sum"}
                | {"column": "label", "delay": "1s"}
            ],
        }
    ).resolve({"customer": "string"})
    labels = {"case_id": ["a"], "label_time": times(500), "label": [1]}
    known = Archive(tables=archive.tables, labels=pa.table(labels).cast(LABELS))
    # case a is a second old when b is paid, and its label half a second
    assert join(spec, known, {}).features[:, 0].tolist() == [0.0, 1.0, 1.0]
    unknown = Archive(tables=archive.tables, labels=None)
    assert join(spec, unknown, {}).features[:, 0].tolist() == [0.0, 0.0, 0.0]


def test_rows_of_several_frames_come_back_as_one():
    table = DemoWorld(seed=9).past(60, AT_MS).tables["text"]
    rows, dead = read_rows(table, "text", {})
    assert dead == []
    assert rows.event_id.to_pylist() == table["event_id"].to_pylist()
    assert read_rows(table.slice(0, 0), "text", {}) == (None, [])


def test_an_archive_without_payments_is_refused(spec, archive):
    del archive.tables["tabular"]
    with pytest.raises(ValueError, match=r"no tabular\.parquet"):
        join(spec, archive, {})


def test_an_archive_of_bad_payments_shows_the_first_reason(spec, archive):
    archive.tables["tabular"] = archive.tables["tabular"].slice(2)
    with pytest.raises(ValueError, match="the first: amount: expected a number"):
        join(spec, archive, {})


def test_labels_are_those_of_the_cases_asked_for(archive):
    assert labels_of(archive, ["a", "b", "z"]).tolist() == [-1, 1, 0]
    unknown = archive.labels.set_column(2, "label", pa.array([None, 0], pa.int8()))
    empty = Archive(tables={}, labels=unknown)
    assert labels_of(empty, ["b", "z"]).tolist() == [-1, 0]
    none = Archive(tables={}, labels=None)
    assert labels_of(none, ["a", "b"]).tolist() == [-1, -1]


@pytest.mark.parametrize("size", [9_000, 3_000_000])
def test_payloads_that_are_large_together_are_all_read(size):
    count = 30_000_000 // size
    payloads = [bytes([i % 256]) * (size + (i == 0) * 9_000_000) for i in range(count)]
    at = pa.array([1_760_000_000_000] * count, pa.int64()).cast(TIME)
    names = [str(i) for i in range(count)]
    table = pa.table(
        {
            "event_id": names,
            "case_id": names,
            "event_time": at,
            "payload": pa.array(payloads, pa.binary()),
        }
    )
    rows, dead = read_rows(table, "audio", {})
    assert (len(rows), dead) == (count, [])


@pytest.mark.parametrize(
    ("since", "until", "kept"),
    [
        (None, None, ["9", "10", "11"]),
        ("2025-10-10", None, ["10", "11"]),
        (None, "2025-10-10", ["9"]),
        ("2025-10-10", "2025-10-11", ["10"]),
        ("2025-10-12", None, []),
    ],
)
def test_days_are_from_their_first_to_before_their_last_millisecond(since, until, kept):
    stamps = ["2025-10-09T23:59:59.999", "2025-10-10T00:00", "2025-10-11T00:00"]
    at = np.array(stamps, dtype="datetime64[ms]").astype(np.int64)
    nothing = np.zeros((3, 0))
    names = ["9", "10", "11"]
    item = np.full((3, 4), -1)
    found = Joined(names, names, at, nothing, item, {}, []).between(since, until)
    assert found.case_id == kept
    assert found.item[:, 0].tolist() == list(range(len(kept)))


def test_some_cases_keep_their_own_vectors(spec, archive):
    encoders = {m: Counting(m) for m in ("tabular", "text")}
    found = join(spec, archive, encoders)
    some = found.take(np.array([1]))
    assert some.case_id == ["b"]
    assert np.array_equal(embed(some, encoders), embed(found, encoders)[[1]])
