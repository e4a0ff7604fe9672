"""Words and character n-grams of texts as hashed counts, the same in every process.

A transformer reads meaning and loses spelling; these keep it. Three views of a text:
its characters (runs of 2 to 5), its words (single, in pairs, and which comes first),
and the shapes of its words ("Call 0845" is "Aa 0000"). No vocabulary is kept: a gram is
a number between 0 and the count of buckets, from its code points alone.

Legend: `B` batch, `S` slots.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Lengths of the runs of characters.
CHAR_RUNS = (2, 3, 4, 5)
#: Distinct grams kept of one text; of a longer one a steady sample is kept.
CHAR_SLOTS = 384
WORD_SLOTS = 192
SLOTS = CHAR_SLOTS + WORD_SLOTS

_WORD = re.compile(r"\w+|[^\w\s]")
_SMALL = re.compile(r"[^\W\d_A-Z]+")
_CAPITAL = re.compile(r"[A-Z]+")
_DIGIT = re.compile(r"\d")
#: Stands before the first word, so that it is known as the first.
_FIRST = "\x02"

_Hashes = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grams:
    """Hashed grams of a batch; characters fill the first slots, words the others.

    Attributes:
        bucket: int32 (B, S), where a gram falls; 0 where a slot is empty.
        amount: float32 (B, S), 1 + log(count) of it; 0 where a slot is empty.
    """

    bucket: NDArray[np.int32]
    amount: NDArray[np.float32]

    def rows(self) -> NDArray[np.float32]:
        """Both in one, float32 (B, 2S): numbers below 2^24 stay exact."""
        return np.concatenate([self.bucket.astype(np.float32), self.amount], axis=1)


def count_grams(texts: Sequence[str], buckets: int) -> Grams:
    """The grams of each text, its own alone: neighbours change nothing.

    Args:
        texts: as they came; letters are folded here.
        buckets: a power of two. Characters fall into the lower half, words and
            shapes into the upper.
    """
    words = [_WORD.findall(text) for text in texts]
    plain = [" ".join([_FIRST, *found]).lower() + " " for found in words]
    shape = [_shape(" ".join(found)) + " " for found in words]
    half = buckets // 2
    bucket = np.zeros((len(texts), SLOTS), np.int32)
    amount = np.zeros((len(texts), SLOTS), np.float32)
    codes, row = _codes(plain)
    lower, upper = slice(0, CHAR_SLOTS), slice(CHAR_SLOTS, SLOTS)
    _fill(bucket[:, lower], amount[:, lower], *_char_runs(codes, row), half)
    parts = [_word_runs(codes, row, 1), _word_runs(*_codes(shape), 2)]
    hashes = np.concatenate([part[0] for part in parts])
    rows = np.concatenate([part[1] for part in parts])
    _fill(bucket[:, upper], amount[:, upper], hashes, rows, half)
    bucket[:, upper] += np.where(amount[:, upper] > 0, half, 0).astype(np.int32)
    return Grams(bucket=bucket, amount=amount)


def _shape(text: str) -> str:
    """Runs of small letters as `a`, of capitals as `A`, every digit as `0`."""
    return _DIGIT.sub("0", _CAPITAL.sub("A", _SMALL.sub("a", text)))


def _codes(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """All code points one after the other, and which text each is of."""
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    lengths = [len(text) for text in texts]
    return np.frombuffer(joined, np.uint32), np.repeat(np.arange(len(texts)), lengths)


def _mix(x: _Hashes) -> _Hashes:
    """The last step of splitmix64: every bit in reaches every bit out."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _char_runs(
    codes: NDArray[np.uint32], row: NDArray[np.int64]
) -> tuple[_Hashes, NDArray[np.int64]]:
    """Hashes of all runs that lie within one text, and the text of each."""
    hashes, rows = [], []
    running = np.zeros(len(codes), np.uint64)
    single = _mix(codes.astype(np.uint64) + np.uint64(1))
    for at in range(CHAR_RUNS[-1]):
        if at >= len(codes):
            break
        within = len(codes) - at
        running = _mix(running[:within] * np.uint64(31) + single[at:])
        if at + 1 in CHAR_RUNS:
            whole = row[at:] == row[:within]
            hashes.append(running[whole])
            rows.append(row[:within][whole])
    if not hashes:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    return np.concatenate(hashes), np.concatenate(rows)


def _word_runs(
    codes: NDArray[np.uint32], row: NDArray[np.int64], kind: int
) -> tuple[_Hashes, NDArray[np.int64]]:
    """Hashes of single words and of pairs; every word is followed by a space."""
    space = codes == 32
    end = np.flatnonzero(space)
    if not len(end):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    start = np.concatenate([[0], end[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(start, end - start + 1)
    letters = _mix((codes.astype(np.uint64) << np.uint64(32)) + place.astype(np.uint64))
    letters[space] = 0
    single = _mix(np.add.reduceat(letters, start) + np.uint64(kind))
    of = row[end]
    near = of[1:] == of[:-1]
    pair = _mix(single[:-1] * np.uint64(31) + single[1:])[near]
    return np.concatenate([single, pair]), np.concatenate([of, of[1:][near]])


def _fill(
    bucket: NDArray[np.int32],
    amount: NDArray[np.float32],
    hashes: _Hashes,
    rows: NDArray[np.int64],
    buckets: int,
) -> None:
    """Count equal grams of a text; of too many keep those with the smallest hash."""
    slots = bucket.shape[1]
    # The upper bits order the grams of a text, the lower ones name the bucket: texts
    # that share grams keep the same ones of them.
    place = hashes & np.uint64(buckets - 1)
    order = _mix(place + np.uint64(7)) >> np.uint64(40)
    key = (rows.astype(np.uint64) << np.uint64(40)) | (order << np.uint64(16)) | place
    distinct, count = np.unique(key, return_counts=True)
    of = (distinct >> np.uint64(40)).astype(np.int64)
    first = np.searchsorted(of, np.arange(len(bucket)))
    slot = np.arange(len(of)) - first[of]
    kept = slot < slots
    bucket[of[kept], slot[kept]] = distinct[kept] & np.uint64(0xFFFF)
    amount[of[kept], slot[kept]] = 1.0 + np.log(count[kept])
