"""Keys of texts: the same for the same text, wherever it stands."""

import pyarrow as pa
import pytest

from automl.keys import MISSING, key_of, text_keys


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
