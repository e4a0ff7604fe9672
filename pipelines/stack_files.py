"""The local stack's files on disk and the command lines of its processes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pipelines import jars
from pipelines.keeper import die_with_parent
from pipelines.stack_settings import (
    DIRECT_MB,
    FRAMEWORK_HEAP_MB,
    METASPACE_MB,
    TASK_HEAP_MB,
    Ports,
    broker_settings,
    client_settings,
    flink_settings,
    log4j_settings,
)

THREADS_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
#: Arrays of a frame, and what a network keeps between its layers, come and go: a node
#: keeps their memory instead of asking for it anew. Python runs in a thread of the JVM,
#: whose memory is made of heaps of 64 MB; without the padding glibc gives a heap back
#: as soon as it is empty, and a call of 64 clips costs a fifth more.
MEMORY_ENV = {
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
}
RANKS = {"broker": 10, "jobmanager": 20, "taskmanager": 30, "service": 40}
#: Calls and rounds until a JVM optimises a method with C2: ten times the usual. What
#: runs a hundred times a second is not worth that, yet it kept C2 busy for minutes with
#: 6 to 10 % of a node's core; what runs for every event gets there in a second.
WORTH_C2 = (
    "-XX:Tier4InvocationThreshold=50000",
    "-XX:Tier4MinInvocationThreshold=6000",
    "-XX:Tier4CompileThreshold=150000",
    "-XX:Tier4BackEdgeThreshold=400000",
)
#: Frames of clips pass through a node's heap. What fills half a region goes past the
#: young generation, and every such array starts a marking of the heap: with the usual
#: 1 MB they kept up to a quarter of a core busy with it, for ten seconds at a time. And
#: G1 had made the young generation one region small, so that frames outlived it.
FRAMES_PASS = ("-Xms256m", "-XX:NewSize=96m", "-XX:G1HeapRegionSize=8m")
#: Flink's messaging looks for what is due every 10 ms, in two threads of each process,
#: and each look interrupts an encoder. Nothing it is asked for is due within 100 ms.
RARE_TICKS = ("-Dpekko.scheduler.tick-duration=100ms",)


def flink_wheel() -> Path:
    """The folder of the installed apache-flink package (found without importing it)."""
    spec = util.find_spec("pyflink")
    if spec is None or spec.origin is None:
        msg = "apache-flink is not installed in this environment: pip install -e ."
        raise jars.JarsError(msg)
    return Path(spec.origin).parent


def versions() -> dict[str, str]:
    """Versions of what runs, as `stack.json` and `sluice status` tell them."""
    return {
        "kafka": jars.versions()["kafka"],
        "flink": metadata.version("apache-flink"),
        "connector": jars.versions()["connector"],
    }


def write_files(home: Path, ports: Ports, found: jars.Jars) -> None:
    """Write every configuration file and folder the processes read."""
    (home / "wanted").mkdir(parents=True, exist_ok=True)
    for old in (home / "wanted").iterdir():
        old.unlink()
    (home / "server.properties").write_text(_properties(broker_settings(home, ports)))
    _write_flink(home, flink_settings(home, ports, flink_opens()), found)


def write_client_files(home: Path, flink_url: str, found: jars.Jars) -> None:
    """Write what only a client of a cluster at `flink_url` reads."""
    _write_flink(home, client_settings(flink_url, flink_opens()), found)


def _write_flink(home: Path, settings: dict[str, Any], found: jars.Jars) -> None:
    for name in ("logs", "tmp", "flink/conf", "flink/lib", "flink/plugins"):
        (home / name).mkdir(parents=True, exist_ok=True)
    conf = home / "flink" / "conf"
    yaml = [f"{key}: {json.dumps(value)}" for key, value in settings.items()]
    (conf / "config.yaml").write_text("\n".join(yaml) + "\n")
    for name in ("log4j-console.properties", "log4j-cli.properties"):
        (conf / name).write_text(_properties(log4j_settings()))
    _link_jars(home / "flink" / "lib", found)


def flink_env(home: Path) -> dict[str, str]:
    """Environment of any process that talks to this cluster through Flink's client."""
    wheel = flink_wheel()
    return {
        "FLINK_HOME": str(wheel),
        "FLINK_CONF_DIR": str(home / "flink" / "conf"),
        "FLINK_LIB_DIR": str(home / "flink" / "lib"),
        "FLINK_OPT_DIR": str(wheel / "opt"),
        "FLINK_PLUGINS_DIR": str(home / "flink" / "plugins"),
        "FLINK_LOG_DIR": str(home / "logs"),
        "FLINK_PID_DIR": str(home / "tmp"),
        # the interpreter inside a TaskManager finds its packages by the first python3
        # on the path, whatever python.executable says
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        ),
        **MEMORY_ENV,
        **THREADS_ENV,
    }


def broker_command(home: Path, found: jars.Jars) -> dict[str, Any]:
    """The broker as the keeper wants it."""
    options = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", *WORTH_C2, *_quiet_log()]
    argv = _java(home, options, found.broker)
    argv += ["kafka.Kafka", str(home / "server.properties")]
    return {"argv": argv, "env": {}, "rank": RANKS["broker"]}


def jobmanager_command(home: Path) -> dict[str, Any]:
    """The JobManager as the keeper wants it."""
    main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
    options = ["-Xms128m", "-Xmx448m", "-XX:+UseSerialGC"]
    options += ["-XX:TieredStopAtLevel=1", "-XX:MaxMetaspaceSize=192m"]
    argv = _flink_java(home, "jobmanager", options)
    argv += [main, "--configDir", str(home / "flink" / "conf")]
    argv += ["--executionMode", "cluster"]
    return {"argv": argv, "env": flink_env(home), "rank": RANKS["jobmanager"]}


def taskmanager_command(home: Path, name: str) -> dict[str, Any]:
    """One TaskManager as the keeper wants it; `name` is its resource id, too."""
    options = [f"-Xmx{FRAMEWORK_HEAP_MB + TASK_HEAP_MB}m", "-XX:+UseG1GC"]
    options += [*FRAMES_PASS, *WORTH_C2]
    options += [f"-XX:MaxDirectMemorySize={sum(DIRECT_MB.values())}m"]
    options += [f"-XX:MaxMetaspaceSize={METASPACE_MB}m"]
    argv = _flink_java(home, name, options)
    argv += ["org.apache.flink.runtime.taskexecutor.TaskManagerRunner"]
    argv += ["--configDir", str(home / "flink" / "conf")]
    argv += ["-D", f"taskmanager.resource-id={name}"]
    return {"argv": argv, "env": flink_env(home), "rank": RANKS["taskmanager"]}


def format_storage(home: Path, found: jars.Jars) -> None:
    """Give the broker's log folder its identity, once in the life of a home."""
    if (home / "kafka" / "meta.properties").is_file():
        return
    argv = _java(home, ["-XX:TieredStopAtLevel=1", *_quiet_log()], found.broker)
    identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    argv += ["kafka.tools.StorageTool", "format", f"--cluster-id={identity}"]
    argv += ["-c", str(home / "server.properties")]
    log = home / "logs" / "format.out"
    with log.open("wb") as output:
        subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=True,
            preexec_fn=die_with_parent(),
        )


def _java(home: Path, options: list[str], class_path: tuple[Path, ...]) -> list[str]:
    shared = ["-XX:-UsePerfData", f"-Djava.io.tmpdir={home / 'tmp'}"]
    shared += ["-Djava.net.preferIPv4Stack=true", "-XX:+ExitOnOutOfMemoryError"]
    joined = os.pathsep.join(str(path) for path in class_path)
    return [jars.java(), *options, *shared, "-cp", joined]


def _flink_java(home: Path, name: str, options: list[str]) -> list[str]:
    log4j = home / "flink" / "conf" / "log4j-console.properties"
    options = [*options, *flink_opens().split(), *RARE_TICKS]
    options += [f"-Dlog.file={home / 'logs' / name}.log"]
    options += [f"-Dlog4j.configurationFile=file:{log4j}"]
    lib = sorted((home / "flink" / "lib").glob("*.jar"))
    return _java(home, options, tuple(lib))


def flink_opens() -> str:
    """The module options of the installed Flink, read from its own configuration."""
    text = (flink_wheel() / "conf" / "config.yaml").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line.startswith("all: --add-")]
    return found[0].removeprefix("all: ")


def _link_jars(lib: Path, found: jars.Jars) -> None:
    wheel = flink_wheel()
    wanted = [*(wheel / "lib").glob("*.jar"), *(wheel / "opt").glob("flink-python*")]
    for old in lib.iterdir():
        old.unlink()
    for path in [*wanted, found.connector]:
        (lib / path.name).symlink_to(path)


def _quiet_log() -> list[str]:
    simple = "-Dorg.slf4j.simpleLogger"
    return [f"{simple}.defaultLogLevel=warn", f"{simple}.showDateTime=true"]


def _properties(values: dict[str, Any]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())
