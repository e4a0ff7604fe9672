"""Keys of texts: the same for the same text, wherever it stands."""

import pyarrow as pa
import pytest

from automl.keys import MISSING, groups, key_of, text_keys


def test_integers_are_texts_and_a_missing_text_has_no_key() -> None:
    assert text_keys(pa.array(["5", None])).tolist() == [key_of("5"), MISSING]
    assert text_keys(pa.array([5, None])).tolist() == [key_of(5), MISSING]
    assert key_of(5) == key_of("5") != MISSING
    assert key_of("") != MISSING


def test_slices_chunks_and_dictionaries_give_the_same_keys() -> None:
    texts = pa.array(["a", None, "a longer text", "ä", ""])
    keys = text_keys(texts).tolist()
    assert text_keys(texts[1:4]).tolist() == keys[1:4]
    assert text_keys(pa.chunked_array([texts[:2], texts[2:]])).tolist() == keys
    assert text_keys(texts.dictionary_encode()).tolist() == keys
    assert text_keys(texts.cast(pa.large_string())).tolist() == keys
    assert len({*keys, key_of("a\0"), key_of("a\0\0")}) == 7


def test_floats_have_no_keys() -> None:
    with pytest.raises(TypeError, match="expected texts or integers"):
        text_keys(pa.array([1.5]))


def test_keys_are_the_same_in_every_process_and_release() -> None:
    assert key_of("a") == 7444528356536817890
    assert key_of("card-00042") == 7733447651719285433


def test_groups_keep_the_order_and_hold_every_key() -> None:
    keys = text_keys(pa.array([f"k{i}" for i in range(100)]))
    positions, starts = groups(keys, 7)
    assert sorted(positions.tolist()) == [*range(100)]
    assert starts[0] == 0
    assert starts[-1] == 100
    for group in range(7):
        members = positions[starts[group] : starts[group + 1]].tolist()
        assert members == [i for i in range(100) if int(keys[i]) % 7 == group]
    positions, starts = groups(keys[:0], 3)
    assert (positions.tolist(), starts.tolist()) == ([], [0, 0, 0, 0])
