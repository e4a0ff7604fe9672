"""Frames taken apart for several nodes, and put together again in their order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyflink.common import Row

from connectors.rows import EventRows, concat_rows
from pipelines.operators.shards import Shards


@dataclass(slots=True)
class Part:
    """What one node gets of one frame.

    Attributes:
        frame: the partition it was read from, and a number that grows there.
        positions: int64 (B,), where the rows stand in the frame, growing.
        rows: the rows; None when the node gets none of them.
    """

    frame: tuple[int, int]
    positions: NDArray[np.int64]
    rows: EventRows | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as bytes: an array alone would take numpy 4 us."""
        return _unpickled, (self.frame, self.positions.tobytes(), self.rows)

    def take(self, members: NDArray[np.int64]) -> Part:
        """The rows at growing positions; itself when those are all of them."""
        if self.rows is None or len(members) == len(self.rows):
            return self
        rows = self.rows.take(members) if len(members) else None
        return Part(self.frame, self.positions[members], rows)


def _unpickled(
    frame: tuple[int, int], positions: bytes, rows: EventRows | None
) -> Part:
    return Part(frame, np.frombuffer(bytearray(positions), dtype=np.int64), rows)


#: What is handed on within this process, by number.
_HANDED: dict[int, Any] = {}
_NUMBERS = itertools.count()


class Handed:
    """What an operator gives to another of its process: a number instead of bytes.

    On a single node all operators share a process, and packing a frame and reading it
    again for each of them takes longer than a window takes to answer. Nothing of it is
    ever in a checkpoint: barriers wait until what was sent before them has arrived.
    """

    def __init__(self, what: Any) -> None:
        self._what = what

    def __reduce__(self) -> tuple[Any, ...]:
        number = next(_NUMBERS)
        _HANDED[number] = self._what
        return _taken, (number,)


def _taken(number: int) -> Any:
    return _HANDED.pop(number)


def forget_handed() -> None:
    """A job begins: what one before it had under way will not arrive."""
    _HANDED.clear()


def onward(shards: Shards, part: Part, key: str) -> Iterator[Row]:
    """`KEYED` rows that bring a part to the nodes of its rows' `key`.

    To cases go the rows alone. On the way to the windows of an entity every node gets
    a part, be it empty: who puts frames together waits for all senders.
    """
    to_cases = key == "case_id"
    if shards.nodes == 1:
        if not to_cases or part.rows is not None:
            (node,) = shards.every_node()
            yield Row(node, Handed(part.rows if to_cases else part))
        return
    nothing = np.empty(0, dtype=np.uint64)
    keys = nothing if part.rows is None else part.rows.keys(key)
    members = dict(shards.by_node(keys))
    if to_cases:
        for node, rows in members.items():
            yield Row(node, part.take(rows).rows)
        return
    for node in shards.every_node():
        yield Row(node, part.take(members.get(node, np.arange(0))))


class InOrder:
    """Puts the parts of a frame together when all senders have sent theirs.

    Each sender sends its parts in the order of the frames, so frames get whole in that
    order, too: what follows sees every row as one node alone would. Nothing here needs
    to be kept in a checkpoint: the parts of a frame lie on the same side of a barrier,
    and Flink waits for the barriers of all senders.

    Args:
        senders: parts a frame arrives in.
    """

    def __init__(self, senders: int) -> None:
        self._senders = senders
        self._waiting: dict[tuple[int, int], list[Part]] = {}

    def add(self, part: Part) -> Part | None:
        """The frame as far as it is for this node, once the last part is here."""
        if self._senders == 1:
            return part
        parts = self._waiting.setdefault(part.frame, [])
        parts.append(part)
        if len(parts) < self._senders:
            return None
        del self._waiting[part.frame]
        full = [one for one in parts if one.rows is not None]
        if len(full) < 2:
            return full[0] if full else part
        positions = np.concatenate([one.positions for one in full])
        rows = concat_rows([one.rows for one in full if one.rows is not None])
        order = np.argsort(positions)
        return Part(part.frame, positions[order], rows.take(order))
