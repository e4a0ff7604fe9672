import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from automl.evaluate import EvaluationError
from connectors.schemas import LABELS, TIME
from pipelines.judge import DAY_MS, DECISION_COLUMNS, judge, read_columns


def decisions(*rows):
    """(case, revision, score, day) each."""
    case, revision, score, day = zip(*rows, strict=True)
    return pa.table(
        {
            "case_id": case,
            "revision": pa.array(revision, pa.int32()),
            "score": score,
            "event_time": pa.array([d * DAY_MS + 5 for d in day], TIME),
        }
    )


def labels(**label_of):
    return pa.table(
        {
            "case_id": [*label_of],
            "label_time": pa.array([9] * len(label_of), TIME),
            "label": pa.array(label_of.values(), pa.int8()),
        },
        schema=LABELS,
    )


FOUR = decisions(("a", 0, 0.9, 1), ("b", 0, 0.8, 1), ("c", 0, 0.3, 2), ("d", 0, 0.2, 2))


def test_the_figures_of_four_cases():
    found = judge(FOUR, labels(a=1, b=0, c=1, d=0), k=1)
    assert found == {
        "cases": 4,
        "positives": 2,
        # of the pairs a > b, a > d, c < b, c > d three are in order
        "auc": 0.75,
        "average_precision": pytest.approx((1 / 1 + 2 / 3) / 2),
        # both days list one case, and both are right
        "precision_at_k": 1.0,
        # b is above c, d is not
        "fpr_at_recall_80": 0.5,
        "ece": pytest.approx((0.1 + 0.8 + 0.7 + 0.2) / 4),
    }


def test_a_longer_list_is_less_often_right():
    found = judge(FOUR, labels(a=1, b=0, c=1, d=0), k=2)
    assert found["precision_at_k"] == 0.5


def test_the_last_revision_counts_wherever_it_stands():
    revised = decisions(
        ("a", 2, 0.9, 1), ("a", 1, 0.1, 1), ("b", 0, 0.95, 1), ("b", 1, 0.2, 1)
    )
    assert judge(revised, labels(a=1, b=0), k=1)["auc"] == 1.0


def test_cases_without_a_label_are_left_out():
    found = judge(FOUR, labels(a=1, b=None, c=-1, d=0, nobody=1), k=1)
    assert (found["cases"], found["positives"]) == (2, 1)
    assert found["auc"] == 1.0


def test_files_of_different_runs_are_told():
    with pytest.raises(ValueError, match="no decision has a label"):
        judge(FOUR, labels(other=1), k=1)


def test_one_class_cannot_be_judged():
    with pytest.raises(EvaluationError, match="2 classes"):
        judge(FOUR, labels(a=1, b=1), k=1)


def test_a_file_is_read_by_its_columns(tmp_path):
    path = tmp_path / "d.parquet"
    table = decisions(("a", 0, 0.5, 1))
    pq.write_table(table.append_column("more", pa.array([1])), path)
    assert read_columns(path, DECISION_COLUMNS).equals(table)


def test_a_file_that_is_none_is_named_with_the_reason(tmp_path):
    path = tmp_path / "d.parquet"
    with pytest.raises(ValueError, match=r"d\.parquet: no such file"):
        read_columns(path, DECISION_COLUMNS)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"d\.parquet: not Parquet"):
        read_columns(path, DECISION_COLUMNS)
    pq.write_table(pa.table({"case_id": ["a"]}), path)
    with pytest.raises(ValueError, match="column 'revision' is missing"):
        read_columns(path, DECISION_COLUMNS)
