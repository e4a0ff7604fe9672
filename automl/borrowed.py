"""Arrays that compiled code uses without counting who refers to them."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def _borrowed(typing_context: Any, arrays: Any) -> Any:
    """Gives a named tuple of arrays as it is, for use in compiled code only.

    Compiled code counts references whenever it takes an array out of a tuple, with an
    atomic instruction each, which took most of the time of an answer. These arrays have
    no owner to count for: the caller must hold the tuple meanwhile.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        items = []
        for item, value in zip(
            kind.types,
            cgutils.unpack_tuple(builder, args[0], len(kind.types)),
            strict=True,
        ):
            array = context.make_array(item)(context, builder, value)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            items.append(array._getvalue())
        return context.make_tuple(builder, kind, items)

    return arrays(arrays), generate


#: What compiled code calls, with the arrays alone.
borrowed: Any = _borrowed
