"""The process that decodes: what crashes, hangs or eats memory here costs one payload.

It knows the decoders of one model and nothing of Kafka, Flink or torch. The process
that started it sends the sizes of some payloads, whose bytes are in shared memory; this
one says at which of them it is, and answers when all are done.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from encoders.base import LimitError, PayloadError
from pipelines.keeper import tie_to
from pipelines.shared_bytes import SharedBytes

#: Exit status of a process that was refused memory.
NO_MEMORY = 77
#: Where in the answers the number of the payload in work stands, and its form.
AT = struct.Struct("<q")
#: The arrays follow from here, each at a multiple of it.
STEP = 64

Decode = Callable[[Any], Any]
#: Kind of a dead letter whose payload its decoder did not survive.
DECODER = "decoder"


@dataclass(frozen=True, slots=True)
class Refused:
    """A payload that becomes a dead letter.

    Attributes:
        kind: of the letter.
        reason: one sentence a person can act on.
    """

    kind: str
    reason: str


def outcome(decode: Decode, payload: Any) -> Any:
    """What a decoder makes of a payload, or why it is refused.

    Raises:
        MemoryError: the decoder was refused memory, whatever it made of that.
    """
    try:
        return decode(payload)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                raise MemoryError from error
            cause = cause.__cause__
        if isinstance(error, LimitError):
            return Refused("limits", str(error))
        if isinstance(error, PayloadError):
            return Refused("unreadable", str(error))
        reason = f"the decoder failed: {type(error).__name__}: {error}"
        return Refused(DECODER, reason)


def serve(
    decoders: Mapping[str, Decode],
    pipe: Connection,
    payloads: SharedBytes,
    both: Sequence[SharedBytes],
) -> None:
    """Decode what is asked for until the other end of the pipe is closed.

    Args:
        decoders: by modality.
        pipe: where questions come from and answers go to.
        payloads: holds what is to be decoded.
        both: hold the arrays of one batch and of the next, in turn.
    """
    pipe.send_bytes(b"ready")
    while True:
        try:
            asked = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        answers = both[asked["turn"]]
        answers.begin()
        told: list[Any] = []
        decode = decoders[asked["modality"]]
        start, filled = 0, STEP
        for number, size in enumerate(asked["sizes"]):
            answers.write(0, AT.pack(number))
            found = outcome(decode, bytes(payloads.read(start, start + size)))
            start += size
            if isinstance(found, Refused):
                told.append([1, found.kind, found.reason])
                continue
            like = [found.dtype.str, list(found.shape)]
            if told and told[-1][1:] == like:
                told[-1][0] += 1
            else:
                told.append([1, *like])
            filled = _put(answers, filled, found)
        pipe.send_bytes(json.dumps(told).encode())


def _put(answers: SharedBytes, start: int, array: NDArray[Any]) -> int:
    stop = answers.write(start, array.ravel().view(np.uint8).data)
    return -(-stop // STEP) * STEP


def take(answers: SharedBytes, told: list[Any]) -> Sequence[Any]:
    """What `serve` put into the answers: arrays that lie there, or `Refused`.

    It told runs of arrays that are alike, as (count, dtype, shape), and refusals, as
    (1, kind, reason), in their order. A single run is given as one array, which nobody
    has to stack.
    """
    found: list[Any] = []
    start = STEP
    for count, first, second in told:
        if isinstance(second, str):
            found.append(Refused(first, second))
            continue
        one = np.empty(second, first)
        step = -(-one.nbytes // STEP) * STEP
        there = answers.read(start, start + (count - 1) * step + one.nbytes)
        strides = (step, *one.strides)
        run: Any = np.ndarray((count, *second), first, there, strides=strides)
        if len(told) == 1:
            return run
        found.extend(run)
        start += count * step
    return found


def limit_memory(megabytes: int) -> None:
    """From here on, take at most so much more than what is taken already."""
    most = psutil.Process().memory_info().vms + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run(load: Callable[[Path], Mapping[str, Decode]]) -> None:
    """Serve with the arguments that `DecoderProcess` gives on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", type=int, nargs=6)
    args = parser.parse_args()
    parent_pid, memory_mb, pipe, *shared = args.numbers
    tie_to(parent_pid)
    faulthandler.enable()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    decoders = load(args.folder)
    payloads, *both = map(SharedBytes, shared)
    limit_memory(memory_mb)
    try:
        serve(decoders, Connection(pipe), payloads, both)
    except MemoryError:
        os._exit(NO_MEMORY)


if __name__ == "__main__":
    from encoders.decoding import load_decoders

    run(load_decoders)
