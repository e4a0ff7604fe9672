"""All measurements, one after the other: `python -m benchmarks`."""

from __future__ import annotations

import subprocess
import sys

MODULES = ("codec", "latency")


def main() -> int:
    """Run each measurement in a process of its own; exit code 1 when one fails."""
    failed = 0
    for name in MODULES:
        print(f"--- {name}", flush=True)
        failed |= subprocess.call([sys.executable, "-m", f"benchmarks.{name}"])
    return failed


if __name__ == "__main__":
    sys.exit(main())
