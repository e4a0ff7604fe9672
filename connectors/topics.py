"""The table of topics: what each carries, how it is keyed, kept and sized."""

from __future__ import annotations

from dataclasses import dataclass

DAY_MS = 86_400_000
#: Largest Kafka value any topic takes; events above `EventLimits` are dead-lettered.
MAX_VALUE_BYTES = 48 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """One topic: its record type, its key and how long it keeps records."""

    name: str
    record: str
    key: str
    partitions: int = 2
    retention_ms: int = 7 * DAY_MS
    compacted: bool = False

    def settings(self) -> dict[str, str]:
        """Broker settings of this topic."""
        if self.compacted:
            kept = {"cleanup.policy": "compact"}
        else:
            kept = {"retention.ms": str(self.retention_ms)}
        return {"max.message.bytes": str(MAX_VALUE_BYTES), **kept}


TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        # one partition: a replay after a failure meets the events of an entity in the
        # same order, and so gives the same features
        Topic(name="events.tabular", record="Event", key="case_id", partitions=1),
        Topic(name="events.text", record="Event", key="case_id"),
        Topic(name="events.image", record="Event", key="case_id"),
        Topic(name="events.audio", record="Event", key="case_id"),
        Topic(name="embeddings", record="Embedding", key="case shard"),
        Topic(name="features", record="FeatureRow", key="subtask"),
        Topic(name="vectors", record="Embedding", key="case shard or subtask"),
        Topic(name="decisions", record="Decision", key="subtask"),
        Topic(name="alerts", record="Decision (JSON)", key="case_id"),
        # a job without state builds its table of what is known from these
        Topic(name="labels", record="Label", key="case_id", retention_ms=400 * DAY_MS),
        Topic(
            name="models",
            record="ModelAnnouncement (JSON)",
            key="model name",
            partitions=1,
            compacted=True,
        ),
        Topic(name="dead-letters", record="DeadLetter", key="modality", partitions=1),
    )
}


def event_topic(modality: str) -> str:
    """Name of the topic that carries events of one modality."""
    return f"events.{modality}"
