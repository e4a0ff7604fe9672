"""Values of many rows summed up in one tile, and tiles put together.

Compiled code on a `Store`. Everything a tile holds can be merged, exactly, so a window
is answered from rows and tiles alike.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from automl.borrowed import borrowed
from automl.exact_sum import add, add_square, merge
from automl.label_table import find_label, first_version, label_as_of, latest_label
from automl.window_plan import LABEL, MORE, SQUARE, SUM, TEXT
from automl.window_store import (
    AT,
    BIG_AT,
    EPOCH,
    NEVER,
    ROWS,
    SLOTS_TOP,
    TILE,
    TILES_AT,
    copy_tile,
)

#: 1.0 as bits: a row that passes a filter.
_ONE_BITS = int(np.float64(1.0).view(np.int64))


@njit(cache=True)
def clear_lane(store, tile, lane):  # type: ignore[no-untyped-def]
    """Makes a lane of a tile sum up nothing."""
    store.tile_count[tile, lane, 0] = 0
    store.tile_count[tile, lane, 1] = 0
    for i in range(8):
        store.tile_words[tile, lane, i] = uint64(0)
    store.tile_value[tile, lane, 0] = np.inf
    store.tile_value[tile, lane, 1] = -np.inf
    store.tile_value[tile, lane, 2] = np.nan


@njit(cache=True)
def add_rows(store, labels, keeps, tile, lane, begin, end, asked_ms):  # type: ignore[no-untyped-def]
    """Adds the rows at `begin` to `end` of the arrays to a lane, the newest first.

    What the lane holds already is newer than these rows. A label is added as it was
    known at `asked_ms`, if it was.
    """
    keep = keeps[lane, 0]
    if keep & (MORE | TEXT):
        _add_all(store, labels, keeps, tile, lane, begin, end, asked_ms, keep)
    elif keep & LABEL:
        _add_labels(store, labels, keeps, tile, lane, begin, end, asked_ms)
    else:
        _add_numbers(store, tile, lane, begin, end)


@njit(cache=True)
def _add_numbers(store, tile, lane, begin, end):  # type: ignore[no-untyped-def]
    """Counts and sums up numbers."""
    found, total = np.int64(0), read_words(store.tile_words, tile, lane, 0)
    bits = store.bits
    for at in range(begin, end):
        value = np.int64(bits[at, lane]).view(np.float64)
        if value == value:
            found += 1
            total = add(total, value)
    store.tile_count[tile, lane, 0] += found
    put_words(store.tile_words, tile, lane, 0, total)


@njit(cache=True)
def _add_labels(store, labels, keeps, tile, lane, begin, end, asked_ms):  # type: ignore[no-untyped-def]
    """Counts labels, and those that are not zero."""
    filter_lane, bits = keeps[lane, 1], store.bits
    corrections = store.tally[EPOCH]
    found, not_zero = np.int64(0), np.int64(0)
    for at in range(begin, end):
        if filter_lane >= 0 and bits[at, filter_lane] != _ONE_BITS:
            continue
        there, value = _label_at(store, labels, corrections, at, asked_ms)
        found += there
        not_zero += there and value != 0.0
    store.tile_count[tile, lane, 0] += found
    store.tile_count[tile, lane, 1] += not_zero


@njit(cache=True, inline="always")
def _label_at(store, labels, corrections, at, asked_ms):  # type: ignore[no-untyped-def]
    """The label of a row as it was known at a time: (known, label)."""
    if store.known[at] == NEVER:
        know_label(store, labels, at)
    there, value = store.known[at] <= asked_ms, store.label[at]
    if corrections:
        version = first_version(labels, store.case[at])
        if version >= 0:
            there, value = label_as_of(labels, version, asked_ms)
    return there, value


@njit(cache=True)
def _add_all(store, labels, keeps, tile, lane, begin, end, asked_ms, keep):  # type: ignore[no-untyped-def]
    """Adds everything that can be asked of a lane, as far as `keep` asks for sums."""
    filter_lane = keeps[lane, 1]
    is_label, is_text = keep & LABEL != 0, keep & TEXT != 0
    sums, squares = keep & SUM != 0, keep & SQUARE != 0
    count, words = store.tile_count, store.tile_words
    values, bits = store.tile_value, store.bits
    found, not_zero = count[tile, lane, 0], count[tile, lane, 1]
    low, high, last = (
        values[tile, lane, 0],
        values[tile, lane, 1],
        values[tile, lane, 2],
    )
    total, square = read_words(words, tile, lane, 0), read_words(words, tile, lane, 4)
    corrections = store.tally[EPOCH]
    for at in range(end - 1, begin - 1, -1):
        if is_label:
            if filter_lane >= 0 and bits[at, filter_lane] != _ONE_BITS:
                continue
            there, value = _label_at(store, labels, corrections, at, asked_ms)
            if not there:
                continue
        elif is_text:
            if bits[at, lane] == 0:
                continue
            value = 1.0
        else:
            value = np.int64(bits[at, lane]).view(np.float64)
            if value != value:
                continue
        if found == 0:
            last = value
        found += 1
        not_zero += value != 0.0
        low, high = min(low, value), max(high, value)
        if sums:
            total = add(total, value)
            if squares:
                square = add_square(square, value)
    count[tile, lane, 0], count[tile, lane, 1] = found, not_zero
    values[tile, lane, 0] = low
    values[tile, lane, 1] = high
    values[tile, lane, 2] = last
    if sums:
        put_words(words, tile, lane, 0, total)
        if squares:
            put_words(words, tile, lane, 4, square)


@njit(cache=True)
def read_words(words, tile, lane, first):  # type: ignore[no-untyped-def]
    """A sum of a tile's lane: at 0 of its values, at 4 of their squares."""
    return (
        words[tile, lane, first],
        words[tile, lane, first + 1],
        words[tile, lane, first + 2],
        words[tile, lane, first + 3],
    )


@njit(cache=True)
def put_words(words, tile, lane, first, value):  # type: ignore[no-untyped-def]
    """Writes what `read_words` reads."""
    words[tile, lane, first] = value[0]
    words[tile, lane, first + 1] = value[1]
    words[tile, lane, first + 2] = value[2]
    words[tile, lane, first + 3] = value[3]


@njit(cache=True)
def merge_lane(store, keep, tile, other, lane):  # type: ignore[no-untyped-def]
    """Adds a lane of another tile, which is older than what is there."""
    count, values, words = store.tile_count, store.tile_value, store.tile_words
    if count[other, lane, 0] == 0:
        return
    if count[tile, lane, 0] == 0:
        values[tile, lane, 2] = values[other, lane, 2]
    count[tile, lane, 0] += count[other, lane, 0]
    count[tile, lane, 1] += count[other, lane, 1]
    values[tile, lane, 0] = min(values[tile, lane, 0], values[other, lane, 0])
    values[tile, lane, 1] = max(values[tile, lane, 1], values[other, lane, 1])
    if keep & SUM:
        for first in (0, 4):
            ours, theirs = (
                read_words(words, tile, lane, first),
                read_words(words, other, lane, first),
            )
            put_words(words, tile, lane, first, merge(ours, theirs))
            if not keep & SQUARE:
                return


@njit(cache=True, inline="always")
def know_label(store, labels, at):  # type: ignore[no-untyped-def]
    """Writes the label of a row's case beside the row, once it is known."""
    place = find_label(labels, store.case[at])
    if place != -1:
        known_ms, label = latest_label(labels, place, store.time[at])
        store.known[at], store.label[at] = known_ms, label


@njit(cache=True)
def know_labels(store, labels):  # type: ignore[no-untyped-def]
    """Writes the labels that are known by now beside all rows."""
    store, labels = borrowed(store), borrowed(labels)
    for slot in range(store.tally[SLOTS_TOP]):
        first, rows = store.entities[slot, AT], store.entities[slot, ROWS]
        for at in range(first, first + rows):
            if store.known[at] == NEVER:
                know_label(store, labels, at)


@njit(cache=True)
def make_tile(store, labels, keeps, tile, at):  # type: ignore[no-untyped-def]
    """Sums up the `TILE` rows from `at` on."""
    for lane in range(len(keeps)):
        clear_lane(store, tile, lane)
        # whatever may be asked of a tile that outlives its rows
        keep = keeps[lane, 0] | SUM | SQUARE
        _add_all(store, labels, keeps, tile, lane, at, at + TILE, NEVER - 1, keep)
    until = np.int64(0)
    if len(store.case):
        for i in range(at, at + TILE):
            until = max(until, store.known[i])
            if store.tally[EPOCH] and first_version(labels, store.case[i]) >= 0:
                until = np.int64(NEVER)  # corrected: answered row by row
    store.tile_time[tile, 0] = store.time[at + TILE - 1]
    store.tile_time[tile, 1] = until
    store.tile_time[tile, 2] = store.tally[EPOCH]


@njit(cache=True)
def make_big(store, keeps, entity, big):  # type: ignore[no-untyped-def]
    """Puts `TILE` tiles together to one of the second level."""
    tile = entity[BIG_AT] + big
    newest = entity[TILES_AT] + (big + 1) * TILE - 1
    copy_tile(store, newest, tile)
    for other in range(newest - 1, newest - TILE, -1):
        for lane in range(len(keeps)):
            merge_lane(store, SUM | SQUARE, tile, other, lane)
        if store.tile_time[other, 1] > store.tile_time[tile, 1]:
            store.tile_time[tile, 1] = store.tile_time[other, 1]
        if store.tile_time[other, 2] < store.tile_time[tile, 2]:
            store.tile_time[tile, 2] = store.tile_time[other, 2]


@njit(cache=True)
def is_stale(store, tile):  # type: ignore[no-untyped-def]
    """Whether labels in a tile were unknown or may have been corrected since."""
    return (
        store.tile_time[tile, 1] == NEVER
        or store.tile_time[tile, 2] != store.tally[EPOCH]
    )


@njit(cache=True)
def all_known(store, tile, asked_ms):  # type: ignore[no-untyped-def]
    """Whether every label in a tile counts at a time, and none was corrected since."""
    return (
        store.tile_time[tile, 1] <= asked_ms
        and store.tile_time[tile, 2] == store.tally[EPOCH]
    )
