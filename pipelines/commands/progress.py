"""Lines about long work, on stderr, so that stdout stays for results."""

from __future__ import annotations

import sys
import time

_BEGAN = time.monotonic()


def say(line: str) -> None:
    """Print one line with the seconds since the command began."""
    print(f"{time.monotonic() - _BEGAN:6.1f}s  {line}", file=sys.stderr, flush=True)
