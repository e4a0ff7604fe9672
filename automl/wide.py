"""A few numbers side by side, on which compiled code works in one instruction.

Numba joins loops over arrays into wide instructions, but not loops of a few steps over
arrays that may overlap. In compiled code a row taken with `load` is one value: `+`,
`-`, `*` and `/` work on all its numbers, with another row or with one number, and
`store` puts it back. Neither checks that the array has such a row.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic, models, overload, register_model

#: Numbers side by side: 64 bytes, what a processor fetches at once.
WIDTH = 8
_BYTES = 8 * WIDTH
_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)


class Wide(types.Type):
    """Numba's type of `WIDTH` float64."""

    def __init__(self) -> None:
        super().__init__(name=f"Wide({WIDTH})")


_WIDE = Wide()


@register_model(Wide)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@njit
def empty_rows(count):  # type: ignore[no-untyped-def]
    """Gives a float64 array (count, WIDTH) of which no row lies in two cache lines."""
    space = np.empty((count + 1) * WIDTH)
    skip = (_BYTES - space.ctypes.data % _BYTES) % _BYTES // 8
    return space[skip : skip + count * WIDTH].reshape(count, WIDTH)


@intrinsic
def _load(typing_context: Any, array: Any, row: Any) -> Any:
    """Takes a row of a contiguous float64 array (rows, WIDTH)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature, args), align=8)

    return _WIDE(array, row), generate


#: What compiled code calls: `load(array, row)`.
load: Any = _load


@intrinsic
def _store(typing_context: Any, array: Any, row: Any, wide: Any) -> Any:
    """Puts a value into a row of a contiguous float64 array (rows, WIDTH)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature, args)
        builder.store(args[2], place, align=8)
        return context.get_dummy_value()

    return types.none(array, row, wide), generate


#: What compiled code calls: `store(array, row, wide)`.
store: Any = _store


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    row = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.gep(builder.bitcast(array.data, _VECTOR.as_pointer()), [row])


def _spread(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """One number in all places; what is wide already stays as it is."""
    if isinstance(kind, Wide):
        return value
    number = context.cast(builder, value, kind, types.float64)
    wide = ir.Constant(_VECTOR, ir.Undefined)
    for place in range(WIDTH):
        at = ir.Constant(ir.IntType(32), place)
        wide = builder.insert_element(wide, number, at)
    return wide


def _define(symbol: Callable[[Any, Any], Any], instruction: str) -> None:
    @intrinsic
    def _compute(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pairs = zip(signature.args, args, strict=True)
            both = [_spread(context, builder, *pair) for pair in pairs]
            return getattr(builder, instruction)(*both)

        return _WIDE(a, b), generate

    compute: Any = _compute

    @overload(symbol)
    def _(a, b):  # type: ignore[no-untyped-def]
        kinds = (Wide, types.Number)
        known = isinstance(a, kinds) and isinstance(b, kinds)
        if known and (isinstance(a, Wide) or isinstance(b, Wide)):
            return lambda a, b: compute(a, b)
        return None


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")
