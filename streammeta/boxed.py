"""Tables of arrays that compiled code takes as one argument.

An array that is handed to compiled code is unpacked at every call, which for many small arrays
takes longer than the work. A box is made once of a ``NamedTuple`` of arrays and numbers, and handed
over as one thing, however many are in it. Compiled code reads ``box.of.name``. Arrays are shared,
not copied: what either side writes into them the other one sees. When an array is replaced, a new
box has to be made.

What is compiled for a table is cached beside the function that makes its boxes, and knows the
table's class by name. So every module that has a table has such a function of its own:

    @njit(cache=True, nogil=True)
    def boxed(table: Table) -> Box:
        return Box(table)

Arrays that compiled code reads from a box are lent: nobody counts the references to them, nor to
parts of them (an atomic instruction each, thousands at an event: a fifth of all time). The box,
which whoever calls holds, keeps them. So such an array, or a part of it, must not outlive the call:
it is neither returned nor put into another box.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.core.extending import lower_getattr
from numba.experimental import structref


@structref.register
class _BoxType(types.StructRef):
    """Of one field, ``of``."""

    def preprocess_fields(self, fields: Any) -> Any:
        """The field's type, whatever its value."""
        plain: Any = types.unliteral
        return tuple((name, plain(kind)) for name, kind in fields)


_Tools: Any = structref._Utils
_nobody: Any = cgutils.get_null_value


def _lend(context: Any, builder: Any, kind: Any, box: Any) -> Any:
    """The table, of which arrays have no owner: all but those is counted."""
    fields, tools = kind.field_dict["of"], _Tools(context, builder, kind)
    table = tools.get_data_struct(box).of
    for i, field in enumerate(fields.types):
        value = builder.extract_value(table, i)
        if isinstance(field, types.Array):
            array = context.make_array(field)(context, builder, value)
            array.meminfo = _nobody(array.meminfo.type)
            table = builder.insert_value(table, array._getvalue(), i)
        else:
            context.nrt.incref(builder, field, value)
    return table


lower_getattr(_BoxType, "of")(_lend)  # type: ignore[no-untyped-call]


class Box(structref.StructRefProxy):
    """A table, ``of``, that compiled code knows already; made by compiled code."""

    of: Any  # in compiled code
    table: Any  # the same for Python, where whoever made the box has put it here
    # asked for at every call: the slot itself, where numba has a function of Python
    _numba_type_ = vars(structref.StructRefProxy)["_type"]


structref.define_proxy(Box, _BoxType, ["of"])  # type: ignore[no-untyped-call]
