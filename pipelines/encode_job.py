"""Media events to embeddings."""

from __future__ import annotations

from dataclasses import asdict

from pyflink.common.typeinfo import Types

from connectors.flink import OUT, sink, source
from connectors.records import MEDIA
from connectors.topics import event_topic
from pipelines.config import JobConfig
from pipelines.environment import environment, job_config
from pipelines.operators.encode import EncodeMedia
from pipelines.operators.read import ASIDE, SHARDED, ReadEvents

OUTPUTS = ("embeddings", "vectors", "dead-letters")


def build(config: JobConfig) -> str:
    """Submit the job; gives its Flink job id."""
    env, tables = environment(config)
    topics = {config.topic(event_topic(m)): m for m in MEDIA}
    values = source(
        tables,
        "media",
        list(topics),
        bootstrap=config.bootstrap,
        group=f"{config.prefix}encode",
    )
    rows = values.process(
        ReadEvents(
            columns={},
            topics=topics,
            key="case_id",
            shards=config.nodes,  # one batch per node fills fastest
            dead_letters=config.topic("dead-letters"),
        ),
        SHARDED,
    ).name("read")
    keyed = rows.key_by(lambda row: row[0], Types.INT())
    encoded = keyed.process(EncodeMedia(asdict(config)), OUT).name("encode")
    out = encoded.uid("encode").union(
        rows.get_side_output(ASIDE), encoded.get_side_output(ASIDE)
    )
    outputs = [config.topic(name) for name in OUTPUTS]
    sink(tables, out, outputs, bootstrap=config.bootstrap)
    return str(env.execute_async(f"{config.prefix}encode").get_job_id())


if __name__ == "__main__":
    build(job_config())
