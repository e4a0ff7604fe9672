"""Settings of the local broker and cluster: ports, memory, timeouts."""

from __future__ import annotations

import dataclasses
import socket
import sys
import urllib.parse
from pathlib import Path
from typing import Any

from connectors.topics import MAX_VALUE_BYTES

HOST = "127.0.0.1"
FRAMEWORK_HEAP_MB, TASK_HEAP_MB = 128, 448
DIRECT_MB = {"framework": 128, "task": 64, "network": 64}
MANAGED_MB, METASPACE_MB = 96, 256


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """The listeners with a fixed number; all on loopback."""

    broker: int = 9092
    controller: int = 9093
    rest: int = 8081
    rpc: int = 6123
    blob: int = 6124

    @classmethod
    def choose(cls, wanted: Ports | None = None, *, usual: bool = True) -> Ports:
        """The wanted (else the usual) ports where they are free, else any free ones.

        `usual=False` takes any free ones at once, as tests do.
        """
        wanted = wanted or cls()
        kept: list[socket.socket] = []
        chosen: dict[str, int] = {}
        try:
            for field in dataclasses.fields(cls):
                number = getattr(wanted, field.name) if usual else 0
                kept.append(_bind(number))
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


def broker_settings(home: Path, ports: Ports) -> dict[str, Any]:
    """`server.properties` of one node that is broker and controller."""
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
        "message.max.bytes": MAX_VALUE_BYTES,
        "replica.fetch.max.bytes": MAX_VALUE_BYTES,
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


def flink_settings(home: Path, ports: Ports, opens: str) -> dict[str, Any]:
    """`config.yaml` of JobManager, TaskManagers and clients; `opens` for any JVM."""
    checkpoints = (home / "checkpoints").as_uri()
    return {
        "env.java.opts.all": f"{opens} -Djava.net.preferIPv4Stack=true",
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
        "state.backend.type": "rocksdb",
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


def client_settings(flink_url: str, opens: str) -> dict[str, Any]:
    """`config.yaml` of a client that submits to the cluster at `flink_url`."""
    address = urllib.parse.urlsplit(flink_url)
    return {
        "env.java.opts.all": opens,
        "rest.address": address.hostname,
        "rest.port": address.port,
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
    }


def log4j_settings() -> dict[str, str]:
    """Logging of Flink's processes: three files of 20 MB at most, none to stdout."""
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
