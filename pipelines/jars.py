"""The Java side of the stack: broker and connector, fetched once, checked always."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

POM = Path(__file__).with_name("jars.xml")
PINS = Path(__file__).with_name("jars.sha256")
GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
JAVA_REMEDY = "Debian and Ubuntu: apt-get install openjdk-17-jre-headless"
MAVEN_REMEDY = "Debian and Ubuntu: apt-get install maven"
FETCH_DEADLINE_S = 600


class JarsError(Exception):
    """A jar cannot be had or is not the pinned one; the message says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Jars:
    """Checked jar files: `broker` is a class path, `connector` one file for Flink."""

    broker: tuple[Path, ...]
    connector: Path


def default_cache() -> Path:
    """The folder all homes of this user share, so that jars are fetched once."""
    return Path.home() / ".cache" / "sluice" / "jars"


def folder_of(cache: Path | None = None) -> Path:
    """Where the jars of this version lie (or will): `cache`, else the user's own."""
    return (cache or default_cache()) / versions()["kafka"]


def pins() -> dict[str, str]:
    """The committed checksums: jar file name to its SHA-256."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def versions() -> dict[str, str]:
    """Versions named in the Maven file: `kafka`, `connector`, `slf4j`."""
    text = POM.read_text(encoding="utf-8")
    return dict(re.findall(r"<(\w+)\.version>([^<]+)</", text))


def java() -> str:
    """The `java` to run, or a `JarsError` that says how to get one."""
    return _tool("java", JAVA_REMEDY)


def fetch(
    cache: Path | None = None, *, say: Callable[[str], None] | None = None
) -> Jars:
    """Jars from the cache, after one Maven call when any is missing or altered.

    Raises:
        JarsError: Maven is missing or failed, or a fetched jar is not the pinned one.
    """
    wanted = pins()
    folder = folder_of(cache)
    if wrong_jars(folder, wanted):
        if say is not None:
            say(f"fetching {len(wanted)} Java jars with Maven into {folder}")
        _copy_with_maven(folder, wanted)
    files = sorted(folder / name for name in wanted)
    is_connector = [path.name.startswith("flink-") for path in files]
    broker = [p for p, flink in zip(files, is_connector, strict=True) if not flink]
    connector = files[is_connector.index(True)]
    return Jars(broker=tuple(broker), connector=connector)


def wrong_jars(folder: Path, wanted: dict[str, str]) -> list[str]:
    """Names of pinned jars that `folder` lacks or holds with other bytes."""
    return [
        name
        for name, digest in wanted.items()
        if not (folder / name).is_file() or _sha256(folder / name) != digest
    ]


def _copy_with_maven(folder: Path, wanted: dict[str, str]) -> None:
    maven = _tool("mvn", MAVEN_REMEDY)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as name:
        fresh = Path(name)
        command = [maven, "-q", "-B", "-f", str(POM), GOAL]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=FETCH_DEADLINE_S,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip().splitlines()[-6:]
            msg = "fetch jars: Maven failed; is its repository reachable?\n"
            raise JarsError(msg + "\n".join(said))
        wrong = wrong_jars(fresh, wanted)
        if wrong:
            msg = (
                f"fetch jars: {', '.join(wrong)} differ from {PINS.name}; "
                "remove them from ~/.m2/repository and try again"
            )
            raise JarsError(msg)
        folder.mkdir(exist_ok=True)
        for jar in wanted:
            (fresh / jar).replace(folder / jar)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tool(name: str, remedy: str) -> str:
    found = shutil.which(name)
    if found is None:
        msg = f"{name} is not installed. {remedy}"
        raise JarsError(msg)
    return found


def main() -> int:
    """`python -m pipelines.jars`: fetch and check, for `make setup` and images."""
    try:
        found = fetch(say=print)
    except JarsError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(found.broker) + 1} jars checked in {found.connector.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
