"""The durable rows of each shard, from which its windows can be built again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pyflink.common.typeinfo import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

#: Rows of many frames that are put into one entry together.
CHUNK_ROWS = 512

#: Rows as columns of equal length.
Columns = dict[str, list[Any]]


@dataclass(slots=True)
class _Tail:
    """The entries of a shard behind its last chunk, which become the next one."""

    next_key: int = 0
    keys: list[int] = field(default_factory=list)
    columns: Columns = field(default_factory=dict)
    chunks: int = 0


class SeenRows:
    """A log of rows for each shard, in Flink state; of the shard that is in use.

    A frame appends one entry. Many small entries are put into one of `CHUNK_ROWS` rows
    now and then, which costs the same however long the log is.
    """

    def __init__(self, context: RuntimeContext) -> None:
        entries = MapStateDescriptor("seen", Types.LONG(), Types.PICKLED_BYTE_ARRAY())
        self._entries = context.get_map_state(entries)
        self._tails: dict[int, _Tail] = {}

    def restore(self, shard: int) -> Iterator[Columns]:
        """The entries of a shard, oldest first; to be read before any is added."""
        tail = self._tails[shard] = _Tail()
        for key, columns in sorted(self._entries.items()):
            yield columns
            self._note(tail, key, columns)

    def chunks(self, shard: int) -> int:
        """How many chunks there are."""
        return self._tails[shard].chunks

    def add(self, shard: int, columns: Columns) -> None:
        """Append rows."""
        tail = self._tails[shard]
        key = tail.next_key
        self._entries.put(key, columns)
        chunks = tail.chunks
        keys, merged = [*tail.keys, key], tail.columns
        self._note(tail, key, columns)
        if tail.chunks > chunks and len(keys) > 1:
            for old in keys[1:]:
                self._entries.remove(old)
            self._entries.put(keys[0], merged)

    def replace(self, shard: int, columns: Columns) -> None:
        """Keep these rows instead of all there were."""
        self._entries.clear()
        self._tails[shard] = _Tail()
        rows = len(next(iter(columns.values())))
        for start in range(0, rows, CHUNK_ROWS):
            stop = start + CHUNK_ROWS
            self.add(shard, {n: values[start:stop] for n, values in columns.items()})

    @staticmethod
    def _note(tail: _Tail, key: int, columns: Columns) -> None:
        """Count an entry; one that fills a chunk ends the tail, merged or not."""
        tail.next_key = key + 1
        tail.keys.append(key)
        for name, values in columns.items():
            tail.columns.setdefault(name, []).extend(values)
        if len(next(iter(tail.columns.values()))) >= CHUNK_ROWS:
            tail.keys, tail.columns = [], {}
            tail.chunks += 1
