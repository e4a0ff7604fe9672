"""Kafka in and out of a Flink job, with the place of every record kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyflink.common import Row
from pyflink.common.typeinfo import TypeInformation, Types
from pyflink.datastream import DataStream, KeyedStream, OutputTag
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, Schema, StreamTableEnvironment

from connectors.records import Place
from connectors.topics import MAX_VALUE_BYTES

#: What a job writes: topic, key and value of one Kafka record.
OUT = Types.ROW_NAMED(
    ["topic", "k", "v"],
    [
        Types.STRING(),
        Types.PRIMITIVE_ARRAY(Types.BYTE()),
        Types.PRIMITIVE_ARRAY(Types.BYTE()),
    ],
)

#: Between operators: a key that says which node is meant, and what is for that node.
#: The key is LONG, since an int that Python hands to Java becomes a `java.lang.Long`.
KEYED = Types.ROW_NAMED(["key", "body"], [Types.LONG(), Types.PICKLED_BYTE_ARRAY()])
#: What a source hands over: the partition, and a `Record`.
_KEYED_RECORD = Types.ROW(
    [Types.LONG(), Types.OBJECT_ARRAY(Types.PRIMITIVE_ARRAY(Types.BYTE()))]
)
#: Topic, partition and offset in one text, and the value: every object more that Java
#: hands to Python costs, and a row costs most.
Record = tuple[bytes, bytes | None]
#: What an operator writes to Kafka itself, past the operators that follow it.
ASIDE = OutputTag("aside", OUT)


def aside_of(stream: DataStream) -> DataStream:
    """The `OUT` rows that an operator yielded under `ASIDE`.

    `DataStream.get_side_output` adds a Python map that changes nothing, and so a second
    Python operator to the task: see `by_first_field`.
    """
    return DataStream(stream._j_data_stream.getSideOutput(ASIDE.get_java_output_tag()))


def by_first_field(stream: DataStream, key: TypeInformation) -> KeyedStream:
    """Rows (key, value) keyed by their key, without a Python operator for it.

    `DataStream.key_by` runs a Python map that makes such rows of others. It is not only
    cheaper: in thread mode every Python operator of a task has its own interpreter
    state on the same thread, and a native extension that asks for the GIL (torch,
    scipy) then waits for itself for ever. So a task must hold one Python operator, no
    more.
    """
    keyed = stream._j_data_stream.keyBy(
        get_gateway().jvm.KeyByKeySelector(), Types.ROW([key]).get_java_type_info()
    )
    return KeyedStream(keyed, stream.get_type(), stream)


def out_row(topic: str, key: str, value: bytes) -> Row:
    """One Kafka record for `sink`."""
    return Row(topic, key.encode(), value)


def place_and_value(record: Record) -> tuple[Place, bytes | None]:
    """Where a record of `source` was read, and its bytes."""
    place, value = record
    topic, partition, offset = place.split()
    return (
        Place(topic=topic.decode(), partition=int(partition), offset=int(offset)),
        value,
    )


def source(
    tables: StreamTableEnvironment,
    name: str,
    topics: Sequence[str],
    *,
    bootstrap: str,
    group: str,
) -> DataStream:
    """Rows (partition, `Record`) from where the group stopped.

    A group that never read begins at the oldest record. The broker answers as soon as
    it has anything: while a source is at work on it, the next records gather.

    The DataStream Kafka source of PyFlink hands over the value alone; the table
    connector also gives the place, which a dead letter must carry. Replays from the
    last checkpoint after a failure (at-least-once with `sink`).
    """
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE {name} (
          topic STRING METADATA VIRTUAL,
          `partition` INT METADATA VIRTUAL,
          `offset` BIGINT METADATA VIRTUAL,
          `value` BYTES
        ) WITH (
          'connector' = 'kafka', 'format' = 'raw',
          'topic' = '{";".join(topics)}',
          'scan.startup.mode' = 'group-offsets',
          'properties.auto.offset.reset' = 'earliest',
          'properties.bootstrap.servers' = '{bootstrap}',
          'properties.group.id' = '{group}',
          'properties.max.partition.fetch.bytes' = '{MAX_VALUE_BYTES}',
          'properties.fetch.max.bytes' = '{2 * MAX_VALUE_BYTES}'
        )
        """
    )
    rows = tables.sql_query(
        f"""
        SELECT CAST(`partition` AS BIGINT), ARRAY[
          CAST(CONCAT_WS(' ', topic, CAST(`partition` AS STRING),
               CAST(`offset` AS STRING)) AS BYTES),
          `value`
        ]
        FROM {name}
        """
    )
    # not to_data_stream: its type of rows cannot key a Python operator
    stream = tables.to_append_stream(rows, _KEYED_RECORD)
    _name_origin(stream._j_data_stream.getTransformation(), f"source-{name}")
    return stream


def _name_origin(transformation: Any, uid: str) -> None:
    """Give the first of a chain of transformations its uid.

    A job that starts from a savepoint finds the offsets of its source by it. Flink
    would derive one from the shape of the whole job, which changes with the job.
    """
    inputs = transformation.getInputs()
    while not inputs.isEmpty():
        transformation = inputs.get(0)
        inputs = transformation.getInputs()
    transformation.setUid(uid)


def sink(
    tables: StreamTableEnvironment,
    stream: DataStream,
    topics: Sequence[str],
    *,
    bootstrap: str,
) -> None:
    """Write `OUT` rows, each to the topic it names; at-least-once.

    Keyed by `k`, so that records of one key keep their order.
    """
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE sluice_out (
          topic STRING METADATA, k BYTES, v BYTES
        ) WITH (
          'connector' = 'kafka',
          'topic' = '{";".join(topics)}',
          'key.format' = 'raw', 'key.fields' = 'k',
          'value.format' = 'raw', 'value.fields-include' = 'EXCEPT_KEY',
          'sink.delivery-guarantee' = 'at-least-once',
          'properties.bootstrap.servers' = '{bootstrap}',
          'properties.linger.ms' = '0',
          'properties.max.request.size' = '{MAX_VALUE_BYTES}'
        )
        """
    )
    schema = (
        Schema.new_builder()
        .column("topic", DataTypes.STRING())
        .column("k", DataTypes.BYTES())
        .column("v", DataTypes.BYTES())
        .build()
    )
    inserts: Any = tables.create_statement_set()
    inserts.add_insert("sluice_out", tables.from_data_stream(stream, schema))
    inserts.attach_as_datastream()
