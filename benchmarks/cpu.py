"""What the processor is, and which process used how much of it."""

from __future__ import annotations

import os
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


def busy_s() -> float:
    """CPU seconds that all processes of this machine have used so far."""
    times = psutil.cpu_times()
    return float(
        sum(times[:3]) + sum(getattr(times, n, 0.0) for n in ("irq", "softirq"))
    )


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


class ThreadClock:
    """CPU seconds of some processes since the clock was made, by what a thread is for.

    Args:
        pids: the processes; their children count as `children`.
        stages: start of a thread's name, as Linux keeps it (15 bytes), to a stage;
            threads of no stage count as `rest`.
    """

    def __init__(self, pids: list[int], stages: Mapping[str, str]) -> None:
        self._pids, self._stages = pids, dict(stages)
        self._began = self._read()

    def seconds(self) -> dict[str, float]:
        """CPU seconds by stage, user and system."""
        now = self._read()
        return {one: s - self._began.get(one, 0.0) for one, s in now.items()}

    def _read(self) -> dict[str, float]:
        found = dict.fromkeys([*self._stages.values(), "children", "rest"], 0.0)
        for pid in self._pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    name, ticks = _name_and_ticks((task / "stat").read_text())
                except (OSError, ValueError):  # it has just ended
                    continue
                starts = (s for s in self._stages if name.startswith(s))
                stage = self._stages.get(next(starts, ""), "rest")
                found[stage] += ticks / os.sysconf("SC_CLK_TCK")
            for child in psutil.Process(pid).children(recursive=True):
                times = child.cpu_times()
                found["children"] += times.user + times.system
        return found


def _name_and_ticks(stat: str) -> tuple[str, int]:
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    return head.partition("(")[2], int(fields[11]) + int(fields[12])
