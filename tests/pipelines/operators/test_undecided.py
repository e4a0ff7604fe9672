import numpy as np
import pyarrow as pa

from connectors.origins import Origins
from connectors.records import Place
from connectors.rows import EventRows
from pipelines.operators.assemble import Case, Landing, land, release
from pipelines.operators.undecided import joined, of_pending, of_rows


def payments():
    place = Place(topic="t", partition=0, offset=40)
    return EventRows(
        modality="tabular",
        event_id=pa.array(["e0", "e1", "e2"]),
        case_id=pa.array(["a", "b", "c"]),
        event_time_ms=np.array([5, 6, 7]),
        created_ms=np.array([1, 2, 3]),
        origins=Origins.of_frame(place, np.arange(3, dtype=np.int32)),
    )


def pending(content=None):
    """A case with its payment and its image, and one with a text alone."""
    features = np.array([1.5, np.nan, 3.0]) if content is None else content
    vector = np.array([0.6, 0.8], dtype=np.float32)
    case, other = Case("k"), Case("m")
    made = land(case, Landing("k.t", 1, 0, 10, 0, features, 41, 2))
    made += land(case, Landing("k.i", 2, 2, 11, 0, vector))
    land(other, Landing("m.x", 3, 1, 12, 0, vector))
    return [*made, *release(other)]


def test_chosen_rows_are_first_revisions_of_their_cases():
    x = np.arange(6.0).reshape(3, 2)
    given = of_rows(payments(), x, np.array([True, False, True]))
    assert len(given) == 2
    assert given.case_id.to_pylist() == ["a", "c"]
    assert given.event_id.to_pylist() == ["e0", "e2"]
    assert given.x.tolist() == [[0.0, 1.0], [4.0, 5.0]]
    assert given.event_time_ms.tolist() == [5, 7]
    assert given.created_ms.tolist() == [1, 3]
    assert given.source_offset.tolist() == [40, 40]
    assert given.source_row.tolist() == [0, 2]
    assert given.revision.tolist() == given.modality.tolist() == [0, 0]
    assert given.mask.tolist() == [[True, False, False, False]] * 2
    assert given.vectors is None


def test_a_row_per_decision_with_what_had_landed():
    given = of_pending(pending(), features=3, width=2)
    assert str(given.x.tolist()) == str([[1.5, np.nan, 3.0]] * 2 + [[np.nan] * 3])
    assert given.mask.tolist() == [
        [True, False, False, False],
        [True, False, True, False],
        [False, True, False, False],
    ]
    assert given.vectors.shape == (3, 4, 2)
    assert given.vectors[1, 2].tolist() == np.float32([0.6, 0.8]).tolist()
    assert given.vectors[0].any() == given.vectors[1, 1].any() == np.False_
    assert given.vectors.dtype == np.float32
    assert given.revision.tolist() == [0, 1, 0]
    assert given.modality.tolist() == [0, 2, 1]
    assert given.source_offset.tolist() == [41, 0, 0]
    assert given.source_row.tolist() == [2, -1, -1]
    assert of_pending(pending()[:1], features=3, width=2).vectors is None


def test_two_batches_make_one_in_their_order():
    rows = of_rows(payments(), np.zeros((3, 3)), np.ones(3, dtype=bool))
    later = of_pending(pending(), features=3, width=2)
    both = joined(rows, later)
    assert both.case_id.to_pylist() == ["a", "b", "c", "k", "k", "m"]
    assert both.revision.tolist() == [0, 0, 0, 0, 1, 0]
    assert both.mask.sum(axis=1).tolist() == [1, 1, 1, 1, 2, 1]
    assert not both.vectors[:3].any()
    assert (both.vectors[3:] == later.vectors).all()
    nothing = of_rows(payments(), np.zeros((3, 3)), np.zeros(3, dtype=bool))
    assert joined(nothing, later) is later
    assert joined(rows, nothing) is rows
