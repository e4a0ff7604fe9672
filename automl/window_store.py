"""The rows of many entities in a few large arrays, for compiled code.

Each entity has its rows in order of event time (ties by arrival) in one block of the
row arrays. Rows have *places*, counted from the oldest the entity still has. Of an
entity with many rows, every `TILE` rows in a row are also kept as one *tile*, and every
`TILE` tiles as a tile of the second level, so that a long window is answered from few
pieces. When an entity holds `head` rows, the older half of them is dropped and only
their tiles stay: what is left is exact but for windows whose far edge falls among those
tiles, where it moves to the edge of a tile (at most `TILE` - 1 rows too many).

Blocks have sizes of powers of two and go back to free lists. When an array is full the
compiled code stops and says which; `grown` makes it twice as large. Legend: `R` rows,
`E` tiles, `L` lanes, `S` entities.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

TILE_BITS = 6
TILE = 1 << TILE_BITS
#: Rows of two levels of tiles.
BLOCK = TILE * TILE
#: Words of a sum and of a sum of squares (`exact_sum`).
WORDS = 8
#: The time of a label that is not known yet.
NEVER = 2**62

# What `entities` holds of each: where its rows are, how many, how many older ones are
# in tiles alone; its tiles of the first and of the second level; its key.
AT, ROOM, ROWS, GONE = 0, 1, 2, 3
TILES_AT, TILES_ROOM, TILES = 4, 5, 6
BIG_AT, BIG_ROOM, BIG = 7, 8, 9
KEY, FIELDS = 10, 11

# What `tally` holds.
ROWS_TOP, TILES_TOP, SLOTS_TOP, SLOT_FREE, KEPT, SWEEP, EPOCH, NEED = range(8)
NEED_ROWS, NEED_TILES = 1, 2
#: The arrays of a `Store` that hold tiles.
TILE_ARRAYS = ("tile_time", "tile_count", "tile_words", "tile_value")


class Store(NamedTuple):
    """The arrays.

    Attributes:
        keys: uint64 (T,), open addressing; 0 where nothing is.
        slots: int64 (T,), the entity of each key.
        entities: int64 (S, FIELDS).
        time: int64 (R,), event times.
        bits: int64 (R, L), the lanes of rows as bits.
        case: uint64 (R,), or (0,) when no feature reads labels.
        known: int64 (R,), label time of the row's case, or `NEVER`; or (0,).
        label: float64 (R,), or (0,).
        tile_time: int64 (E, 3): last event time, when all labels in it are known or
            `NEVER`, and the `EPOCH` it was made in.
        tile_count: int64 (E, L, 2): values, and those that are not zero.
        tile_words: uint64 (E, L, WORDS): sum and sum of squares.
        tile_value: float64 (E, L, 3): smallest, largest, last.
        free: int64 (2, 64), first free block of each size, of rows and of tiles.
        tally: int64, running figures.
    """

    keys: npt.NDArray[np.uint64]
    slots: npt.NDArray[np.int64]
    entities: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    bits: npt.NDArray[np.int64]
    case: npt.NDArray[np.uint64]
    known: npt.NDArray[np.int64]
    label: npt.NDArray[np.float64]
    tile_time: npt.NDArray[np.int64]
    tile_count: npt.NDArray[np.int64]
    tile_words: npt.NDArray[np.uint64]
    tile_value: npt.NDArray[np.float64]
    free: npt.NDArray[np.int64]
    tally: npt.NDArray[np.int64]


def new_store(own_lanes: int, lanes: int, *, labels: bool) -> Store:
    """An empty store for rows of `own_lanes` lanes and tiles of `lanes` lanes."""
    rows, tiles, slots = 1024, 64, 256
    labelled = rows if labels else 0
    tally = np.zeros(8, dtype=np.int64)
    tally[SLOT_FREE] = -1
    tally[TILES_TOP] = 1  # the first tile is where an answer is put together
    return Store(
        keys=np.zeros(2 * slots, dtype=np.uint64),
        slots=np.zeros(2 * slots, dtype=np.int64),
        entities=np.zeros((slots, FIELDS), dtype=np.int64),
        time=np.empty(rows, dtype=np.int64),
        bits=np.empty((rows, own_lanes), dtype=np.int64),
        case=np.empty(labelled, dtype=np.uint64),
        known=np.empty(labelled, dtype=np.int64),
        label=np.empty(labelled, dtype=np.float64),
        tile_time=np.empty((tiles, 3), dtype=np.int64),
        tile_count=np.empty((tiles, lanes, 2), dtype=np.int64),
        tile_words=np.empty((tiles, lanes, WORDS), dtype=np.uint64),
        tile_value=np.empty((tiles, lanes, 3), dtype=np.float64),
        free=np.full((2, 64), -1, dtype=np.int64),
        tally=tally,
    )


def grown(store: Store, need: int) -> Store:
    """The store with twice the rows, or twice the tiles."""
    names: tuple[str, ...] = ("time", "bits", "case", "known", "label")
    if need == NEED_TILES:
        names = TILE_ARRAYS
    more: dict[str, Any] = {name: _doubled(getattr(store, name)) for name in names}
    return store._replace(**more)


def _doubled(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    more = np.empty((2 * len(array), *array.shape[1:]), dtype=array.dtype)
    more[: len(array)] = array
    return more


def with_room(store: Store, entities: int) -> Store:
    """The store with room for so many more entities."""
    used = int(store.tally[SLOTS_TOP])
    slots = len(store.entities)
    while slots < used + entities:
        slots *= 2
    if slots == len(store.entities):
        return store
    table = np.zeros((slots, FIELDS), dtype=np.int64)
    table[:used] = store.entities[:used]
    keys = np.zeros(2 * slots, dtype=np.uint64)
    places = np.zeros(2 * slots, dtype=np.int64)
    _rehash(store.keys, store.slots, keys, places)
    return store._replace(keys=keys, slots=places, entities=table)


@njit(cache=True)
def _rehash(keys, slots, new_keys, new_slots):  # type: ignore[no-untyped-def]
    mask = uint64(len(new_keys) - 1)
    for i in range(len(keys)):
        if keys[i]:
            at = keys[i] & mask
            while new_keys[at]:
                at = (at + uint64(1)) & mask
            new_keys[at] = keys[i]
            new_slots[at] = slots[i]


@njit(cache=True)
def find(store, key):  # type: ignore[no-untyped-def]
    """The slot of an entity, or -1."""
    mask = uint64(len(store.keys) - 1)
    at = key & mask
    while store.keys[at]:
        if store.keys[at] == key:
            return store.slots[at]
        at = (at + uint64(1)) & mask
    return np.int64(-1)


@njit(cache=True)
def add_entity(store, key):  # type: ignore[no-untyped-def]
    """The slot of a new entity; there must be room for it."""
    count = store.tally
    slot = count[SLOT_FREE]
    if slot >= 0:
        count[SLOT_FREE] = store.entities[slot, AT]
    else:
        slot = count[SLOTS_TOP]
        count[SLOTS_TOP] += 1
    store.entities[slot] = 0
    store.entities[slot, KEY] = np.uint64(key).view(np.int64)
    mask = uint64(len(store.keys) - 1)
    at = key & mask
    while store.keys[at]:
        at = (at + uint64(1)) & mask
    store.keys[at] = key
    store.slots[at] = slot
    return slot


@njit(cache=True)
def remove_entity(store, slot):  # type: ignore[no-untyped-def]
    """Forget an entity and free its blocks."""
    entity = store.entities[slot]
    key = entity[KEY : KEY + 1].view(np.uint64)[0]
    store.tally[KEPT] -= entity[ROWS]
    _give_rows(store, entity[AT], entity[ROOM])
    _give_tiles(store, entity[TILES_AT], entity[TILES_ROOM])
    _give_tiles(store, entity[BIG_AT], entity[BIG_ROOM])
    keys, slots = store.keys, store.slots
    mask = uint64(len(keys) - 1)
    hole = key & mask
    while keys[hole] != key:
        hole = (hole + uint64(1)) & mask
    at = (hole + uint64(1)) & mask
    while keys[at]:
        home = keys[at] & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            keys[hole], slots[hole] = keys[at], slots[at]
            hole = at
        at = (at + uint64(1)) & mask
    keys[hole] = uint64(0)
    entity[:] = 0
    entity[AT] = store.tally[SLOT_FREE]
    entity[ROOM] = -1
    store.tally[SLOT_FREE] = slot


@njit(cache=True)
def _size_class(size):  # type: ignore[no-untyped-def]
    found = 0
    while (1 << found) < size:
        found += 1
    return found


@njit(cache=True)
def _take_rows(store, size):  # type: ignore[no-untyped-def]
    kind = _size_class(size)
    at = store.free[0, kind]
    if at >= 0:
        store.free[0, kind] = store.time[at]
        return at
    at = store.tally[ROWS_TOP]
    if at + size > len(store.time):
        store.tally[NEED] = NEED_ROWS
        return np.int64(-1)
    store.tally[ROWS_TOP] += size
    return at


@njit(cache=True)
def _give_rows(store, at, size):  # type: ignore[no-untyped-def]
    if size:
        kind = _size_class(size)
        store.time[at] = store.free[0, kind]
        store.free[0, kind] = at


@njit(cache=True)
def _take_tiles(store, size):  # type: ignore[no-untyped-def]
    kind = _size_class(size)
    at = store.free[1, kind]
    if at >= 0:
        store.free[1, kind] = store.tile_time[at, 0]
        return at
    at = store.tally[TILES_TOP]
    if at + size > len(store.tile_time):
        store.tally[NEED] = NEED_TILES
        return np.int64(-1)
    store.tally[TILES_TOP] += size
    return at


@njit(cache=True)
def _give_tiles(store, at, size):  # type: ignore[no-untyped-def]
    if size:
        kind = _size_class(size)
        store.tile_time[at, 0] = store.free[1, kind]
        store.free[1, kind] = at


@njit(cache=True)
def copy_row(store, source, target):  # type: ignore[no-untyped-def]
    """Copy one row within the arrays."""
    store.time[target] = store.time[source]
    for lane in range(store.bits.shape[1]):
        store.bits[target, lane] = store.bits[source, lane]
    if len(store.case):
        store.case[target] = store.case[source]
        store.known[target] = store.known[source]
        store.label[target] = store.label[source]


@njit(cache=True)
def move_rows(store, entity, size):  # type: ignore[no-untyped-def]
    """Put an entity's rows into a block of another size; False when there is none."""
    at = _take_rows(store, size)
    if at < 0:
        return False
    old = entity[AT]
    for i in range(entity[ROWS]):
        copy_row(store, old + i, at + i)
    _give_rows(store, old, entity[ROOM])
    entity[AT], entity[ROOM] = at, size
    return True


@njit(cache=True)
def copy_tile(store, source, target):  # type: ignore[no-untyped-def]
    """Copy one tile within the arrays."""
    store.tile_time[target] = store.tile_time[source]
    store.tile_count[target] = store.tile_count[source]
    store.tile_words[target] = store.tile_words[source]
    store.tile_value[target] = store.tile_value[source]


@njit(cache=True)
def ensure_tiles(store, entity, level, tiles):  # type: ignore[no-untyped-def]
    """Room for so many tiles of a level (`TILES_AT`, `BIG_AT`); False if none is."""
    room = entity[level + 1]
    if room >= tiles:
        return True
    size = max(4, room)
    while size < tiles:
        size *= 2
    at = _take_tiles(store, size)
    if at < 0:
        return False
    old = entity[level]
    for i in range(entity[level + 2]):
        copy_tile(store, old + i, at + i)
    _give_tiles(store, old, room)
    entity[level], entity[level + 1] = at, size
    return True
