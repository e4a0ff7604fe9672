"""What the local stack is made of: its ports, its configuration files, its commands."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import socket
import subprocess
import sys
import uuid
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pipelines import jars
from pipelines.keeper import die_with_parent

HOST = "127.0.0.1"
MAX_MESSAGE_BYTES = 48 * 1024 * 1024
FRAMEWORK_HEAP_MB, TASK_HEAP_MB = 128, 448
DIRECT_MB = {"framework": 128, "task": 64, "network": 64}
MANAGED_MB, METASPACE_MB = 32, 256
THREADS_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
RANKS = {"broker": 10, "jobmanager": 20, "taskmanager": 30, "service": 40}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """The listeners with a fixed number; all on loopback."""

    broker: int = 9092
    controller: int = 9093
    rest: int = 8081
    rpc: int = 6123
    blob: int = 6124

    @classmethod
    def choose(cls, *, usual: bool = True) -> Ports:
        """The usual ports where they are free, else any free ones."""
        kept: list[socket.socket] = []
        chosen: dict[str, int] = {}
        try:
            for field in dataclasses.fields(cls):
                wanted = int(field.default) if usual else 0  # type: ignore[arg-type]
                kept.append(_bind(wanted))
                chosen[field.name] = kept[-1].getsockname()[1]
        finally:
            for taken in kept:
                taken.close()
        return cls(**chosen)


def _bind(port: int) -> socket.socket:
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((HOST, port))
    except OSError:
        probe.bind((HOST, 0))
    return probe


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
    for name in ("logs", "wanted", "tmp", "flink/conf", "flink/lib", "flink/plugins"):
        (home / name).mkdir(parents=True, exist_ok=True)
    for old in (home / "wanted").iterdir():
        old.unlink()
    (home / "server.properties").write_text(_properties(_broker(home, ports)))
    conf = home / "flink" / "conf"
    yaml = [f"{k}: {json.dumps(v)}" for k, v in _flink(home, ports).items()]
    (conf / "config.yaml").write_text("\n".join(yaml) + "\n")
    for name in ("log4j-console.properties", "log4j-cli.properties"):
        (conf / name).write_text(_properties(_log4j()))
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
        **THREADS_ENV,
    }


def broker_command(home: Path, found: jars.Jars) -> dict[str, Any]:
    """The broker as the keeper wants it."""
    options = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", *_quiet_log()]
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
    options = [f"-Xmx{FRAMEWORK_HEAP_MB + TASK_HEAP_MB}m", "-Xms128m", "-XX:+UseG1GC"]
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
    options = [*options, *_flink_opens().split()]
    options += [f"-Dlog.file={home / 'logs' / name}.log"]
    options += [f"-Dlog4j.configurationFile=file:{log4j}"]
    lib = sorted((home / "flink" / "lib").glob("*.jar"))
    return _java(home, options, tuple(lib))


def _flink_opens() -> str:
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


def _broker(home: Path, ports: Ports) -> dict[str, Any]:
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{ports.controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": (
            f"PLAINTEXT://{HOST}:{ports.broker},CONTROLLER://{HOST}:{ports.controller}"
        ),
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports.broker}",
        "log.dirs": home / "kafka",
        "auto.create.topics.enable": "false",
        "delete.topic.enable": "true",
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
        "controlled.shutdown.enable": "false",
    }


def _flink(home: Path, ports: Ports) -> dict[str, Any]:
    checkpoints = (home / "checkpoints").as_uri()
    return {
        "env.java.opts.all": f"{_flink_opens()} -Djava.net.preferIPv4Stack=true",
        "rest.address": HOST,
        "rest.bind-address": HOST,
        "rest.port": ports.rest,
        "rest.bind-port": str(ports.rest),
        "rest.profiling.enabled": False,
        "web.submit.enable": False,
        "web.cancel.enable": True,
        "jobmanager.rpc.address": HOST,
        "jobmanager.rpc.port": ports.rpc,
        "jobmanager.bind-host": HOST,
        "jobmanager.memory.process.size": "768m",
        "blob.server.port": str(ports.blob),
        "taskmanager.host": HOST,
        "taskmanager.bind-host": HOST,
        "taskmanager.numberOfTaskSlots": 1,
        "taskmanager.cpu.cores": 1.0,
        "taskmanager.memory.framework.heap.size": f"{FRAMEWORK_HEAP_MB}m",
        "taskmanager.memory.task.heap.size": f"{TASK_HEAP_MB}m",
        "taskmanager.memory.framework.off-heap.size": f"{DIRECT_MB['framework']}m",
        "taskmanager.memory.task.off-heap.size": f"{DIRECT_MB['task']}m",
        "taskmanager.memory.network.min": f"{DIRECT_MB['network']}m",
        "taskmanager.memory.network.max": f"{DIRECT_MB['network']}m",
        "taskmanager.memory.managed.size": f"{MANAGED_MB}m",
        "taskmanager.memory.jvm-metaspace.size": f"{METASPACE_MB}m",
        "taskmanager.memory.jvm-overhead.min": "192m",
        "taskmanager.memory.jvm-overhead.max": "192m",
        "io.tmp.dirs": str(home / "tmp"),
        "parallelism.default": 1,
        "heartbeat.interval": 2000,
        "heartbeat.timeout": 10000,
        "heartbeat.rpc-failure-threshold": 2,
        "slot.request.timeout": 60000,
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 2147483647,
        "restart-strategy.fixed-delay.delay": "1 s",
        "state.backend.type": "hashmap",
        "execution.checkpointing.interval": "2000 ms",
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.dir": checkpoints,
        "execution.checkpointing.num-retained": 2,
        "execution.buffer-timeout.interval": "1 ms",
        "pipeline.object-reuse": True,
        "python.execution-mode": "thread",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
    }


def _log4j() -> dict[str, str]:
    return {
        "rootLogger.level": "INFO",
        "rootLogger.appenderRef.file.ref": "File",
        "appender.file.name": "File",
        "appender.file.type": "RollingFile",
        "appender.file.fileName": "${sys:log.file}",
        "appender.file.filePattern": "${sys:log.file}.%i",
        "appender.file.layout.type": "PatternLayout",
        "appender.file.layout.pattern": "%d{ISO8601} %-5p %c{1} - %m%n",
        "appender.file.policies.type": "Policies",
        "appender.file.policies.size.type": "SizeBasedTriggeringPolicy",
        "appender.file.policies.size.size": "20MB",
        "appender.file.strategy.type": "DefaultRolloverStrategy",
        "appender.file.strategy.max": "2",
    }
