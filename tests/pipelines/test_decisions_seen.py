import pyarrow as pa

from connectors.schemas import DECISIONS
from pipelines.decisions_seen import DecisionsSeen
from tests.pipelines.test_account import decision


def frame(*rows):
    return pa.RecordBatch.from_pylist([*rows], schema=DECISIONS)


def test_new_rows_come_back_and_all_are_in_the_table():
    seen = DecisionsSeen()
    first = frame(decision("a", 0), decision("b", 0), decision("a", 1))
    assert seen.add(first) is first
    new = seen.add(frame(decision("b", 0), decision("c", 0), decision("c", 0)))
    assert new.column("case_id").to_pylist() == ["c"]
    assert seen.table().column("decision_id").to_pylist() == [
        "id-a",
        "id-b",
        "id-a",
        "id-c",
    ]
    assert (seen.duplicated, seen.differing, seen.revised) == (2, 0, 1)
    assert (len(seen.events), seen.tabular) == (4, 3)


def test_what_differs_is_told_by_column_whatever_its_type():
    seen = DecisionsSeen()
    seen.add(frame(decision("a", 0), decision("b", 0), decision("c", 0)))
    seen.add(
        frame(
            decision("c", 0, modalities=["tabular", "text"]),
            decision("a", 0, score=None, reasons="[1]"),
            decision("b", 0, decided_ms=99),
        )
    )
    assert (seen.duplicated, seen.differing) == (3, 2)
    assert seen.differing_columns == {"modalities": 1, "score": 1, "reasons": 1}


def test_a_repeated_row_is_compared_with_the_first_not_the_last():
    seen = DecisionsSeen()
    for score in (0.1, 0.2, 0.1):
        seen.add(frame(decision("a", 0, score=score)))
    assert (seen.duplicated, seen.differing) == (2, 1)
    assert seen.table().column("score").to_pylist() == [0.1]


def test_nothing_seen_is_an_empty_table():
    assert DecisionsSeen().table() == DECISIONS.empty_table()
