from __future__ import annotations

import os

from pipelines.shared_bytes import KEPT_BYTES, SharedBytes


def test_what_one_writes_the_other_reads_also_when_it_grows():
    writer = SharedBytes()
    reader = SharedBytes(os.dup(writer.fd))
    assert writer.write(0, b"abc") == 3
    assert bytes(reader.read(0, 3)) == b"abc"
    large = os.urandom(KEPT_BYTES)
    kept = reader.read(0, 3)
    assert writer.write(3, large) == 3 + KEPT_BYTES
    assert bytes(reader.read(3, 3 + KEPT_BYTES)) == large
    assert bytes(kept) == b"abc"


def test_a_large_batch_does_not_keep_its_memory():
    writer = SharedBytes()
    reader = SharedBytes(os.dup(writer.fd))
    writer.write(0, bytes(5 * KEPT_BYTES))
    writer.begin()
    writer.write(0, b"small")
    assert os.fstat(writer.fd).st_size == KEPT_BYTES
    assert bytes(reader.read(0, 5)) == b"small"
    writer.write(2 * KEPT_BYTES, b"far")
    assert bytes(reader.read(2 * KEPT_BYTES, 2 * KEPT_BYTES + 3)) == b"far"
