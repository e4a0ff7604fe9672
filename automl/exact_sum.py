"""Sums that do not depend on the order of their terms: wide fixed-point numbers.

A sum is a whole number of 2**-128, in two's complement, in four words of 64 bits with
the lowest first. Adding and merging are exact, so a window gives the same value to the
last bit however its rows came, were pruned or were put together. Of a term, what lies
below 2**-128 (3e-39) is cut off. Terms reach from -1e12 to 1e12 (`MOST`), or are the
squares of such. Words are passed and given back as tuples, which compiled code keeps in
registers.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, uint64

#: Largest magnitude of a term.
MOST = 1e12

_ZERO, _ONE = np.uint64(0), np.uint64(1)
_FRACTION = uint64((1 << 52) - 1)
_HIDDEN = uint64(1 << 52)
_TOP = uint64(1 << 63)
#: A sum of nothing.
NOTHING = (_ZERO, _ZERO, _ZERO, _ZERO)
#: Exponent field of a double whose last bit is worth 2**-128.
_UNIT = 1075 - 128


@njit(cache=True)
def add(words, value):  # type: ignore[no-untyped-def]
    """Adds a double to a sum."""
    bits = np.float64(value).view(np.uint64)
    shift = np.int64((bits >> uint64(52)) & uint64(0x7FF)) - _UNIT
    if shift <= -53:
        return words
    whole = (bits & _FRACTION) | _HIDDEN
    if shift < 0:
        whole >>= uint64(-shift)
        shift = np.int64(0)
    first = shift >> 6
    off = uint64(shift & 63)
    low = whole << off
    high = (whole >> uint64(1)) >> (uint64(63) - off)
    a0, a1, a2, a3 = _ZERO, _ZERO, _ZERO, _ZERO
    if first == 0:
        a0, a1 = low, high
    elif first == 1:
        a1, a2 = low, high
    elif first == 2:
        a2, a3 = low, high
    else:
        a3 = low
    if bits & _TOP:
        return merge(words, negated((a0, a1, a2, a3)))
    return merge(words, (a0, a1, a2, a3))


@njit(cache=True)
def merge(words, others):  # type: ignore[no-untyped-def]
    """Adds two sums."""
    a0 = words[0] + others[0]
    carry = uint64(a0 < words[0])
    part = words[1] + others[1]
    a1 = part + carry
    carry = uint64(part < words[1]) | uint64(a1 < part)
    part = words[2] + others[2]
    a2 = part + carry
    carry = uint64(part < words[2]) | uint64(a2 < part)
    return a0, a1, a2, words[3] + others[3] + carry


@njit(cache=True)
def negated(words):  # type: ignore[no-untyped-def]
    """Takes a sum from nothing."""
    a0 = ~words[0] + _ONE
    carry = uint64(a0 == _ZERO)
    a1 = ~words[1] + carry
    carry &= uint64(a1 == _ZERO)
    a2 = ~words[2] + carry
    carry &= uint64(a2 == _ZERO)
    return a0, a1, a2, ~words[3] + carry


@njit(cache=True)
def add_square(words, value):  # type: ignore[no-untyped-def]
    """Adds the square of a double, not rounded, to a sum."""
    high, low = _two_product(value, value)
    return add(add(words, high), low)


@njit(cache=True)
def to_double(words):  # type: ignore[no-untyped-def]
    """Gives the double nearest to a sum; of two equally near ones the even one."""
    negative = (words[3] & _TOP) != _ZERO
    a0, a1, a2, a3 = negated(words) if negative else words
    top = 3
    while top > 0 and a3 == _ZERO:
        a3, a2, a1, a0 = a2, a1, a0, _ZERO
        top -= 1
    if a3 == _ZERO:
        return 0.0
    lead = uint64(0)
    while not (a3 << lead) & _TOP:
        lead += _ONE
    window = a3 << lead | (a2 >> _ONE) >> (uint64(63) - lead)
    rest = a2 << lead | a1 | a0
    whole = window >> uint64(11)
    beyond = window & uint64(0x7FF)
    half = uint64(0x400)
    if beyond > half or (beyond == half and (rest != _ZERO or whole & _ONE)):
        whole += _ONE
    found = math.ldexp(float(whole), int(64 * top - np.int64(lead) + 11 - 128))
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
    return math.sqrt(spread / (count * count)) if spread > 0.0 else 0.0


@njit(cache=True)
def _to_pair(words):  # type: ignore[no-untyped-def]
    high = to_double(words)
    return high, to_double(add(words, -high))


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
