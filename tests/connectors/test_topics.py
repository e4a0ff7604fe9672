from connectors.cells import EventLimits
from connectors.records import CONTENT_COLUMN, MEDIA, MODALITIES, Place
from connectors.topics import MAX_VALUE_BYTES, TOPICS, event_topic


def test_every_topic_of_the_design_is_in_the_table():
    events = {event_topic(modality) for modality in MODALITIES}
    assert events == {"events.tabular", "events.text", "events.image", "events.audio"}
    rest = {"embeddings", "features", "vectors", "decisions", "alerts", "labels"}
    assert set(TOPICS) == events | rest | {"models", "dead-letters"}
    assert all(TOPICS[name].name == name for name in TOPICS)


def test_only_announcements_are_compacted_and_in_one_order():
    assert [name for name, topic in TOPICS.items() if topic.compacted] == ["models"]
    assert TOPICS["models"].partitions == 1
    assert TOPICS["models"].settings()["cleanup.policy"] == "compact"
    assert "retention.ms" not in TOPICS["models"].settings()


def test_other_topics_keep_records_for_a_week():
    settings = TOPICS["decisions"].settings()
    assert settings == {
        "max.message.bytes": str(MAX_VALUE_BYTES),
        "retention.ms": "604800000",
    }


def test_a_value_at_the_event_limit_still_fits_a_dead_letter():
    assert 2 * EventLimits().max_value_bytes < MAX_VALUE_BYTES


def test_every_medium_has_a_content_column():
    assert tuple(CONTENT_COLUMN) == MEDIA == MODALITIES[1:]


def test_a_place_reads_as_topic_partition_offset():
    assert str(Place(topic="a.b", partition=1, offset=9)) == "a.b[1]@9"
