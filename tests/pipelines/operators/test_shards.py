import numpy as np
import pyarrow as pa
import pytest

from automl.keys import key_of, text_keys
from pipelines.operators.shards import OwnShards, Shards, by_shard, shard_of

KEYS = text_keys(pa.array([f"k{i}" for i in range(200)]))


def test_a_shard_is_the_same_in_every_process():
    # a key is the same everywhere; its shard is what is left of it
    assert shard_of(np.uint64(2**64 - 1), 10) == 5  # 18446744073709551615
    assert shard_of(key_of("case-1"), 16) == int(key_of("case-1")) % 16
    assert {shard_of(key_of(f"case-{i}"), 4) for i in range(50)} == {0, 1, 2, 3}


def test_keys_are_grouped_by_shard_in_their_order():
    keys = KEYS[:40]
    groups = by_shard(keys, 4)
    assert sorted(i for members in groups.values() for i in members) == [*range(40)]
    for shard, members in groups.items():
        assert {shard_of(keys[i], 4) for i in members} == {shard}
        assert members.tolist() == sorted(members)


def test_one_shard_has_all_keys_and_no_keys_have_no_shard():
    ((shard, members),) = by_shard(KEYS, 1).items()
    assert (shard, members.tolist()) == (0, [*range(200)])
    for shards in (1, 4):
        assert by_shard(KEYS[:0], shards) == {}
        assert list(Shards(4, 1 if shards == 1 else 2).by_node(KEYS[:0])) == []


@pytest.mark.parametrize(("shards", "nodes"), [(16, 1), (16, 2), (16, 3), (7, 7)])
def test_every_key_goes_to_the_node_that_flink_gives_its_shard(shards, nodes):
    keys = KEYS
    layout = Shards(shards, nodes)
    # as KeyGroupRangeAssignment.computeOperatorIndexForKeyGroup has it
    node_of = [group * nodes // shards for group in range(shards)]
    seen = []
    for flink_key, members in layout.by_node(keys):
        node = node_of[flink_key % shards]
        assert {node_of[shard_of(keys[i], shards)] for i in members} == {node}
        assert members.tolist() == sorted(members)
        seen += members.tolist()
    assert sorted(seen) == [*range(200)]
    reached = [node_of[key % shards] for key in layout.every_node()]
    assert reached == [*range(nodes)]


def test_the_state_of_each_own_shard_is_reached(runtime):
    runtime.groups = range(2, 4)
    own = OwnShards(runtime, Shards(4, 2))
    assert [*own.owned] == [2, 3]
    own.use(3)
    assert runtime.get_current_key() == 3
    with pytest.raises(KeyError):
        own.use(1)
