"""The id of a case's decision: the same in every run, for every revision."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

_ID_BYTES = 12


def decision_id(task: str, case_id: str) -> str:
    """The id of one case's decision: 24 hex digits."""
    told = f"{task}\0{case_id}".encode()
    return hashlib.blake2b(told, digest_size=_ID_BYTES).hexdigest()


def decision_ids(task: str, case_ids: pa.StringArray) -> pa.StringArray:
    """`decision_id` of every case."""
    prefix = hashlib.blake2b(f"{task}\0".encode(), digest_size=_ID_BYTES)
    digests = []
    for case_id in case_ids.cast(pa.binary()).to_pylist():
        told = prefix.copy()
        told.update(case_id)
        digests.append(told.digest())
    text = b"".join(digests).hex().encode()
    offsets = np.arange(0, len(text) + 1, 2 * _ID_BYTES, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(case_ids), buffers)
