"""Shards of keys: which node owns them, and the state of each one on its node."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from pyflink.datastream import RuntimeContext


def shard_of(key: str, shards: int) -> int:
    """The shard of a key; the same in every process and version."""
    return zlib.crc32(key.encode()) % shards


def by_shard(keys: Sequence[str], shards: int) -> dict[int, list[int]]:
    """Which of the keys are in each shard, in their order."""
    found: dict[int, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(shard_of(key, shards), []).append(i)
    return found


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
        self._nodes = nodes
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

    def by_node(self, keys: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
        """For each node that owns any of the keys: its Flink key, and which keys."""
        if self._nodes == 1 and keys:
            yield self._keys[0], [*range(len(keys))]
            return
        found: dict[int, list[int]] = {}
        for i, key in enumerate(keys):
            node = shard_of(key, self.count) * self._nodes // self.count
            found.setdefault(node, []).append(i)
        for node, members in found.items():
            yield self._keys[self._firsts[node]], members

    def every_node(self) -> list[int]:
        """A Flink key for each node."""
        return [self._keys[first] for first in self._firsts]


class OwnShards:
    """The keyed state of every shard of a subtask, one after the other.

    Flink gives an operator the state of the key its input came under. This asks its
    state backend, which PyFlink keeps to itself, for another key of the same subtask.
    """

    def __init__(self, context: RuntimeContext, shards: Shards) -> None:
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
