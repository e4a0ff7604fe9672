"""Arrays handed to compiled code as one pointer, without counting who holds them."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.core.imputils import impl_ret_borrowed, lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, models, register_model


class BorrowedType(types.Type):
    """Where a named tuple of arrays lies.

    Args:
        whole: numba's type of the tuple.
    """

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        super().__init__(name=f"Borrowed({whole})")


register_model(BorrowedType)(models.OpaqueModel)


@infer_getattr
class _Fields(AttributeTemplate):
    key = BorrowedType

    def generic_resolve(self, kind: Any, name: str) -> Any:  # type: ignore[override]
        if name in kind.whole.fields:
            return kind.whole.types[kind.whole.fields.index(name)]
        return None


@lower_getattr_generic(BorrowedType)
def _field(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    index = kind.whole.fields.index(name)
    whole = context.get_value_type(kind.whole)
    place = builder.bitcast(value, whole.as_pointer())
    array = builder.load(cgutils.gep_inbounds(builder, place, 0, index))
    return impl_ret_borrowed(context, builder, kind.whole.types[index], array)


@intrinsic
def _borrowed(typing_context: Any, arrays: Any) -> Any:
    """Gives a named tuple of arrays as one pointer, with the same attributes.

    Compiled code passes a tuple by copying eight words for each of its arrays, which
    for a few dozen calls a row cost more than what they did; and whenever it takes an
    array out of a tuple it counts the reference, with an atomic instruction. A
    pointer is one word, and its arrays have no owner to count for: the caller must
    hold the tuple meanwhile, and not hand the pointer on when it returns.
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
        whole = context.make_tuple(builder, kind, items)
        place = cgutils.alloca_once_value(builder, whole)
        return builder.bitcast(place, context.get_value_type(signature.return_type))

    return BorrowedType(arrays)(arrays), generate


#: What compiled code calls, with the arrays alone.
borrowed: Any = _borrowed
