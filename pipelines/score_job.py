"""Path 1: tabular events and embeddings to decisions, alerts, features and vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyflink.common.typeinfo import Types

from automl.features import FeatureAssembler
from automl.registry import verify
from automl.task import TaskSpec
from connectors.flink import KEYED, OUT, aside_of, by_first_field, sink, source
from pipelines.config import JobConfig
from pipelines.environment import environment
from pipelines.operators.aggregate import AggregateWindows
from pipelines.operators.collect import CollectEvents
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
    kafka = {"bootstrap": config.bootstrap, "group": f"{config.prefix}score"}
    spread: dict[str, Any] = {"shards": config.shards, "nodes": config.nodes}
    dead_letters = config.topic("dead-letters")

    events = config.topic("events.tabular")
    records = source(tables, "tabular", [events], **kafka)
    collect = CollectEvents(
        topic=events,
        columns=spec.needed_columns,
        number_limits=spec.number_limits(),
        key=keys[0],
        wait_ms=config.collect_wait_ms,
        horizon_ms=spec.horizon_ms,
        dead_letters=dead_letters,
        **spread,
    )
    rows = by_first_field(records, Types.LONG()).process(collect, KEYED)
    rows = rows.name("collect").uid("collect")
    aside = [aside_of(rows)]
    for entity, next_key in zip(entities, keys[1:], strict=True):
        windows = AggregateWindows(
            task=spec.to_dict(),
            entity=entity,
            next_key=next_key,
            # of the first entity, a frame comes from the one task that read it
            senders=1 if entity == entities[0] else config.nodes,
            bootstrap=config.bootstrap,
            labels=config.topic("labels"),
            **spread,
        )
        rows = by_first_field(rows, Types.LONG()).process(windows, KEYED)
        rows = rows.name(f"windows-{entity}").uid(f"windows-{entity}")

    inputs = [config.topic("embeddings"), config.topic("models")]
    routed = source(tables, "routed", inputs, **kafka)
    route = RouteToCases(models=inputs[1], dead_letters=dead_letters, **spread)
    routed = routed.process(route, KEYED)
    routed = routed.name("route")
    aside.append(aside_of(routed))
    cases = by_first_field(rows.union(routed), Types.LONG())
    scored = cases.process(ScoreCases(asdict(config)), OUT).name("score").uid("score")
    outputs = [config.topic(name) for name in OUTPUTS]
    sink(tables, scored.union(*aside), outputs, bootstrap=config.bootstrap)
    return str(env.execute_async(f"{config.prefix}score").get_job_id())
