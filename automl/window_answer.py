"""What each row sees in its windows: compiled code over the rows of a frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from automl.borrowed import borrowed
from automl.exact_sum import deviation, to_double
from automl.window_plan import (
    AGE,
    COUNT,
    DISTINCT,
    MAX,
    MEAN,
    MIN,
    RATIO,
    ROWS_AGE,
    SHARE,
    STD,
    TEXT,
    TOTAL,
    UNIQUE,
    ZSCORE,
)
from automl.window_plan import ROWS as READ_ROWS
from automl.window_rows import make_bigs, make_tiles, places_until, put_row, sweep
from automl.window_store import (
    AT,
    BIG_AT,
    BLOCK,
    GONE,
    TILE,
    TILE_BITS,
    TILES_AT,
    TILES_ROOM,
    add_entity,
    find,
)
from automl.window_tiles import (
    add_rows,
    all_known,
    clear_lane,
    is_stale,
    make_big,
    make_tile,
    merge_lane,
    read_words,
)

#: The tile an answer is put together in.
ANSWER = 0
#: No value is divided by less.
LEAST = 1e-15


class Seen(NamedTuple):
    """The different values of one walk; open addressing that is never cleared.

    Attributes:
        bits: int64 (L, N), values.
        turn: int64 (L, N), the walk that put them there.
        tally: int64 (L + 1,): different values by lane, then the walk's number.
    """

    bits: npt.NDArray[np.int64]
    turn: npt.NDArray[np.int64]
    tally: npt.NDArray[np.int64]


@njit(cache=True, nogil=True)
def observe(  # type: ignore[no-untyped-def]
    store,
    labels,
    program,
    seen,
    keys,
    times,
    bits,
    cases,
    clock,
    keep_ms,
    head,
    out,
    start,
):
    """Takes rows from `start` on, in order of arrival, and answers each.

    Gives the number of the first row that found an array of the store full, or how
    many rows there are. `out` of no columns asks for no answers.
    """
    store, labels = borrowed(store), borrowed(labels)
    program, seen = borrowed(program), borrowed(seen)
    for row in range(start, len(keys)):
        key, time_ms, forget_ms = keys[row], times[row], clock[row] - keep_ms
        if key == uint64(0):
            out[row, :] = np.nan
            continue
        slot = find(store, key)
        if slot < 0:
            slot = add_entity(store, key)
        case = cases[row] if len(cases) else uint64(0)
        lanes = program.lanes
        own = put_row(
            store, labels, lanes, slot, time_ms, bits[row], case, forget_ms, head
        )
        if own < 0:
            return row
        if out.shape[1]:
            entity = store.entities[slot]
            for group in range(len(program.groups)):
                _answer(
                    store,
                    labels,
                    program,
                    seen,
                    entity,
                    group,
                    time_ms,
                    own,
                    bits[row],
                    forget_ms,
                    out[row],
                )
    if len(keys):
        # more than can be new, so that the silent ones do not pile up
        sweep(store, clock[len(keys) - 1] - keep_ms, 2 * len(keys))
    return len(keys)


@njit(cache=True)
def _answer(  # type: ignore[no-untyped-def]
    store, labels, program, seen, entity, group, time_ms, own, bits, forget_ms, out
):
    """Answers the features of one delay, the shortest window first."""
    delay, first, last, lane, lane_end = program.groups[group]
    lanes = program.group_lanes[lane:lane_end]
    end = places_until(store, entity, time_ms - delay)
    if delay == 0:
        end = max(end, own + 1)
    seen.tally[len(program.lanes)] += 1
    exact = False
    for one in lanes:
        clear_lane(store, ANSWER, one)
        seen.tally[one] = 0
        exact |= program.lanes[one, 0] & DISTINCT != 0
    place = end
    for window in range(first, last):
        edge = max(time_ms - delay - program.windows[window, 0], forget_ms)
        begin = min(places_until(store, entity, edge), end)
        if len(lanes):
            _walk(
                store,
                labels,
                program,
                seen,
                entity,
                lanes,
                begin,
                place,
                time_ms,
                exact,
            )
            place = begin
        for i in range(program.windows[window, 1], program.windows[window, 2]):
            slot, read, one = program.features[i]
            if read == READ_ROWS:
                out[slot] = (end - begin) * program.scale[i]
            elif read in (ROWS_AGE, AGE):
                keeps = program.lanes
                out[slot] = _age(store, keeps, entity, one, time_ms, begin, end, own)
            elif read in (RATIO, ZSCORE):
                out[slot] = _set_against(store, seen, read, one, bits[one])
            else:
                out[slot] = _read(store, seen, read, one, program.scale[i])


@njit(cache=True)
def _walk(  # type: ignore[no-untyped-def]
    store, labels, program, seen, entity, lanes, begin, end, asked_ms, exact
):
    """Adds what stands between two places to the answer, going back in time.

    Whole tiles where there are any, rows at the ends; `exact` lanes need every row.
    """
    keeps, gone = program.lanes, entity[GONE]
    tiled = entity[TILES_ROOM] > 0 and not exact
    place = end
    while place > begin:
        inside = place <= gone  # its rows are in tiles alone
        if inside or (tiled and place % TILE == 0 and place - TILE >= begin):
            size, tile = BLOCK, np.int64(-1)
            if place % BLOCK == 0 and place - BLOCK >= begin:
                tile = _big_tile(store, labels, keeps, entity, place)
            if tile < 0 or not (inside or all_known(store, tile, asked_ms)):
                size, tile = TILE, _tile(store, labels, keeps, entity, place)
            if inside or all_known(store, tile, asked_ms):
                for lane in lanes:
                    merge_lane(store, keeps[lane, 0], ANSWER, tile, lane)
                place -= size
                continue
        stop = max(begin, gone)
        if tiled:
            stop = max(stop, (place - 1) // TILE * TILE)
        first = entity[AT] - gone
        for lane in lanes:
            add_rows(
                store,
                labels,
                keeps,
                ANSWER,
                lane,
                first + stop,
                first + place,
                asked_ms,
            )
            if keeps[lane, 0] & DISTINCT:
                _note(store, seen, keeps, lane, first + stop, first + place)
        place = stop


@njit(cache=True)
def _tile(store, labels, keeps, entity, place):  # type: ignore[no-untyped-def]
    """The tile that ends before a place; labels known by now are in it."""
    number = (place >> TILE_BITS) - 1
    make_tiles(store, labels, keeps, entity, number + 1)
    tile = entity[TILES_AT] + number
    if place > entity[GONE] and is_stale(store, tile):
        at = entity[AT] + place - TILE - entity[GONE]
        make_tile(store, labels, keeps, tile, at)
    return tile


@njit(cache=True)
def _big_tile(store, labels, keeps, entity, place):  # type: ignore[no-untyped-def]
    """The tile of the second level that ends before a place."""
    number = place // BLOCK - 1
    make_tiles(store, labels, keeps, entity, (number + 1) * TILE)
    make_bigs(store, keeps, entity, number + 1)
    tile = entity[BIG_AT] + number
    if is_stale(store, tile):
        for place_of in range(number * BLOCK + TILE, place + 1, TILE):
            _tile(store, labels, keeps, entity, place_of)
        make_big(store, keeps, entity, number)
    return tile


@njit(cache=True)
def _note(store, seen, keeps, lane, begin, end):  # type: ignore[no-untyped-def]
    """Counts the values of rows that this walk did not meet before."""
    turn = seen.tally[len(seen.tally) - 1]
    mask = uint64(seen.bits.shape[1] - 1)
    for row in range(begin, end):
        bits = store.bits[row, lane]
        if not _is_there(keeps, lane, bits):
            continue
        at = (uint64(bits) * uint64(0x9E3779B97F4A7C15)) >> uint64(20) & mask
        while seen.turn[lane, at] == turn and seen.bits[lane, at] != bits:
            at = (at + uint64(1)) & mask
        if seen.turn[lane, at] != turn:
            seen.turn[lane, at] = turn
            seen.bits[lane, at] = bits
            seen.tally[lane] += 1


@njit(cache=True)
def _is_there(keeps, lane, bits):  # type: ignore[no-untyped-def]
    """Whether an own lane of a row has a value."""
    if keeps[lane, 0] & TEXT:
        return bits != 0
    value = np.int64(bits).view(np.float64)
    return value == value


@njit(cache=True)
def _age(store, keeps, entity, lane, time_ms, begin, end, own):  # type: ignore[no-untyped-def]
    """Seconds since the last row before the one that asks; lane -1 takes any row."""
    for place in range(end - 1, max(begin, entity[GONE]) - 1, -1):
        at = entity[AT] + place - entity[GONE]
        if place != own and (lane < 0 or _is_there(keeps, lane, store.bits[at, lane])):
            return (time_ms - store.time[at]) / 1000.0
    return np.nan


@njit(cache=True)
def _set_against(store, seen, read, lane, bits):  # type: ignore[no-untyped-def]
    """The row's own value over the mean of the answer, or its distance from it."""
    value, mean = np.int64(bits).view(np.float64), _read(store, seen, MEAN, lane, 1.0)
    if read == RATIO:
        return np.nan if abs(mean) < LEAST else value / mean
    spread = _read(store, seen, STD, lane, 1.0)
    return value - value if spread < LEAST else (value - mean) / spread


@njit(cache=True)
def _read(store, seen, read, lane, scale):  # type: ignore[no-untyped-def]
    """One figure of the answer's lane."""
    count, value = store.tile_count[ANSWER, lane], store.tile_value[ANSWER, lane]
    if read == COUNT:
        return count[0] * scale
    if read == UNIQUE:
        return float(seen.tally[lane])
    words = store.tile_words
    if read == TOTAL:
        return to_double(read_words(words, ANSWER, lane, 0))
    if count[0] == 0:
        return 0.0 if read == SHARE else np.nan
    if read == SHARE:
        return count[1] / count[0]
    if read == MEAN:
        return to_double(read_words(words, ANSWER, lane, 0)) / count[0]
    if read == STD:
        if value[0] == value[1]:
            return 0.0
        return deviation(
            read_words(words, ANSWER, lane, 0),
            read_words(words, ANSWER, lane, 4),
            count[0],
        )
    if read == MIN:
        return value[0]
    if read == MAX:
        return value[1]
    return value[2]
