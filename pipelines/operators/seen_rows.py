"""The durable rows of each shard, from which its windows can be built again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyflink.common.typeinfo import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

#: Rows of many frames that are put into one entry together.
CHUNK_ROWS = 4096
#: Rows that a log may hold beyond twice those that are needed.
SPARE_ROWS = 16_384

Rows = NDArray[np.int64]


@dataclass(slots=True)
class _Log:
    """What is known of the log of a shard without reading it.

    Attributes:
        next_key: of the next entry.
        rows: in all entries.
        needed: how many of them were needed when it was written anew.
        tail: keys and bytes of the entries behind the last chunk.
        tail_rows: rows in those.
    """

    next_key: int = 0
    rows: int = 0
    needed: int = 0
    tail: list[tuple[int, bytes]] = field(default_factory=list)
    tail_rows: int = 0


class SeenRows:
    """A log of packed rows for each shard, in Flink state; of the shard in use.

    A frame appends one entry. Many small entries are put into one of `CHUNK_ROWS` rows
    now and then, which costs the same however long the log is. A log that holds more
    than twice what is needed is written anew by whoever knows what that is.

    Args:
        context: where the state is.
        width: words of a row.
    """

    def __init__(self, context: RuntimeContext, width: int) -> None:
        entries = MapStateDescriptor("seen", Types.LONG(), Types.PICKLED_BYTE_ARRAY())
        self._entries = context.get_map_state(entries)
        self._width = width
        self._logs: dict[int, _Log] = {}

    def restore(self, shard: int) -> Iterator[Any]:
        """The entries of a shard, oldest first; to be read before any is added.

        Packed rows are int64 (B, W); other entries come as they were given.
        """
        log = self._logs[shard] = _Log()
        for key, entry in sorted(self._entries.items(), key=lambda item: item[0]):
            log.next_key = key + 1
            if not isinstance(entry, bytes):
                yield entry
                continue
            rows = np.frombuffer(bytearray(entry), np.int64).reshape(-1, self._width)
            log.rows += len(rows)
            yield rows
        log.needed = log.rows

    def is_long(self, shard: int) -> bool:
        """Whether the log may hold more than twice what is needed."""
        log = self._logs[shard]
        return log.rows > 2 * log.needed + SPARE_ROWS

    def add(self, shard: int, rows: Rows) -> None:
        """Append packed rows (B, W)."""
        log = self._logs[shard]
        raw = rows.tobytes()
        key = log.next_key
        self._entries.put(key, raw)
        log.next_key += 1
        log.rows += len(rows)
        log.tail.append((key, raw))
        log.tail_rows += len(rows)
        if log.tail_rows >= CHUNK_ROWS:
            if len(log.tail) > 1:
                for old, _ in log.tail[1:]:
                    self._entries.remove(old)
                whole = b"".join(raw for _, raw in log.tail)
                self._entries.put(log.tail[0][0], whole)
            log.tail, log.tail_rows = [], 0

    def replace(self, shard: int, parts: Iterable[Any]) -> None:
        """Keep this instead of all there was: packed rows, and other entries."""
        self._entries.clear()
        log = self._logs[shard] = _Log()
        for part in parts:
            if not isinstance(part, np.ndarray):
                self._entries.put(log.next_key, part)
                log.next_key += 1
                continue
            for start in range(0, len(part), CHUNK_ROWS):
                self.add(shard, part[start : start + CHUNK_ROWS])
        log.needed = log.rows
