"""Expected similarities are worked out by hand on vectors of width 2 and 3."""

import json
import threading

import numpy as np
import pytest

from connectors.vector_index import (
    FingerprintError,
    SnapshotError,
    VectorError,
    VectorIndex,
)

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
NORTH_EAST = [0.6, 0.8]


def filled():
    index = VectorIndex(2)
    index.upsert(
        ["t1", "t2", "t3"],
        ["c1", "c2", "c3"],
        "text",
        [EAST, NORTH, WEST],
        fingerprint="fp-text",
    )
    index.upsert(["i1"], ["c1"], "image", [NORTH_EAST], fingerprint="fp-image")
    return index


def found(index, *args, **options):
    return [
        (hit.case_id, hit.modality, round(hit.similarity, 3))
        for hit in index.search(*args, **options)
    ]


def test_hits_are_ranked_by_cosine():
    assert found(filled(), NORTH_EAST, 3, "text") == [
        ("c2", "text", 0.8),
        ("c1", "text", 0.6),
        ("c3", "text", -0.6),
    ]


def test_without_a_modality_all_spaces_are_merged():
    assert found(filled(), NORTH_EAST, 2) == [("c1", "image", 1.0), ("c2", "text", 0.8)]


def test_an_excluded_case_makes_room_for_the_next():
    assert found(filled(), EAST, 2, "text", exclude_case="c1") == [
        ("c2", "text", 0.0),
        ("c3", "text", -1.0),
    ]


def test_more_hits_than_vectors_gives_what_there_is():
    assert len(filled().search(EAST, 50)) == 4
    assert filled().search(EAST, 5, "audio") == []


def test_a_replay_changes_nothing_and_a_new_vector_replaces():
    index = filled()
    for _ in range(3):
        index.upsert(["t1"], ["c1"], "text", [EAST], fingerprint="fp-text")
    assert (len(index), found(index, EAST, 1, "text")) == (4, [("c1", "text", 1.0)])
    index.upsert(["t1"], ["c9"], "text", [NORTH_EAST], fingerprint="fp-text")
    assert len(index) == 4
    assert found(index, NORTH_EAST, 1, "text") == [("c9", "text", 1.0)]
    assert index.vector_of("c1", "text") is None


def test_one_event_twice_in_a_batch_keeps_the_last():
    index = VectorIndex(2)
    index.upsert(["e", "e"], ["a", "b"], "fused", [EAST, NORTH], fingerprint="f")
    assert found(index, NORTH, 5) == [("b", "fused", 1.0)]


def test_delete_forgets_a_case_everywhere_and_upsert_still_finds_its_rows():
    index = filled()
    assert index.delete("c1") == 2
    assert index.delete("c1") == 0
    assert index.counts() == {
        "text": 2,
        "image": 0,
        "audio": 0,
        "tabular": 0,
        "fused": 0,
    }
    index.upsert(
        ["t3", "t4"], ["c3", "c4"], "text", [NORTH, EAST], fingerprint="fp-text"
    )
    assert found(index, NORTH, 3, "text") == [
        ("c2", "text", 1.0),
        ("c3", "text", 1.0),
        ("c4", "text", 0.0),
    ]


def test_vector_of_a_case_is_that_of_its_newest_event():
    index = filled()
    index.upsert(["t9"], ["c1"], "text", [WEST], fingerprint="fp-text")
    assert index.vector_of("c1", "text").tolist() == WEST
    assert index.vector_of("c1", "audio") is None


def test_vectors_of_another_model_are_refused_by_both_names():
    index = VectorIndex(2, {"text": "aaaa"})
    with pytest.raises(FingerprintError, match=r"'bbbb'.*'aaaa'"):
        index.upsert(["e"], ["c"], "text", [EAST], fingerprint="bbbb")
    assert len(index) == 0


def test_the_first_vectors_name_the_model_of_a_space():
    with pytest.raises(FingerprintError, match=r"'other'.*'fp-text'"):
        filled().upsert(["e"], ["c"], "text", [EAST], fingerprint="other")


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        ([[float("nan"), 1.0]], "length nan"),
        ([[float("inf"), 0.0]], "length inf"),
        ([[3.0, 4.0]], "length 5"),
        ([[0.0, 0.0]], "length 0"),
        ([[1.0, 0.0, 0.0]], r"shape \(1, 3\)"),
        ([EAST, NORTH], "2 vectors"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(vectors, reason):
    index = VectorIndex(2)
    with pytest.raises(VectorError, match=reason):
        index.upsert(["e"], ["c"], "text", vectors, fingerprint="f")
    assert len(index) == 0
    assert index.fingerprints == {}


def test_unknown_modalities_and_bad_queries_are_refused():
    with pytest.raises(VectorError, match="'video'"):
        filled().search(EAST, 1, "video")
    with pytest.raises(VectorError, match="k must be"):
        filled().search(EAST, 0)
    with pytest.raises(VectorError, match="length 2"):
        filled().search([2.0, 0.0], 1)


def test_a_snapshot_brings_back_vectors_keys_fingerprints_and_offsets(tmp_path):
    before = filled()
    before.delete("c2")
    before.snapshot(tmp_path, {("vectors", 0): 17, ("vectors", 1): 4})
    after = VectorIndex(2)
    assert after.restore(tmp_path) == {("vectors", 0): 17, ("vectors", 1): 4}
    assert after.search(NORTH_EAST, 9) == before.search(NORTH_EAST, 9)
    assert after.fingerprints == {"text": "fp-text", "image": "fp-image"}
    after.upsert(
        ["t1", "t5"], ["c1", "c5"], "text", [EAST, EAST], fingerprint="fp-text"
    )
    assert after.counts()["text"] == 3
    assert after.delete("c1") == 2


def test_only_the_newest_snapshot_is_kept(tmp_path):
    index = filled()
    for offset in (1, 2, 3):
        index.snapshot(tmp_path, {("vectors", 0): offset})
    assert index.restore(tmp_path) == {("vectors", 0): 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "current.json",
        "snapshot-00000003",
    ]


def test_a_crash_while_writing_leaves_the_snapshot_before(tmp_path):
    index = filled()
    index.snapshot(tmp_path, {("vectors", 0): 1})
    (tmp_path / ".stage").mkdir()
    (tmp_path / ".stage" / "text.faiss").write_bytes(b"half")
    (tmp_path / "snapshot-00000002").mkdir()
    assert VectorIndex(2).restore(tmp_path) == {("vectors", 0): 1}
    index.snapshot(tmp_path, {("vectors", 0): 2})
    assert VectorIndex(2).restore(tmp_path) == {("vectors", 0): 2}


def test_nothing_to_restore_is_no_error(tmp_path):
    assert VectorIndex(2).restore(tmp_path / "absent") == {}


@pytest.mark.parametrize("name", ["text.faiss", "keys.arrow", "snapshot.json"])
def test_an_altered_snapshot_is_refused_and_changes_nothing(tmp_path, name):
    filled().snapshot(tmp_path, {("vectors", 0): 1})
    path = tmp_path / "snapshot-00000001" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)
    index = VectorIndex(2)
    with pytest.raises(SnapshotError, match="delete it to rebuild"):
        index.restore(tmp_path)
    assert len(index) == 0


def test_a_snapshot_of_another_model_or_width_is_refused(tmp_path):
    filled().snapshot(tmp_path, {})
    with pytest.raises(FingerprintError, match=r"'fp-text'.*'new'"):
        VectorIndex(2, {"text": "new"}).restore(tmp_path)
    with pytest.raises(SnapshotError, match="width is 2"):
        VectorIndex(3).restore(tmp_path)


def test_a_snapshot_holds_no_pickle(tmp_path):
    filled().snapshot(tmp_path, {})
    folder = tmp_path / "snapshot-00000001"
    assert {path.suffix for path in folder.iterdir()} == {".faiss", ".arrow", ".json"}
    json.loads((folder / "snapshot.json").read_text())


def test_an_exact_search_agrees_with_numpy():
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"e{row:03}" for row in range(500)]
    index = VectorIndex(16)
    for at in range(0, 500, 70):
        part = slice(at, at + 70)
        index.upsert(names[part], names[part], "fused", vectors[part], fingerprint="f")
    order = np.argsort(-(vectors @ vectors[3]))[:10]
    hits = index.search(vectors[3], 10, "fused")
    assert [hit.event_id for hit in hits] == [names[row] for row in order]


def test_searches_beside_writes_see_whole_states():
    index, errors = filled(), []

    def look():
        try:
            for _ in range(300):
                index.search(EAST, 5)
                index.vector_of("c1", "text")
                index.freeze({})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(200):
        name = f"n{turn % 20}"
        index.upsert([name], [name], "text", [NORTH_EAST], fingerprint="fp-text")
        if turn % 7 == 0:
            index.delete(name)
    for thread in threads:
        thread.join()
    assert errors == []
