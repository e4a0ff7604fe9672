"""Values of many rows summed up in one tile, and tiles put together.

Compiled code on a `Store`. Everything a tile holds can be merged, exactly, so a window
is answered from rows and tiles alike.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from automl.exact_sum import SUM_WORDS, add, add_square, merge
from automl.label_table import find_label, label_as_of
from automl.window_plan import LABEL, SQUARE, SUM, TEXT
from automl.window_store import BIG, BIG_AT, EPOCH, NEVER, TILE, TILES_AT, copy_tile


@njit(cache=True)
def clear_lane(store, tile, lane):  # type: ignore[no-untyped-def]
    """Makes a lane of a tile sum up nothing."""
    for i in range(2):
        store.tile_count[tile, lane, i] = 0
    for i in range(store.tile_words.shape[2]):
        store.tile_words[tile, lane, i] = uint64(0)
    store.tile_value[tile, lane, 0] = np.inf
    store.tile_value[tile, lane, 1] = -np.inf
    store.tile_value[tile, lane, 2] = np.nan


@njit(cache=True)
def is_there(keeps, lane, bits):  # type: ignore[no-untyped-def]
    """Whether an own lane of a row has a value."""
    if keeps[lane, 0] & TEXT:
        return bits != 0
    value = np.int64(bits).view(np.float64)
    return value == value


@njit(cache=True)
def add_bits(store, keeps, tile, lane, bits, newer):  # type: ignore[no-untyped-def]
    """Adds a row's own lane to a tile, unless its value is missing."""
    if is_there(keeps, lane, bits):
        text = keeps[lane, 0] & TEXT
        value = 1.0 if text else np.int64(bits).view(np.float64)
        add_value(store, keeps, tile, lane, value, newer)


@njit(cache=True)
def add_value(store, keeps, tile, lane, value, newer):  # type: ignore[no-untyped-def]
    """Adds a value to a tile; `newer` says on which side of what is there."""
    count, values = store.tile_count[tile, lane], store.tile_value[tile, lane]
    if newer or count[0] == 0:
        values[2] = value
    count[0] += 1
    if value != 0.0:
        count[1] += 1
    if value < values[0]:
        values[0] = value
    if value > values[1]:
        values[1] = value
    keep = keeps[lane, 0]
    if keep & SUM:
        add(store.tile_words[tile, lane, :SUM_WORDS], value)
        if keep & SQUARE:
            add_square(store.tile_words[tile, lane, SUM_WORDS:], value)


@njit(cache=True)
def merge_lane(store, keeps, tile, other, lane, newer):  # type: ignore[no-untyped-def]
    """Adds a lane of another tile; `newer` says on which side of what is there."""
    count, more = store.tile_count[tile, lane], store.tile_count[other, lane]
    if more[0] == 0:
        return
    values, theirs = store.tile_value[tile, lane], store.tile_value[other, lane]
    if newer or count[0] == 0:
        values[2] = theirs[2]
    count[0] += more[0]
    count[1] += more[1]
    values[0] = min(values[0], theirs[0])
    values[1] = max(values[1], theirs[1])
    keep = keeps[lane, 0]
    if keep & SUM:
        words, others = store.tile_words[tile, lane], store.tile_words[other, lane]
        merge(words[:SUM_WORDS], others[:SUM_WORDS])
        if keep & SQUARE:
            merge(words[SUM_WORDS:], others[SUM_WORDS:])


@njit(cache=True)
def know_label(store, labels, at):  # type: ignore[no-untyped-def]
    """Writes the label of a row's case beside the row, once it is known."""
    found = find_label(labels, store.case[at])
    if found >= 0:
        store.known[at] = labels.time[found]
        store.label[at] = labels.value[found]


@njit(cache=True)
def add_label(store, labels, keeps, tile, lane, at, asked_ms, newer):  # type: ignore[no-untyped-def]
    """Adds the label of a row's case as it was known at `asked_ms`, if it was."""
    kept = keeps[lane, 1]
    if kept >= 0 and not store.bits[at, kept] == ONE_BITS:
        return
    if store.known[at] == NEVER:
        know_label(store, labels, at)
    known, value = store.known[at] <= asked_ms, store.label[at]
    if store.count[EPOCH]:
        found = find_label(labels, store.case[at])
        if found >= 0 and labels.older[found] >= 0:
            known, value = label_as_of(labels, found, asked_ms)
    if known:
        add_value(store, keeps, tile, lane, value, newer)


#: 1.0 as bits: a row that passes a filter.
ONE_BITS = int(np.float64(1.0).view(np.int64))


@njit(cache=True)
def make_tile(store, labels, keeps, tile, at):  # type: ignore[no-untyped-def]
    """Sums up the `TILE` rows from `at` on."""
    for lane in range(len(keeps)):
        clear_lane(store, tile, lane)
    until = np.int64(0)
    for i in range(at, at + TILE):
        for lane in range(len(keeps)):
            if keeps[lane, 0] & LABEL:
                add_label(store, labels, keeps, tile, lane, i, NEVER - 1, True)
            else:
                add_bits(store, keeps, tile, lane, store.bits[i, lane], True)
        if len(store.case):
            until = max(until, store.known[i])
            if store.count[EPOCH]:
                found = find_label(labels, store.case[i])
                if found >= 0 and labels.older[found] >= 0:
                    until = np.int64(NEVER)  # corrected: answered row by row
    store.tile_time[tile, 0] = store.time[at + TILE - 1]
    store.tile_time[tile, 1] = until
    store.tile_time[tile, 2] = store.count[EPOCH]


@njit(cache=True)
def make_big(store, keeps, entity, big):  # type: ignore[no-untyped-def]
    """Puts `TILE` tiles together to one of the second level."""
    tile = entity[BIG_AT] + big
    first = entity[TILES_AT] + big * TILE
    copy_tile(store, first, tile)
    for other in range(first + 1, first + TILE):
        for lane in range(len(keeps)):
            merge_lane(store, keeps, tile, other, lane, True)
        store.tile_time[tile, 0] = store.tile_time[other, 0]
        if store.tile_time[other, 1] > store.tile_time[tile, 1]:
            store.tile_time[tile, 1] = store.tile_time[other, 1]
        if store.tile_time[other, 2] < store.tile_time[tile, 2]:
            store.tile_time[tile, 2] = store.tile_time[other, 2]


@njit(cache=True)
def is_stale(store, tile):  # type: ignore[no-untyped-def]
    """Whether labels in a tile were unknown or may have been corrected since."""
    return (
        store.tile_time[tile, 1] == NEVER
        or store.tile_time[tile, 2] != store.count[EPOCH]
    )


@njit(cache=True)
def all_known(store, tile, asked_ms):  # type: ignore[no-untyped-def]
    """Whether every label in a tile counts at a time, and none was corrected since."""
    return (
        store.tile_time[tile, 1] <= asked_ms
        and store.tile_time[tile, 2] == store.count[EPOCH]
    )
