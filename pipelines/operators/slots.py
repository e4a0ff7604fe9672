"""Kafka values that wait in an operator, kept in Flink state until they went on."""

from __future__ import annotations

from pyflink.common.typeinfo import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

#: Bytes of an offset before a value, and what says that there is a value.
_OFFSET_BYTES, _THERE = 8, b"\1"


class Slots:
    """The waiting values of a partition, which is the key in use.

    They lie in slots 0, 1, ... of a map, and the next ones are written over them; a
    number tells how far they went on. Nothing is removed: RocksDB steps over all that
    was ever removed from a map when it is read or cleared, which made the collecting of
    events 20 times slower within minutes.

    Args:
        context: where the state is opened.
    """

    def __init__(self, context: RuntimeContext) -> None:
        self._slots = context.get_map_state(
            MapStateDescriptor("slots", Types.LONG(), Types.PICKLED_BYTE_ARRAY())
        )
        self._gone = context.get_state(ValueStateDescriptor("gone", Types.LONG()))

    def put(self, slot: int, offset: int, value: bytes | None) -> None:
        """Keep a value; offsets grow."""
        kept = offset.to_bytes(_OFFSET_BYTES, "little")
        self._slots.put(slot, kept if value is None else kept + _THERE + value)

    def went_on(self, offset: int) -> None:
        """The values up to this offset wait no longer."""
        self._gone.update(offset)

    def waiting(self) -> list[tuple[int, bytes | None]]:
        """Offsets and values that wait, in their order."""
        gone = self._gone.value()
        found = []
        for _, kept in self._slots.items():
            offset = int.from_bytes(kept[:_OFFSET_BYTES], "little")
            if gone is None or offset > gone:
                there = len(kept) > _OFFSET_BYTES
                found.append((offset, kept[_OFFSET_BYTES + 1 :] if there else None))
        return sorted(found, key=lambda one: one[0])
