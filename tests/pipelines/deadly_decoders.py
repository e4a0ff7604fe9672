"""A child process whose decoders do what the payload says: the worst of real ones."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from encoders.base import LimitError, PayloadError
from pipelines.decode_child import run


def obey(payload: bytes) -> np.ndarray:
    if payload == b"exit":
        os._exit(3)
    if payload == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if payload == b"hang":
        time.sleep(600)
    if payload == b"memory":
        return np.ones(2**40, np.uint8)
    if payload == b"memory in a library":
        try:
            np.ones(2**40, np.uint8)
        except MemoryError as error:
            msg = "picture cannot be decoded"
            raise PayloadError(msg) from error
    if payload == b"raise":
        raise KeyError(payload)
    if payload == b"bad":
        msg = "no picture"
        raise PayloadError(msg)
    if payload == b"large":
        msg = "too large"
        raise LimitError(msg)
    if payload.startswith(b"slow"):
        time.sleep(0.3)
    return np.frombuffer(payload, np.uint8)


if __name__ == "__main__":
    run(lambda folder: {folder.name: obey})
