import pyarrow as pa

from pipelines.event_keys import event_keys, key_of_event


def texts(*values):
    return pa.array(values, pa.string())


def test_each_part_of_an_event_tells_it_from_others():
    cases = texts("a", "b", "a", "a", None, "a", "ab", "a")
    kinds = texts("text", "text", "audio", "text", "text", "text", "text", None)
    ids = texts("1", "1", "1", "2", "1", None, "", "b")
    keys = event_keys(cases, kinds, ids)
    assert len({*keys.tolist()}) == 8
    parts = (column.to_pylist() for column in (cases, kinds, ids))
    assert [key_of_event(event) for event in zip(*parts, strict=True)] == keys.tolist()


def test_one_modality_stands_for_all_rows():
    cases, ids = texts("a", "b"), texts("1", "2")
    one = event_keys(cases, "image", ids)
    assert one.tolist() == event_keys(cases, texts("image", "image"), ids).tolist()


def test_a_case_and_an_id_do_not_change_places():
    one, two = event_keys(texts("a", "b"), "text", texts("b", "a")).tolist()
    assert one != two
