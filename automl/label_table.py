"""What is known of cases' labels, and since when, for compiled code.

Open addressing by case key, the keys apart from what is known: a case that is not there
costs one look at the keys. A case whose label was corrected has a list of versions, the
latest label time first.

A table that is half full is followed by another, into which a few places are emptied
with every label that comes; what may be forgotten stays behind. So no call takes longer
than another. A case is looked up in one table only: its key tells whether its place was
emptied. Legend: `N` places, `O` places of the table that is emptied, `M` versions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from automl.borrowed import borrowed

Keys = npt.NDArray[np.uint64]
Times = npt.NDArray[np.int64]

# What is held of a case: label time, label as bits, and the time it is kept by; or
# `LISTED`, its first version, and the time. Of a version: both, and the one after it.
TIME, LABEL, KEPT = 0, 1, 2
NEXT = 2
LISTED = -(2**63)
# What `tally` holds: cases; where emptying began, how many places it came to; versions
# in use, ever used, and the first that is free.
CASES, FIRST, MOVED, VERSIONS, TOP, FREE = range(6)
#: Places emptied for each label that comes: a half full table is done when it is at
#: most 1/16 fuller.
PACE = 16
LEAST_PLACES = 1024
#: Corrected cases are counted by so many parts of the keys: for nearly all others one
#: look at a count says that they were not.
MARKS = 1 << 15
_CHUNK = 65_536
_SAMPLE = 1024


class LabelTable(NamedTuple):
    """The arrays.

    Attributes:
        case: uint64 (N,), the case key; 0 where nothing is.
        known: int64 (N, 3), see `TIME`, `LABEL`, `KEPT`.
        old_case: uint64 (O,), of the table that is emptied; O is 1 when none is.
        old_known: int64 (O, 3).
        versions: int64 (M, 3), of cases that were corrected.
        corrected: int32 (MARKS,), how many of them there are by some bits of the key.
        tally: int64 (6,).
    """

    case: Keys
    known: npt.NDArray[np.int64]
    old_case: Keys
    old_known: npt.NDArray[np.int64]
    versions: npt.NDArray[np.int64]
    corrected: npt.NDArray[np.int32]
    tally: npt.NDArray[np.int64]


def new_labels() -> LabelTable:
    """An empty table."""
    return LabelTable(
        case=np.zeros(LEAST_PLACES, dtype=np.uint64),
        known=np.empty((LEAST_PLACES, 3), dtype=np.int64),
        old_case=np.zeros(1, dtype=np.uint64),
        old_known=np.empty((1, 3), dtype=np.int64),
        versions=np.empty((64, 3), dtype=np.int64),
        corrected=np.zeros(MARKS, dtype=np.int32),
        tally=np.array([0, 0, 1, 0, 0, -1], dtype=np.int64),
    )


def put_labels(
    labels: LabelTable,
    cases: Keys,
    times_ms: Times,
    values: npt.NDArray[np.float64],
    *,
    clock_ms: int,
    forget_ms: int,
) -> tuple[LabelTable, int]:
    """Takes labels in order of arrival.

    A case may be forgotten when all of these are before `forget_ms`: the label times of
    its versions, the clock when each of them came, and the times of the rows that had
    its label (`latest_label`). So with rows kept from `forget_ms` on, a row that had a
    label gets its corrections, and the label of a case that has no row yet is there
    for as long as a row that came with it would be. A version may be forgotten when a
    later one counts from `forget_ms` on.

    Args:
        labels: the table.
        cases: uint64 (B,), keys; a label of key 0 is passed over.
        times_ms: int64 (B,), label times.
        values: float64 (B,), labels.
        clock_ms: the stream's clock; far in the past when it is not known, and these
            labels are kept by their label times.
        forget_ms: by then, see above. No label may be asked for as of a time before.

    Returns: the table to use from now on, and how many corrected one known before.
    """
    corrected = 0
    for first in range(0, len(cases), _CHUNK):
        part = slice(first, first + _CHUNK)
        labels = _with_room(labels, len(cases[part]), forget_ms)
        corrected += _put(
            labels, cases[part], times_ms[part], values[part], clock_ms, forget_ms
        )
    return labels, corrected


def _with_room(labels: LabelTable, more: int, forget_ms: int) -> LabelTable:
    """The table with room for more labels."""
    used = int(labels.tally[VERSIONS])
    if used + 2 * more > len(labels.versions):
        size = max(2 * len(labels.versions), used + 2 * more)
        versions = np.empty((size, 3), dtype=np.int64)
        versions[: len(labels.versions)] = labels.versions
        labels = labels._replace(versions=versions)
    _empty(labels, PACE * more, forget_ms)
    if labels.tally[MOVED] < len(labels.old_case):
        return labels  # at most 1/16 of those places come before it is empty
    if 2 * (int(labels.tally[CASES]) + more) <= len(labels.case):
        if len(labels.old_case) == 1:
            return labels
        none = new_labels()
        return labels._replace(old_case=none.old_case, old_known=none.old_known)
    least = 3 * (_kept_about(labels, forget_ms) + more)
    places = max(LEAST_PLACES, len(labels.case) // 4)
    while places < least:
        places *= 2
    labels = labels._replace(
        case=np.zeros(places, dtype=np.uint64),
        known=np.empty((places, 3), dtype=np.int64),
        old_case=labels.case,
        old_known=labels.known,
    )
    labels.tally[MOVED] = 0
    _empty(labels, PACE * more, forget_ms)
    return labels


def _kept_about(labels: LabelTable, forget_ms: int) -> int:
    """How many cases will not be forgotten, from a sample of the places."""
    step = max(1, len(labels.case) // _SAMPLE)
    kept = (labels.case[::step] != 0) & (labels.known[::step, KEPT] >= forget_ms)
    return step * int(np.count_nonzero(kept))


@njit(cache=True)
def _empty(labels, places, forget_ms):  # type: ignore[no-untyped-def]
    """Empties so many places of the old table, and up to one that has no case.

    They are taken in turn from one without a case on. So every case whose search would
    begin at one of them has been moved.
    """
    labels = borrowed(labels)
    keys, tally = labels.old_case, labels.tally
    moved, stop = tally[MOVED], tally[MOVED] + places
    if moved >= len(keys):
        return
    if moved == 0:
        tally[FIRST] = 0
        while keys[tally[FIRST]]:
            tally[FIRST] += 1
    mask = uint64(len(keys) - 1)
    while True:
        at = uint64(tally[FIRST] + moved) & mask
        if keys[at]:
            _move(labels, at, forget_ms)
        elif moved >= min(stop, len(keys)):
            break
        moved += 1
    tally[MOVED] = min(moved, len(keys))


@njit(cache=True)
def _move(labels, place, forget_ms):  # type: ignore[no-untyped-def]
    """Moves a case to the new table, unless it may be forgotten."""
    case, known = labels.old_case[place], labels.old_known[place]
    labels.old_case[place] = uint64(0)
    if known[KEPT] < forget_ms:
        labels.tally[CASES] -= 1
        if known[TIME] == LISTED:
            labels.corrected[_mark(case)] -= 1
            _give_versions(labels, known[LABEL])
        return
    at = _place(labels.case, case)
    labels.case[at] = case
    for i in range(3):
        labels.known[at, i] = known[i]


@njit(cache=True)
def _mark(case):  # type: ignore[no-untyped-def]
    """Where it is counted that a case was corrected."""
    return (case >> uint64(40)) & uint64(MARKS - 1)


@njit(cache=True)
def _place(keys, case):  # type: ignore[no-untyped-def]
    """Where a table has a case, or could."""
    mask = uint64(len(keys) - 1)
    at = case & mask
    while keys[at] and keys[at] != case:
        at = (at + uint64(1)) & mask
    return at


@njit(cache=True)
def _is_old(labels, case):  # type: ignore[no-untyped-def]
    """Whether a case is, or could be, in the table that is emptied."""
    mask = uint64(len(labels.old_case) - 1)
    turn = (case - uint64(labels.tally[FIRST])) & mask
    return turn >= uint64(labels.tally[MOVED])


@njit(cache=True)
def _put(labels, cases, times, values, clock_ms, forget_ms):  # type: ignore[no-untyped-def]
    labels = borrowed(labels)
    corrected = 0
    for i in range(len(cases)):
        case, time_ms = cases[i], max(times[i], LISTED + 1)
        if case == uint64(0):
            continue
        bits = np.float64(values[i]).view(np.int64)
        keys, known = labels.case, labels.known
        if _is_old(labels, case):
            keys, known = labels.old_case, labels.old_known
        at = _place(keys, case)
        if not keys[at]:
            keys[at] = case
            labels.tally[CASES] += 1
            known[at, TIME], known[at, LABEL] = time_ms, bits
            known[at, KEPT] = max(time_ms, clock_ms)
            continue
        known[at, KEPT] = max(known[at, KEPT], time_ms, clock_ms)
        if known[at, TIME] != time_ms or known[at, LABEL] != bits:
            if known[at, TIME] != LISTED:
                labels.corrected[_mark(case)] += 1
            corrected += _correct(labels, known[at], time_ms, bits, forget_ms)
    return corrected


@njit(cache=True)
def _correct(labels, known, time_ms, bits, forget_ms):  # type: ignore[no-untyped-def]
    """Adds a version to a case; gives whether that says anything new."""
    versions = labels.versions
    if known[TIME] != LISTED:
        known[LABEL] = _take_version(labels, known[TIME], known[LABEL], -1)
        known[TIME] = LISTED
    later, at = np.int64(-1), known[LABEL]
    while at >= 0 and versions[at, TIME] > time_ms:
        later, at = at, versions[at, NEXT]
    if at >= 0 and versions[at, TIME] == time_ms:
        changed = versions[at, LABEL] != bits
        versions[at, LABEL] = bits
        return changed
    at = _take_version(labels, time_ms, bits, at)
    if later < 0:
        known[LABEL] = at
    else:
        versions[later, NEXT] = at
    at = known[LABEL]
    while at >= 0 and versions[at, TIME] > forget_ms:
        at = versions[at, NEXT]
    if at >= 0:
        _give_versions(labels, versions[at, NEXT])
        versions[at, NEXT] = -1
    return True


@njit(cache=True)
def _take_version(labels, time_ms, bits, after):  # type: ignore[no-untyped-def]
    """The number of a new version, which stands before another one or -1."""
    tally, versions = labels.tally, labels.versions
    at = tally[FREE]
    if at >= 0:
        tally[FREE] = versions[at, NEXT]
    else:
        at = tally[TOP]
        tally[TOP] += 1
    tally[VERSIONS] += 1
    versions[at, TIME], versions[at, LABEL], versions[at, NEXT] = time_ms, bits, after
    return at


@njit(cache=True)
def _give_versions(labels, at):  # type: ignore[no-untyped-def]
    """Frees a version and those after it."""
    tally, versions = labels.tally, labels.versions
    while at >= 0:
        after = versions[at, NEXT]
        versions[at, NEXT] = tally[FREE]
        tally[FREE] = at
        tally[VERSIONS] -= 1
        at = after


@njit(cache=True)
def find_label(labels, case):  # type: ignore[no-untyped-def]
    """The place of a case: from 0 on, in the old table from -2 down, or -1 if none."""
    if len(labels.old_case) > 1:
        return _find_in_two(labels, case)
    mask = uint64(len(labels.case) - 1)
    at = case & mask
    while labels.case[at]:
        if labels.case[at] == case:
            return np.int64(at)
        at = (at + uint64(1)) & mask
    return np.int64(-1)


@njit(cache=True)
def _find_in_two(labels, case):  # type: ignore[no-untyped-def]
    if _is_old(labels, case):
        at = _place(labels.old_case, case)
        return -2 - np.int64(at) if labels.old_case[at] else np.int64(-1)
    at = _place(labels.case, case)
    return np.int64(at) if labels.case[at] else np.int64(-1)


@njit(cache=True)
def latest_label(labels, place, row_ms):  # type: ignore[no-untyped-def]
    """The label with the latest label time of the case at a place: (time, label).

    `row_ms` is the time of a row that had it: the case is kept as long as that row,
    for corrections.
    """
    known = labels.known[place] if place >= 0 else labels.old_known[-2 - place]
    known[KEPT] = max(known[KEPT], row_ms)
    time_ms, bits = known[TIME], known[LABEL]
    if time_ms == LISTED:
        version = bits
        time_ms, bits = labels.versions[version, TIME], labels.versions[version, LABEL]
    return time_ms, np.int64(bits).view(np.float64)


@njit(cache=True)
def first_version(labels, case):  # type: ignore[no-untyped-def]
    """The first version of the label of a case that was corrected, or -1."""
    version = np.int64(-1)
    if labels.corrected[_mark(case)]:
        version = _first_version(labels, case)
    return version


@njit(cache=True)
def _first_version(labels, case):  # type: ignore[no-untyped-def]
    place = find_label(labels, case)
    if place == -1:
        return np.int64(-1)
    known = labels.known[place] if place >= 0 else labels.old_known[-2 - place]
    return known[LABEL] if known[TIME] == LISTED else np.int64(-1)


@njit(cache=True)
def label_as_of(labels, version, time_ms):  # type: ignore[no-untyped-def]
    """The label of a corrected case as it was known at a time: (known, label).

    The version of the latest label time counts, of two of one time the later arrival.
    """
    while version >= 0:
        if labels.versions[version, TIME] <= time_ms:
            bits = labels.versions[version, LABEL]
            return True, np.int64(bits).view(np.float64)
        version = labels.versions[version, NEXT]
    return False, 0.0
