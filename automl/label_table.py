"""What is known of cases' labels, and since when, for compiled code.

Open addressing by case key. A case whose label was corrected has an entry for each
version, linked from the newest to arrive to the oldest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

USED, CORRECTED = 0, 1


class LabelTable(NamedTuple):
    """The arrays, `N` places.

    Attributes:
        case: uint64 (N,), the case key; 0 where nothing is.
        time: int64 (N,), label time of the version that arrived last.
        value: float64 (N,), its label.
        older: int64 (N,), index of the version before it, or -1.
        old_time: int64 (M,), versions that were followed by another.
        old_value: float64 (M,).
        old_older: int64 (M,).
        tally: int64 (2,): cases, old versions.
    """

    case: npt.NDArray[np.uint64]
    time: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    older: npt.NDArray[np.int64]
    old_time: npt.NDArray[np.int64]
    old_value: npt.NDArray[np.float64]
    old_older: npt.NDArray[np.int64]
    tally: npt.NDArray[np.int64]


def new_labels(places: int = 1024, versions: int = 64) -> LabelTable:
    """An empty table."""
    return LabelTable(
        case=np.zeros(places, dtype=np.uint64),
        time=np.empty(places, dtype=np.int64),
        value=np.empty(places, dtype=np.float64),
        older=np.empty(places, dtype=np.int64),
        old_time=np.empty(versions, dtype=np.int64),
        old_value=np.empty(versions, dtype=np.float64),
        old_older=np.empty(versions, dtype=np.int64),
        tally=np.zeros(2, dtype=np.int64),
    )


def with_room(labels: LabelTable, more: int, forget_ms: int) -> LabelTable:
    """The table with room for more labels; those from before `forget_ms` may go."""
    versions = int(labels.tally[CORRECTED])
    if 2 * (int(labels.tally[USED]) + more) > len(labels.case):
        live = int(np.count_nonzero((labels.case != 0) & (labels.time >= forget_ms)))
        places = 1024
        while places < 4 * (live + more):
            places *= 2
        fresh = new_labels(places, len(labels.old_time))
        _copy_live(labels, fresh, forget_ms)
        labels = fresh._replace(
            old_time=labels.old_time,
            old_value=labels.old_value,
            old_older=labels.old_older,
        )
        labels.tally[CORRECTED] = versions
    if versions + more > len(labels.old_time):
        room = max(2 * len(labels.old_time), versions + more)
        old = {
            name: np.resize(getattr(labels, name), room)
            for name in ("old_time", "old_value", "old_older")
        }
        labels = labels._replace(**old)
    return labels


@njit(cache=True)
def _copy_live(source, target, forget_ms):  # type: ignore[no-untyped-def]
    mask = uint64(len(target.case) - 1)
    for i in range(len(source.case)):
        if source.case[i] and source.time[i] >= forget_ms:
            at = source.case[i] & mask
            while target.case[at]:
                at = (at + uint64(1)) & mask
            target.case[at] = source.case[i]
            target.time[at] = source.time[i]
            target.value[at] = source.value[i]
            target.older[at] = source.older[i]
            target.tally[USED] += 1


@njit(cache=True)
def put_labels(labels, cases, times, values):  # type: ignore[no-untyped-def]
    """Takes labels in order of arrival; gives how many corrected one known before."""
    mask = uint64(len(labels.case) - 1)
    corrected = 0
    for i in range(len(cases)):
        at = cases[i] & mask
        while labels.case[at] and labels.case[at] != cases[i]:
            at = (at + uint64(1)) & mask
        older = np.int64(-1)
        if labels.case[at]:
            if labels.time[at] == times[i] and labels.value[at] == values[i]:
                continue
            corrected += 1
            older = labels.tally[CORRECTED]
            labels.tally[CORRECTED] += 1
            labels.old_time[older] = labels.time[at]
            labels.old_value[older] = labels.value[at]
            labels.old_older[older] = labels.older[at]
        else:
            labels.case[at] = cases[i]
            labels.tally[USED] += 1
        labels.time[at] = times[i]
        labels.value[at] = values[i]
        labels.older[at] = older
    return corrected


@njit(cache=True)
def find_label(labels, case):  # type: ignore[no-untyped-def]
    """The place of a case in the table, or -1."""
    mask = uint64(len(labels.case) - 1)
    at = case & mask
    while labels.case[at]:
        if labels.case[at] == case:
            return np.int64(at)
        at = (at + uint64(1)) & mask
    return np.int64(-1)


@njit(cache=True)
def label_as_of(labels, at, time_ms):  # type: ignore[no-untyped-def]
    """The label of a place as it was known at a time: (known, label).

    The version of the latest label time counts, of two of one time the later arrival.
    """
    found, best, value = False, np.int64(0), 0.0
    if labels.time[at] <= time_ms:
        found, best, value = True, labels.time[at], labels.value[at]
    at = labels.older[at]
    while at >= 0:
        if labels.old_time[at] <= time_ms and (not found or labels.old_time[at] > best):
            found, best, value = True, labels.old_time[at], labels.old_value[at]
        at = labels.old_older[at]
    return found, value
