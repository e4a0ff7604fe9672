"""A store taken apart for a checkpoint, and put together again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import njit, uint64

from automl.window_store import (
    AT,
    BIG_AT,
    BLOCK,
    GONE,
    KEY,
    NEED_TILES,
    ROOM,
    ROWS,
    SLOTS_TOP,
    TILE,
    TILE_ARRAYS,
    TILES,
    TILES_AT,
    Store,
    add_entity,
    ensure_tiles,
    grown,
)


@njit(cache=True)
def dump_rows(store, shards, shard):  # type: ignore[no-untyped-def]
    """The rows of a shard's entities, packed, each entity's in their order."""
    total = 0
    for slot in range(store.tally[SLOTS_TOP]):
        if _is_of(store, slot, shards, shard):
            total += store.entities[slot, ROWS]
    lanes = store.bits.shape[1]
    rows = np.zeros((total, 3 + lanes), dtype=np.int64)
    row = 0
    for slot in range(store.tally[SLOTS_TOP]):
        if not _is_of(store, slot, shards, shard):
            continue
        first = store.entities[slot, AT]
        for at in range(first, first + store.entities[slot, ROWS]):
            rows[row, 0] = store.entities[slot, KEY]
            rows[row, 1] = store.time[at]
            if len(store.case):
                rows[row, 2] = np.uint64(store.case[at]).view(np.int64)
            rows[row, 3:] = store.bits[at]
            row += 1
    return rows


@njit(cache=True)
def _is_of(store, slot, shards, shard):  # type: ignore[no-untyped-def]
    entity = store.entities[slot]
    if entity[ROOM] <= 0:
        return False
    key = np.int64(entity[KEY]).view(np.uint64)
    return key % uint64(shards) == uint64(shard)


def dump_tiles(store: Store, shards: int, shard: int) -> Iterator[tuple[Any, ...]]:
    """For each entity of a shard with rows in tiles alone: its key and those tiles."""
    for slot in np.flatnonzero(store.entities[:, GONE] > 0).tolist():
        if _is_of(store, slot, shards, shard):
            entity = store.entities[slot]
            first, tiles = entity[TILES_AT], entity[GONE] // TILE
            arrays = [getattr(store, n)[first : first + tiles] for n in TILE_ARRAYS]
            yield int(entity[KEY]), int(entity[GONE]), [a.copy() for a in arrays]


def restore_tiles(store: Store, part: tuple[Any, ...]) -> Store:
    """The store with one entity more, which has tiles and no rows yet."""
    key, gone, arrays = part
    slot = add_entity(store, np.int64(key).astype(np.uint64))
    entity = store.entities[slot]
    while not (
        ensure_tiles(store, entity, TILES_AT, gone // TILE + 1)
        and ensure_tiles(store, entity, BIG_AT, gone // BLOCK + 1)
    ):
        store = grown(store, NEED_TILES)
        entity = store.entities[slot]
    first = entity[TILES_AT]
    for name, array in zip(TILE_ARRAYS, arrays, strict=True):
        getattr(store, name)[first : first + len(array)] = array
    entity[GONE], entity[TILES] = gone, gone // TILE
    return store
