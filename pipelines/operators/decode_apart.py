"""Payloads decoded in a process of their own, which may die of one without harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipelines.decode_child import AT, DECODER, NO_MEMORY, Refused, take
from pipelines.shared_bytes import SharedBytes

#: Longest wait for a process that starts; with nothing else to do it takes 0.3 s.
START_S = 60.0
#: Longest wait for one to end that has closed its pipe.
END_S = 5.0
#: Starts that may fail one after the other.
STARTS = 3
#: glibc's usual. What a node sets here would count as memory that a payload took.
USUAL_PAD = {"MALLOC_TOP_PAD_": "131072"}
#: `python -m` this, with `DecoderProcess`'s arguments.
CHILD = ("-m", "pipelines.decode_child")


class DecoderProcessError(Exception):
    """No process that decodes can be started; what it printed is in the node's log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """What one payload may take.

    Attributes:
        seconds: a payload that takes longer is given up.
        memory_mb: what the process may take beyond what it has at its start.
    """

    seconds: float = 10.0
    memory_mb: int = 512


class DecoderProcess:
    """The decoders of one model in a child process; one batch at a time.

    A payload during which the process ends, or stays for longer than the limit, is the
    culprit: it gets a reason instead of an array, and a new process goes on with the
    others. Every failure costs one payload, so a batch always ends.

    Args:
        folder: of the encoders.
        limits: what one payload may take.
        child: what Python runs in the child.
    """

    def __init__(
        self, folder: Path, limits: DecodeLimits, *, child: Sequence[str] = CHILD
    ) -> None:
        self._folder, self._limits, self._child = folder, limits, child
        self._payloads = SharedBytes()
        self._both = (SharedBytes(), SharedBytes())
        self._turn = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._is_ready = self._is_stuck = False
        self._asked: tuple[str, list[bytes]] = ("", [])
        self.restarts = 0
        self._launch()

    @property
    def pid(self) -> int:
        """Of the process that decodes now."""
        return self._process.pid if self._process else 0

    def begin(self, modality: str, payloads: Sequence[bytes]) -> None:
        """Let a batch be decoded; `finish` gives what became of it.

        The arrays of the batch before the last one are overwritten from here on.
        """
        self._turn = 1 - self._turn
        self._asked = (modality, list(payloads))
        self._send(self._asked[1])

    def finish(self) -> Sequence[Any]:
        """For each payload of `begin` what its decoder made of it, or `Refused`.

        Arrays that are all alike are one array.
        """
        payloads = self._asked[1]
        found: list[Any] = [None] * len(payloads)
        left = list(range(len(payloads)))
        while left:
            told = self._await()
            if told is not None:
                answers = take(self._answers, told)
                if len(left) == len(payloads):
                    return answers
                for number, answer in zip(left, answers, strict=True):
                    found[number] = answer
                break
            # nobody but the culprit is blamed for what was lost with the process
            culprit = left.pop(min(self._at(), len(left) - 1))
            found[culprit] = Refused(DECODER, self._end())
            self._launch()
            self.restarts += 1
            if left:
                self._send([payloads[number] for number in left])
        return found

    def close(self) -> None:
        """End the process."""
        self._end()
        for shared in (self._payloads, *self._both):
            shared.close()

    def _launch(self) -> None:
        self._pipe, inner = Pipe()
        shared = [one.fd for one in (self._payloads, *self._both)]
        files = [inner.fileno(), *shared]
        numbers = [os.getpid(), self._limits.memory_mb, *files]
        command = [python(), *self._child, str(self._folder), *map(str, numbers)]
        self._is_ready = self._is_stuck = False
        paths = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            command,
            pass_fds=files,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **USUAL_PAD, "PYTHONPATH": paths},
        )
        inner.close()

    def _send(self, payloads: list[bytes]) -> None:
        self._be_ready()
        self._payloads.begin()
        self._payloads.write(0, b"".join(payloads))
        self._answers.write(0, AT.pack(0))
        asked = {
            "modality": self._asked[0],
            "turn": self._turn,
            "sizes": [len(one) for one in payloads],
        }
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(json.dumps(asked).encode())
        except OSError:  # it has just died: `finish` will see that, too
            return

    def _be_ready(self) -> None:
        """A process that answers; a new one in place of one that died idle."""
        for _ in range(STARTS):
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._launch()
            assert self._pipe is not None
            if self._is_ready:
                return
            try:
                if self._pipe.poll(START_S):
                    self._pipe.recv_bytes()
                    self._is_ready = True
                    return
            except (EOFError, OSError):
                pass
            self._end()
        msg = (
            f"decode with the encoders of {self._folder}: no process that decodes "
            f"could be started in {STARTS} tries; its errors are in the node's log"
        )
        raise DecoderProcessError(msg)

    def _await(self) -> list[Any] | None:
        """What the process answers, or None when it ended or stays at one payload."""
        assert self._pipe is not None
        at, since = self._at(), time.monotonic()
        try:
            while not self._pipe.poll(self._limits.seconds / 10):
                if self._at() != at:
                    at, since = self._at(), time.monotonic()
                elif time.monotonic() - since >= self._limits.seconds:
                    self._is_stuck = True
                    return None
            told: list[Any] = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            return None
        return told

    @property
    def _answers(self) -> SharedBytes:
        return self._both[self._turn]

    def _at(self) -> int:
        """Which payload of the batch is in work."""
        return int(AT.unpack(self._answers.read(0, AT.size))[0])

    def _end(self) -> str:
        """End the process; gives why the payload in work is given up."""
        if self._process is None or self._pipe is None:
            return ""
        if self._is_stuck:
            self._process.kill()
        self._pipe.close()
        try:
            status = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._process = None
        if self._is_stuck:
            return f"decoding took more than {self._limits.seconds:g} s"
        if status == NO_MEMORY:
            return f"decoding took more than {self._limits.memory_mb} MB of memory"
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"the process that decoded it ended with {how}"


def python() -> str:
    """The Python this one is, also where it runs inside a JVM."""
    beside = Path(sys.prefix) / "bin" / "python"
    return str(beside) if beside.exists() else sys.executable
