import itertools
import pickle

import numpy as np
import pytest

from automl.keys import key_of
from pipelines.operators.parts import InOrder, Part, forget_handed, onward
from pipelines.operators.shards import Shards, shard_of


@pytest.fixture
def part(rows_of, payment):
    """Frame `number` with payments of the given customers."""

    def make(number, customers):
        events = [payment(i, customer=c) for i, c in enumerate(customers)]
        rows = rows_of("tabular", *events, frame=True)
        return Part((0, number), np.arange(len(rows)), rows)

    return make


def test_every_node_gets_a_part_on_the_way_to_an_entity(part):
    whole = part(7, "abcdefgh")
    out = list(onward(Shards(4, 2), whole, "customer"))
    assert [node for node, _ in out] == [0, 2]
    for node, one in out:
        assert one.frame == (0, 7)
        customers = one.rows.keys("customer").tolist()
        assert {shard_of(c, 4) // 2 * 2 for c in customers} == {node}
        assert [key_of("abcdefgh"[i]) for i in one.positions] == customers
    (_, first), (_, second) = onward(Shards(4, 2), part(8, "a"), "customer")
    assert sorted([first.rows is None, second.rows is None]) == [False, True]


def test_cases_get_rows_and_only_where_there_are_some(part):
    ((node, rows),) = onward(Shards(4, 2), part(7, "a"), "case_id")
    assert node == shard_of(key_of(rows.case_id[0].as_py()), 4) // 2 * 2
    nothing = Part((0, 8), np.arange(0), None)
    assert list(onward(Shards(4, 2), nothing, "case_id")) == []


def test_one_node_gets_the_frame_itself_as_a_number(part):
    whole = part(7, "abc")
    for key, what in (("customer", whole), ("case_id", whole.rows)):
        ((_, handed),) = onward(Shards(4, 1), whole, key)
        sent = pickle.dumps(handed)
        assert len(sent) < 200
        assert pickle.loads(sent) is what
        with pytest.raises(KeyError):  # it is handed on once
            pickle.loads(sent)


def test_what_a_failed_job_had_under_way_is_forgotten(part):
    ((_, handed),) = onward(Shards(4, 1), part(7, "abc"), "customer")
    sent = pickle.dumps(handed)
    forget_handed()
    with pytest.raises(KeyError):
        pickle.loads(sent)


def test_no_cases_are_nothing_for_one_node(part):
    nothing = Part((0, 7), np.arange(0), None)
    assert list(onward(Shards(4, 1), nothing, "case_id")) == []


def test_parts_become_the_frame_again_in_whatever_order_they_come(part):
    whole = part(7, "abcdefgh")
    parts = [one for _, one in onward(Shards(4, 4), whole, "customer")]
    for order in itertools.permutations(parts):
        gate = InOrder(4)
        assert [gate.add(one) for one in order[:3]] == [None] * 3
        again = gate.add(order[3])
        assert again.positions.tolist() == [*range(8)]
        assert again.rows.event_id == whole.rows.event_id
        assert again.rows.keys("customer").tolist() == [*map(key_of, "abcdefgh")]


def test_a_frame_without_rows_is_told_of_too():
    gate = InOrder(2)
    empty = Part((0, 1), np.arange(0), None)
    assert gate.add(empty) is None
    assert gate.add(empty).rows is None


def test_frames_that_overlap_are_kept_apart(part):
    gate = InOrder(2)
    (_, a0), (_, a1) = onward(Shards(4, 2), part(1, "abcd"), "customer")
    (_, b0), (_, b1) = onward(Shards(4, 2), part(2, "abcd"), "customer")
    assert [gate.add(one) for one in (a0, b0)] == [None, None]
    assert [gate.add(one).frame for one in (a1, b1)] == [(0, 1), (0, 2)]


def test_a_part_travels_as_it_is(part):
    some = part(7, "abc").take(np.array([0, 2]))
    came = pickle.loads(pickle.dumps(some))
    assert (came.frame, came.positions.tolist()) == ((0, 7), [0, 2])
    assert came.rows.event_id.to_pylist() == ["e0", "e2"]
    nothing = pickle.loads(pickle.dumps(Part((1, 2), np.arange(0), None)))
    assert (nothing.frame, len(nothing.positions), nothing.rows) == ((1, 2), 0, None)
