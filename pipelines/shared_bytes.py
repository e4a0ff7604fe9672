"""Bytes that two processes see without sending them: a file in memory."""

from __future__ import annotations

import mmap
import os
import tempfile

#: A file is first made so large, and cut back to this when it was larger. A call of 80
#: clips of two seconds fills two thirds of it; what is not written to takes no memory.
KEPT_BYTES = 16 * 1024 * 1024


class SharedBytes:
    """A run of bytes that one process writes and another reads.

    The writer makes it larger when it has more to say; the reader maps it anew then.
    Nobody else may change its size: the writer remembers it and does not ask.
    Who writes and who reads when is told elsewhere.

    Args:
        fd: of the file when another process made it; it stays open.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _file_in_memory() if fd is None else fd
        self._bytes = os.fstat(self.fd).st_size
        self._mapped = self._map()

    def write(self, start: int, content: bytes | memoryview) -> int:
        """Put bytes there, in a larger file if need be; gives where they end."""
        stop = start + len(content)
        if stop > self._bytes:
            self._bytes = 1 << (stop - 1).bit_length()
            os.ftruncate(self.fd, self._bytes)
        if stop > len(self._mapped):
            self._mapped = self._map()
        self._mapped[start:stop] = content
        return stop

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes there now; they change when the other process writes."""
        if stop > len(self._mapped):
            self._mapped = self._map()
        return memoryview(self._mapped)[start:stop]

    def begin(self) -> None:
        """What was written is needed no more: a large file gives its memory back."""
        if self._bytes > KEPT_BYTES:
            self._bytes = KEPT_BYTES
            os.ftruncate(self.fd, KEPT_BYTES)

    def close(self) -> None:
        """Let the file go; what was read from it stays until it is let go, too."""
        os.close(self.fd)

    def _map(self) -> mmap.mmap:
        # not `resize`: whoever still looks at the old one may go on
        return mmap.mmap(self.fd, os.fstat(self.fd).st_size)


def _file_in_memory() -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("sluice")
    else:  # not Linux: a file without a name
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, KEPT_BYTES)
    return fd
