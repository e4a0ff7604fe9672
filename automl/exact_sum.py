"""Sums that do not depend on the order of their terms: wide fixed-point numbers.

A sum is a whole number of 2**-128, in two's complement, in `SUM_WORDS` words of 64 bits
with the lowest first. Adding, taking away and merging are exact, so a window gives the
same value to the last bit however its rows came, were pruned or were put together. Of a
term, what lies below 2**-128 (3e-39) is cut off. `SQUARE_WORDS` words hold sums of
squares.

Terms reach from -1e12 to 1e12 (`MOST`); eight million of the largest fit in a sum.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, uint64

#: Largest magnitude of a term.
MOST = 1e12
SUM_WORDS, SQUARE_WORDS = 3, 4

_ZERO, _ONE = uint64(0), uint64(1)
_FRACTION = uint64((1 << 52) - 1)
_HIDDEN = uint64(1 << 52)
_TOP = uint64(1 << 63)
#: Exponent field of a double whose last bit is worth 2**-128.
_UNIT = 1075 - 128


@njit(cache=True)
def add(words, value):  # type: ignore[no-untyped-def]
    """Adds a double to a sum, in place."""
    bits = np.float64(value).view(np.uint64)
    shift = np.int64((bits >> uint64(52)) & uint64(0x7FF)) - _UNIT
    if shift <= -53:
        return
    whole = (bits & _FRACTION) | _HIDDEN
    if shift < 0:
        whole >>= uint64(-shift)
        shift = 0
    first = shift >> 6
    off = uint64(shift & 63)
    low = whole << off
    high = whole >> (uint64(64) - off) if off else _ZERO
    if bits & _TOP:
        _subtract(words, first, low, high)
    else:
        _add(words, first, low, high)


@njit(cache=True, inline="always")
def _add(words, first, low, high):  # type: ignore[no-untyped-def]
    was = words[first]
    words[first] = was + low
    carry = _ONE if words[first] < was else _ZERO
    for i in range(first + 1, len(words)):
        term = high + carry if i == first + 1 else carry
        if term == _ZERO:
            return
        was = words[i]
        words[i] = was + term
        carry = _ONE if words[i] < was else _ZERO


@njit(cache=True, inline="always")
def _subtract(words, first, low, high):  # type: ignore[no-untyped-def]
    was = words[first]
    words[first] = was - low
    borrow = _ONE if low > was else _ZERO
    for i in range(first + 1, len(words)):
        term = high + borrow if i == first + 1 else borrow
        if term == _ZERO:
            return
        was = words[i]
        words[i] = was - term
        borrow = _ONE if term > was else _ZERO


@njit(cache=True)
def merge(words, others):  # type: ignore[no-untyped-def]
    """Adds one sum to another, in place."""
    carry = _ZERO
    for i in range(len(words)):
        part = words[i] + others[i]
        more = _ONE if part < words[i] else _ZERO
        words[i] = part + carry
        if words[i] < part:
            more = _ONE
        carry = more


@njit(cache=True)
def add_square(words, value):  # type: ignore[no-untyped-def]
    """Adds the square of a double, not rounded, to a sum of squares, in place."""
    high, low = _two_product(value, value)
    add(words, high)
    if low != 0.0:
        add(words, low)


@njit(cache=True)
def to_double(words):  # type: ignore[no-untyped-def]
    """Gives the double nearest to a sum; of two equally near ones the even one."""
    size = len(words)
    negative = (words[size - 1] & _TOP) != _ZERO
    parts = words.copy()
    if negative:
        carry = _ONE
        for i in range(size):
            parts[i] = ~parts[i] + carry
            carry = _ONE if (carry and parts[i] == _ZERO) else _ZERO
    top = size - 1
    while top >= 0 and parts[top] == _ZERO:
        top -= 1
    if top < 0:
        return 0.0
    lead = 0
    while not (parts[top] << uint64(lead)) & _TOP:
        lead += 1
    window = parts[top] << uint64(lead)
    rest = _ZERO
    if top > 0:
        if lead:
            window |= parts[top - 1] >> uint64(64 - lead)
        rest = parts[top - 1] << uint64(lead)
        for i in range(top - 1):
            rest |= parts[i]
    whole = window >> uint64(11)
    beyond = window & uint64(0x7FF)
    half = uint64(0x400)
    if beyond > half or (beyond == half and (rest != _ZERO or whole & _ONE)):
        whole += _ONE
    found = math.ldexp(np.float64(whole), 64 * top - lead + 11 - 128)
    return -found if negative else found


@njit(cache=True)
def deviation(sums, squares, count):  # type: ignore[no-untyped-def]
    """Gives the population standard deviation of `count` terms from their sums.

    In double-doubles of 106 bits, so that nothing is lost to a large mean.
    """
    s_high, s_low = _to_pair(sums)
    q_high, q_low = _to_pair(squares)
    # count * squares - sums * sums
    a_high, a_low = _pair_product(q_high, q_low, np.float64(count), 0.0)
    b_high, b_low = _pair_product(s_high, s_low, s_high, s_low)
    high, low = _two_sum(a_high, -b_high)
    spread = high + (low + (a_low - b_low))
    return math.sqrt(spread) / count if spread > 0.0 else 0.0


@njit(cache=True)
def _to_pair(words):  # type: ignore[no-untyped-def]
    high = to_double(words)
    rest = words.copy()
    add(rest, -high)
    return high, to_double(rest)


@njit(cache=True, inline="always")
def _two_sum(a, b):  # type: ignore[no-untyped-def]
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@njit(cache=True, inline="always")
def _two_product(a, b):  # type: ignore[no-untyped-def]
    product = a * b
    a_high = a * 134217729.0
    a_high -= a_high - a
    b_high = b * 134217729.0
    b_high -= b_high - b
    a_low, b_low = a - a_high, b - b_high
    error = product - a_high * b_high - a_low * b_high - a_high * b_low
    return product, a_low * b_low - error


@njit(cache=True, inline="always")
def _pair_product(a, a_low, b, b_low):  # type: ignore[no-untyped-def]
    high, low = _two_product(a, b)
    low += a * b_low + a_low * b
    return _two_sum(high, low)
