"""Path 1: tabular events and embeddings to decisions, alerts, features and vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from automl.features import FeatureAssembler
from automl.registry import verify
from automl.task import TaskSpec
from connectors.flink import OUT, SHARDED, aside_of, by_shard_key, sink, source
from pipelines.config import JobConfig
from pipelines.environment import environment
from pipelines.operators.aggregate import AggregateWindows
from pipelines.operators.read import ReadEvents
from pipelines.operators.route import RouteToCases
from pipelines.operators.score import ScoreCases

OUTPUTS = ("decisions", "alerts", "features", "vectors", "dead-letters")


def build(config: JobConfig) -> str:
    """Submit the job; gives its Flink job id."""
    env, tables = environment(config)
    manifest = verify(Path(config.model_folder))
    spec = TaskSpec.from_json(manifest.task)
    entities = FeatureAssembler(spec).entities
    keys = [*(spec.entities[entity] for entity in entities), "case_id"]
    shards, dead = config.shards, config.topic("dead-letters")
    kafka = {"bootstrap": config.bootstrap, "group": f"{config.prefix}score"}

    tabular = config.topic("events.tabular")
    values = source(tables, "tabular", [tabular], **kafka)
    rows = values.process(
        ReadEvents(
            columns=spec.needed_columns,
            topics={tabular: "tabular"},
            key=keys[0],
            shards=shards,
            dead_letters=dead,
        ),
        SHARDED,
    ).name("read")
    aside = [aside_of(rows)]
    for entity, next_key in zip(entities, keys[1:], strict=True):
        windows = AggregateWindows(
            task=spec.to_dict(),
            entity=entity,
            next_key=next_key,
            shards=shards,
            dead_letters=dead,
        )
        rows = by_shard_key(rows).process(windows, SHARDED)
        rows = rows.name(f"windows-{entity}").uid(f"windows-{entity}")
        aside.append(aside_of(rows))

    inputs = [config.topic("embeddings"), config.topic("models")]
    routed = (
        source(tables, "routed", inputs, **kafka)
        .process(
            RouteToCases(models=inputs[1], shards=shards, dead_letters=dead), SHARDED
        )
        .name("route")
    )
    aside.append(aside_of(routed))
    cases = by_shard_key(rows.union(routed))
    scored = cases.process(ScoreCases(asdict(config)), OUT).name("score").uid("score")
    outputs = [config.topic(name) for name in OUTPUTS]
    sink(tables, scored.union(*aside), outputs, bootstrap=config.bootstrap)
    return str(env.execute_async(f"{config.prefix}score").get_job_id())
