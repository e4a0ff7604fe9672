"""Media events to embeddings; feature rows to vectors that can be searched."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pyflink.common.typeinfo import Types

from connectors.flink import KEYED, OUT, aside_of, by_first_field, sink, source
from connectors.records import MEDIA
from connectors.topics import event_topic
from pipelines.config import JobConfig
from pipelines.encoder_check import check_encoders
from pipelines.environment import environment
from pipelines.operators.encode import EncodeMedia
from pipelines.operators.read import FEATURES, ReadEvents

OUTPUTS = ("embeddings", "vectors", "dead-letters")


def build(config: JobConfig) -> str:
    """Submit the job; gives its Flink job id.

    Raises:
        EncoderMismatchError: the encoders are not those of the model.
    """
    check_encoders(Path(config.model_folder))
    env, tables = environment(config)
    topics = {config.topic(event_topic(m)): str(m) for m in MEDIA}
    topics[config.topic("features")] = FEATURES
    values = source(
        tables,
        "media",
        list(topics),
        bootstrap=config.bootstrap,
        group=f"{config.prefix}encode",
    )
    rows = values.process(
        ReadEvents(
            topics=topics,
            shards=config.shards,
            nodes=config.nodes,
            dead_letters=config.topic("dead-letters"),
        ),
        KEYED,
    ).name("read")
    batches = by_first_field(rows, Types.LONG())
    encoded = batches.process(EncodeMedia(asdict(config)), OUT)
    outputs = [config.topic(name) for name in OUTPUTS]
    out = encoded.name("encode").uid("encode").union(aside_of(rows))
    sink(tables, out, outputs, bootstrap=config.bootstrap)
    return str(env.execute_async(f"{config.prefix}encode").get_job_id())
