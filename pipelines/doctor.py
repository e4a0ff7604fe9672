"""What this machine has and lacks for the local stack, and how to get what it lacks."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil

from pipelines import jars, stack
from pipelines.stack_settings import Ports

DISTRIBUTION = "sluice-streaming"
PYTHON = (3, 11)
JAVA_AT_LEAST = 17
MEMORY_GB = 4.0
DISK_GB = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing looked at: what was seen, whether it will do, and else what to do."""

    what: str
    ok: bool
    seen: str
    remedy: str = ""


def examine(home: Path, cache: Path | None = None) -> list[Finding]:
    """Look at everything the local stack needs; starts nothing, changes nothing."""
    jars_found = _jars(cache)
    return [
        _python(),
        _packages(),
        _java(),
        _maven(needed=not jars_found.ok),
        jars_found,
        _memory(),
        _disk(home),
        _ports(home),
    ]


def _python() -> Finding:
    return Finding(
        what="Python 3.11",
        ok=sys.version_info[:2] == PYTHON,
        seen=sys.version.split()[0],
        remedy="make a virtual environment with python3.11, then pip install -e .",
    )


def _packages() -> Finding:
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        required = [DISTRIBUTION]
    names = [re.split(r"[^\w.-]", r, maxsplit=1)[0] for r in required if ";" not in r]
    missing = [name for name in names if not _installed(name)]
    return Finding(
        what="Python packages",
        ok=not missing,
        seen=f"missing: {', '.join(missing)}" if missing else f"{len(names)} installed",
        remedy="pip install -c constraints.txt -e .",
    )


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def java_version(text: str) -> int | None:
    """Major version from what `java -version` prints (8 for `1.8.0_402`)."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found[1]) if found else None


def _java() -> Finding:
    path = shutil.which("java")
    version = None
    if path is not None:
        done = subprocess.run(
            [path, "-version"], capture_output=True, text=True, check=False, timeout=30
        )
        version = java_version(done.stdout + done.stderr)
    return Finding(
        what=f"Java {JAVA_AT_LEAST} or later",
        ok=version is not None and version >= JAVA_AT_LEAST,
        seen=f"Java {version} at {path}" if path else "no java on the path",
        remedy=jars.JAVA_REMEDY,
    )


def _maven(*, needed: bool) -> Finding:
    path = shutil.which("mvn")
    note = "" if needed else " (not needed: the jars are here)"
    return Finding(
        what="Maven",
        ok=path is not None or not needed,
        seen=(path or "no mvn on the path") + note,
        remedy=jars.MAVEN_REMEDY,
    )


def _jars(cache: Path | None) -> Finding:
    wanted = jars.pins()
    folder = jars.folder_of(cache)
    wrong = jars.wrong_jars(folder, wanted)
    good = len(wanted) - len(wrong)
    return Finding(
        what="Java jars",
        ok=not wrong,
        seen=f"{good} of {len(wanted)} in {folder}, checksums compared",
        remedy="python -m pipelines.jars fetches them (sluice up does so, too)",
    )


def _memory() -> Finding:
    free_gb = psutil.virtual_memory().available / 1e9
    return Finding(
        what="memory",
        ok=free_gb >= MEMORY_GB,
        seen=f"{free_gb:.1f} GB available, {MEMORY_GB:.0f} GB wanted",
        remedy="close other programs, or use one node: sluice up --nodes 1",
    )


def _disk(home: Path) -> Finding:
    place = next(p for p in (home, *home.absolute().parents) if p.exists())
    free_gb = shutil.disk_usage(place).free / 1e9
    return Finding(
        what="disk",
        ok=free_gb >= DISK_GB,
        seen=f"{free_gb:.1f} GB free at {place}, {DISK_GB:.0f} GB wanted",
        remedy="free some space, or set SLUICE_HOME to another disk",
    )


def _ports(home: Path) -> Finding:
    usual = Ports()
    live = stack.find(home)
    if live is not None:
        seen = f"our stack listens on {live.bootstrap} and {live.flink_url}"
    elif Ports.choose() == usual:
        seen = f"{usual.broker} and {usual.rest} are free"
    else:
        seen = "a usual port is taken; sluice up will choose free ones"
    return Finding(what="ports", ok=True, seen=seen)
