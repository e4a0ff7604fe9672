"""What the processor is, and which process used how much of it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import psutil


def cpu_model() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


class CpuClock:
    """CPU seconds of named processes since the clock was made.

    Args:
        pids: name to process; children are counted to their parent.
        alone: names whose children are not counted.
    """

    def __init__(self, pids: Mapping[str, int], *, alone: tuple[str, ...] = ()) -> None:
        self._pids = dict(pids)
        self._alone = alone
        self._began = self._read()

    def seconds(self) -> dict[str, float]:
        """CPU seconds by name, user and system."""
        return {name: now - self._began[name] for name, now in self._read().items()}

    def _read(self) -> dict[str, float]:
        found = {}
        for name, pid in self._pids.items():
            process = psutil.Process(pid)
            family = [process]
            if name not in self._alone:
                family += process.children(recursive=True)
            times = [one.cpu_times() for one in family]
            found[name] = sum(one.user + one.system for one in times)
        return found
