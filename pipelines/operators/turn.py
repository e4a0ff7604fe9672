"""How the operators of a node share its one interpreter, a whole frame long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

#: Held by the operator whose turn it is.
TURN = threading.Lock()


class UnderWay:
    """Counts the frames of a node between the first of its operators and the last.

    All operators of a node see one counter, since they share a process. What it counts
    steers how frames are put together, and nothing else.
    """

    def __init__(self) -> None:
        self.frames = 0

    def begin(self) -> None:
        """A job begins: frames of one before it will not arrive."""
        self.frames = 0

    def start(self) -> None:
        """A frame leaves the first operator."""
        self.frames += 1

    def arrive(self) -> None:
        """A frame is done in the last."""
        self.frames = max(0, self.frames - 1)


UNDER_WAY = UnderWay()
_Self = TypeVar("_Self")


def takes_turns(
    process: Callable[[_Self, Any, Any], Iterable[Any] | None],
) -> Callable[[_Self, Any, Any], Iterable[Any] | None]:
    """Runs a function of an operator while no other operator of this node runs.

    All operators of a node share one interpreter, of which only one can compute at a
    time. Whenever one of them calls Arrow, compiled code or its state, the interpreter
    goes to another and has to be waited for: a hundred times a frame, which cost more
    than the work. Operators that take turns are not in each other's way.

    What it gives is collected first and handed on after the turn: handing on may wait
    for the operator behind, which may wait for its turn. What gives nothing may return
    None, which costs least.
    """

    @wraps(process)
    def whole(self: _Self, value: Any, ctx: Any) -> Iterable[Any] | None:
        with TURN:
            found = process(self, value, ctx)
            return None if found is None else list(found)

    return whole
