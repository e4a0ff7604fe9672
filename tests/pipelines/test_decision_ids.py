import pyarrow as pa

from pipelines.decision_ids import decision_id, decision_ids


def test_a_decision_id_is_fixed_by_task_and_case():
    assert decision_id("fraud", "case-1") == "6ee9e9065ec700bc1027a746"
    others = {decision_id("fraud", "case-2"), decision_id("f", "raudcase-1")}
    assert "6ee9e9065ec700bc1027a746" not in others
    assert len(others) == 2


def test_the_ids_of_many_cases_are_those_of_each():
    cases = ["", "a", "caf\u00e9", "x" * 127, "x" * 128, "x" * 500]
    found = decision_ids("t\u00e4sk", pa.array(cases))
    assert found.type == pa.string()
    assert found.to_pylist() == [decision_id("t\u00e4sk", case) for case in cases]
    assert decision_ids("t", pa.array([], pa.string())).to_pylist() == []


def test_ids_of_a_part_of_an_array_are_its_own():
    cases = pa.array(["a", "b", "c", "d"]).slice(1, 2)
    assert decision_ids("t", cases).to_pylist() == [
        decision_id("t", "b"),
        decision_id("t", "c"),
    ]
