"""Shards of keys: which node owns them, and the state of each one on its node."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyflink.datastream import RuntimeContext

from automl.keys import groups

#: Which rows, by their growing positions.
Positions = NDArray[np.int64]


def shard_of(key: int | np.uint64, shards: int) -> int:
    """The shard of a key; the same in every process and version."""
    return int(key) % shards


def by_shard(keys: NDArray[np.uint64], shards: int) -> dict[int, Positions]:
    """Which of the keys are in each shard, in their order."""
    positions, starts = groups(keys, shards)
    bounds = starts.tolist()
    return {
        shard: positions[start:stop]
        for shard, (start, stop) in enumerate(pairwise(bounds))
        if stop > start
    }


class Shards:
    """Where keys live: in a fixed number of shards, spread evenly over the nodes.

    A shard is a key group of Flink (a job's `max_parallelism` is its number of shards),
    so a rescaled job keeps every shard's state whole. Rows of many shards travel
    together to the node that owns them, and the operator there opens the state of one
    shard after the other: frames stay whole, however many shards there are.

    Args:
        shards: number of shards, the `max_parallelism` of the job.
        nodes: the job's parallelism.
    """

    def __init__(self, shards: int, nodes: int) -> None:
        self.nodes = nodes
        self.count = shards
        self._keys = _keys_of_groups(shards)
        self._shards = {key: shard for shard, key in enumerate(self._keys)}
        # Flink gives key group g to subtask g * nodes // shards
        self._firsts = [-(-node * shards // nodes) for node in range(nodes)]

    def of_flink_key(self, key: int) -> int:
        """The shard that Flink calls `key`."""
        return self._shards[key]

    def flink_key(self, shard: int) -> int:
        """What Flink calls a shard."""
        return self._keys[shard]

    def by_node(self, keys: NDArray[np.uint64]) -> Iterator[tuple[int, Positions]]:
        """For each node that owns any of the keys: its Flink key, and which keys."""
        shards = keys % np.uint64(self.count)
        nodes = shards * np.uint64(self.nodes) // np.uint64(self.count)
        for node, members in by_shard(nodes, self.nodes).items():
            yield self._keys[self._firsts[node]], members

    def every_node(self) -> list[int]:
        """A Flink key for each node."""
        return [self._keys[first] for first in self._firsts]


#: How long an operator that computes keeps others of its node from the interpreter.
SWITCH_S = 0.0002


class OwnShards:
    """The keyed state of every shard of a subtask, one after the other.

    Flink gives an operator the state of the key its input came under. This asks its
    state backend, which PyFlink keeps to itself, for another key of the same subtask.
    """

    def __init__(self, context: RuntimeContext, shards: Shards) -> None:
        # every call of state, of Arrow and of compiled code gives the interpreter up,
        # and would wait 5 ms, Python's default, to get it back from a busy operator
        sys.setswitchinterval(SWITCH_S)
        self._backend = context.get_keyed_state_backend()._keyed_state_backend
        groups = self._backend.getKeyGroupRange()
        self.owned = range(groups.getStartKeyGroup(), groups.getEndKeyGroup() + 1)
        self._keys = {s: _java_key(shards.flink_key(s)) for s in self.owned}

    def use(self, shard: int) -> None:
        """State and timers are those of `shard` from here to the next input."""
        self._backend.setCurrentKey(self._keys[shard])


def _keys_of_groups(groups: int) -> list[int]:
    """For each key group the smallest whole number that Flink puts in it."""
    found: dict[int, int] = {}
    key = 0
    while len(found) < groups:
        found.setdefault(_key_group(key, groups), key)
        key += 1
    return [found[group] for group in range(groups)]


def _key_group(key: int, groups: int) -> int:
    from pemja import findClass

    assign = findClass("org.apache.flink.runtime.state.KeyGroupRangeAssignment")
    return int(assign.assignToKeyGroup(_java_key(key), groups))


def _java_key(key: int) -> Any:
    from pemja import findClass

    row = findClass("org.apache.flink.types.Row")(1)
    row.setField(0, key)
    return row
