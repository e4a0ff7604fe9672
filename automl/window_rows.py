"""Rows of an entity put in, dropped when they are too old, and summed up in tiles.

Compiled code on a `Store`. A row that arrives late goes to its place by event time.
Legend: a *place* counts from the oldest row the entity still has, tiles included.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from automl.window_store import (
    AT,
    BIG,
    BIG_AT,
    BLOCK,
    GONE,
    KEPT,
    NEVER,
    ROOM,
    ROWS,
    SLOTS_TOP,
    SWEEP,
    TILE,
    TILE_BITS,
    TILES,
    TILES_AT,
    copy_row,
    copy_tile,
    ensure_tiles,
    move_rows,
    remove_entity,
)
from automl.window_tiles import know_label, make_big, make_tile

#: Rows from which on an entity has tiles.
TILED = 256
LEAST_ROOM = 4


@njit(cache=True)
def places_until(store, entity, time_ms):  # type: ignore[no-untyped-def]
    """How many places hold rows of event time up to `time_ms`.

    Among rows that are in tiles alone, a tile counts when all of it is that old.
    """
    at, gone = entity[AT], entity[GONE]
    low, high = np.int64(0), entity[ROWS]
    if gone and (high == 0 or store.time[at] > time_ms):
        low, high = np.int64(0), gone >> TILE_BITS
        while low < high:
            middle = (low + high) >> 1
            if store.tile_time[entity[TILES_AT] + middle, 0] <= time_ms:
                low = middle + 1
            else:
                high = middle
        return low << TILE_BITS
    while low < high:
        middle = (low + high) >> 1
        if store.time[at + middle] <= time_ms:
            low = middle + 1
        else:
            high = middle
    return gone + low


@njit(cache=True)
def put_row(  # type: ignore[no-untyped-def]
    store, labels, keeps, slot, time_ms, bits, case, forget_ms, head
):
    """Puts a row in its place and gives the place; -1 when an array is full.

    Nothing has changed then, but for rows from up to `forget_ms`, which may be dropped
    at any time, and the older half of an entity that holds `head` rows.
    """
    entity = store.entities[slot]
    if entity[ROWS] == entity[ROOM]:
        prune(store, entity, forget_ms)
        rows, room = entity[ROWS], entity[ROOM]
        if 4 * rows > 3 * room or room == 0:
            size = max(LEAST_ROOM, 2 * room)
            if not move_rows(store, entity, size):
                return np.int64(-1)
    places = entity[GONE] + entity[ROWS] + 1
    if places >= TILED:
        if not ensure_tiles(store, entity, TILES_AT, (places >> TILE_BITS) + 1):
            return np.int64(-1)
        if not ensure_tiles(store, entity, BIG_AT, places // BLOCK + 1):
            return np.int64(-1)
    at, rows = entity[AT], entity[ROWS]
    index = rows
    if rows and store.time[at + rows - 1] > time_ms:
        index = max(places_until(store, entity, time_ms) - entity[GONE], 0)
        if index == 0 and entity[GONE]:
            time_ms = store.time[at]  # older than the exact head: at its edge
        for i in range(rows, index, -1):
            copy_row(store, at + i - 1, at + i)
    _write(store, labels, at + index, time_ms, bits, case)
    entity[ROWS] = rows + 1
    store.tally[KEPT] += 1
    place = entity[GONE] + index
    entity[TILES] = min(entity[TILES], place >> TILE_BITS)
    entity[BIG] = min(entity[BIG], place // BLOCK)
    if entity[ROWS] >= head:
        _drop_to_tiles(store, labels, keeps, entity, head)
    return place


@njit(cache=True)
def _write(store, labels, at, time_ms, bits, case):  # type: ignore[no-untyped-def]
    store.time[at] = time_ms
    for lane in range(len(bits)):
        store.bits[at, lane] = bits[lane]
    if len(store.case):
        store.case[at] = case
        store.known[at] = NEVER
        store.label[at] = np.nan
        know_label(store, labels, at)


@njit(cache=True)
def prune(store, entity, forget_ms):  # type: ignore[no-untyped-def]
    """Drops an entity's rows, or whole blocks of its tiles, of up to `forget_ms`."""
    blocks = 0
    while (blocks + 1) * BLOCK <= entity[GONE]:
        if store.tile_time[entity[TILES_AT] + (blocks + 1) * TILE - 1, 0] > forget_ms:
            break
        blocks += 1
    if blocks:
        gone = blocks * BLOCK
        for i in range(entity[TILES] - blocks * TILE):
            first = entity[TILES_AT]
            copy_tile(store, first + blocks * TILE + i, first + i)
        for i in range(entity[BIG] - blocks):
            copy_tile(store, entity[BIG_AT] + blocks + i, entity[BIG_AT] + i)
        entity[TILES] = max(entity[TILES] - blocks * TILE, 0)
        entity[BIG] = max(entity[BIG] - blocks, 0)
        entity[GONE] -= gone
    if entity[GONE]:
        return
    cut = places_until(store, entity, forget_ms)
    if cut == 0:
        return
    at = entity[AT]
    for i in range(cut, entity[ROWS]):
        copy_row(store, at + i, at + i - cut)
    entity[ROWS] -= cut
    store.tally[KEPT] -= cut
    entity[TILES] = entity[BIG] = 0


@njit(cache=True)
def sweep(store, forget_ms, steps):  # type: ignore[no-untyped-def]
    """Looks at some entities in turn: drops those whose rows are all too old."""
    top = store.tally[SLOTS_TOP]
    if top == 0:
        return
    for _ in range(min(steps, top)):
        slot = store.tally[SWEEP] % top
        store.tally[SWEEP] = slot + 1
        entity = store.entities[slot]
        rows = entity[ROWS]
        if entity[ROOM] <= 0 or rows == 0:
            continue
        if store.time[entity[AT] + rows - 1] <= forget_ms:
            remove_entity(store, slot)
        elif rows > LEAST_ROOM and store.time[entity[AT] + rows // 2] <= forget_ms:
            prune(store, entity, forget_ms)
            size = entity[ROOM]
            while size > LEAST_ROOM and 2 * entity[ROWS] < size:
                size //= 2
            if size < entity[ROOM]:
                move_rows(store, entity, size)


@njit(cache=True)
def _drop_to_tiles(store, labels, keeps, entity, head):  # type: ignore[no-untyped-def]
    """Keeps the older half of the rows in tiles alone."""
    drop = head // 2
    until = entity[GONE] + drop
    make_tiles(store, labels, keeps, entity, until >> TILE_BITS)
    make_bigs(store, keeps, entity, until // BLOCK)
    at = entity[AT]
    for i in range(drop, entity[ROWS]):
        copy_row(store, at + i, at + i - drop)
    entity[ROWS] -= drop
    entity[GONE] += drop
    store.tally[KEPT] -= drop


@njit(cache=True)
def make_tiles(store, labels, keeps, entity, until):  # type: ignore[no-untyped-def]
    """Sums up the rows of the tiles that are missing, up to the `until`-th."""
    for tile in range(entity[TILES], until):
        at = entity[AT] + (tile << TILE_BITS) - entity[GONE]
        make_tile(store, labels, keeps, entity[TILES_AT] + tile, at)
    entity[TILES] = max(entity[TILES], until)


@njit(cache=True)
def make_bigs(store, keeps, entity, until):  # type: ignore[no-untyped-def]
    """Puts tiles together to those of the second level that are missing."""
    for big in range(entity[BIG], until):
        make_big(store, keeps, entity, big)
    entity[BIG] = max(entity[BIG], until)
