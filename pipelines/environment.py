"""The Flink environment of a job, from its settings."""

from __future__ import annotations

import sys

from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from pipelines.config import JobConfig


def environment(
    config: JobConfig,
) -> tuple[StreamExecutionEnvironment, StreamTableEnvironment]:
    """Environments with the settings that latency and recovery rest on.

    Thread mode runs Python inside the TaskManager (no bundle waits, no second process);
    a buffer leaves with every row (a timeout of 1 ms keeps a thread per task awake);
    objects are reused between operators; restarts never stop, since no event may be
    lost. RocksDB keeps the state: on the heap, Flink copies a whole list or map when it
    is touched after a checkpoint.

    A savepoint to start with belongs to the job from then on: Flink deletes it once
    checkpoints of the job have taken its place.
    """
    restored = {
        "execution.state-recovery.path": config.savepoint,
        "execution.state-recovery.claim-mode": "CLAIM",
    }
    env = thread_mode(
        {
            **(restored if config.savepoint else {}),
            "execution.buffer-timeout.interval": "0 ms",
            "pipeline.object-reuse": "true",
            "execution.checkpointing.interval": f"{config.checkpoint_ms} ms",
            "state.backend.type": "rocksdb",
            "state.backend.rocksdb.timer-service.factory": "HEAP",
            "state.backend.rocksdb.compression.per.level": "NO_COMPRESSION",
            "execution.checkpointing.incremental": "true",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": "2147483647",
            "restart-strategy.fixed-delay.delay": "1 s",
            "table.exec.sink.not-null-enforcer": "error",
        }
    )
    env.set_parallelism(config.nodes)
    env.set_max_parallelism(config.shards)
    return env, StreamTableEnvironment.create(env)


def thread_mode(settings: dict[str, str]) -> StreamExecutionEnvironment:
    """An environment that runs this Python inside the TaskManagers."""
    flink = Configuration()
    for key, value in {
        "python.execution-mode": "thread",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        **settings,
    }.items():
        flink.set_string(key, value)
    return StreamExecutionEnvironment.get_execution_environment(flink)
