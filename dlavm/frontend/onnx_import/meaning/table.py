"""The table of ONNX operators that have a meaning here: what a meaning is given, and how it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from dlavm.support.errors import DlavmError

Array = NDArray[Any]
LARGEST = 1 << 26  # elements of one result: a model that asks for more of a mask or an index table is refused
CONTRIB = "com.microsoft"


class Call:
    """One use of an operator: where it stands, its domain's version, its attributes, how many results are wanted."""

    def __init__(self, where: str, version: int, attrs: Mapping[str, Any], outputs: int = 1) -> None:
        self.where, self.version, self.attrs, self.outputs = where, version, attrs, outputs

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as int, float, str, list or array. Raises DlavmError where it is absent and has no default."""
        value = self.attrs.get(name, default)
        if value is None and name not in self.attrs:
            self.fail(f"attribute {name} expected a value", None)
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.attr(name, default)
        if not isinstance(value, int):
            self.fail(f"attribute {name} expected an integer", value)
        return int(value)

    def number(self, name: str, default: float | None = None) -> float:
        value = self.attr(name, default)
        if not isinstance(value, int | float):
            self.fail(f"attribute {name} expected a number", value)
        return float(value)

    def axis(self, rank: int, name: str = "axis", default: int | None = None) -> int:
        """An axis attribute, counted from the front."""
        return self.count_axis(self.integer(name, default), rank)

    def count_axis(self, axis: Any, rank: int) -> int:
        if not -rank <= int(axis) < rank:
            self.fail(f"axis expected within {-rank}..{rank - 1}", int(axis))
        return int(axis) % rank

    def ints(self, value: Array | None, what: str) -> list[int]:
        """A vector operand as integers."""
        if value is None or value.ndim > 1 or value.dtype.kind not in "iu":
            self.fail(f"{what} expected a vector of integers", None if value is None else f"{value.dtype}{value.shape}")
        return [int(v) for v in value.reshape(-1)]

    def room(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape, if a result may be as large. Raises DlavmError otherwise."""
        if any(extent < 0 for extent in shape) or math.prod(shape) > LARGEST:
            self.fail(f"result expected extents of at most {LARGEST} elements", list(shape))
        return tuple(int(extent) for extent in shape)

    def together(self, *arrays: Array) -> tuple[int, ...]:
        """The shape to which the operands broadcast. Raises DlavmError where they do not, or to too much."""
        try:
            return self.room(np.broadcast_shapes(*(a.shape for a in arrays)))
        except ValueError:
            self.fail("operands expected shapes that broadcast", [list(a.shape) for a in arrays])

    def fail(self, expectation: str, found: object) -> NoReturn:
        raise DlavmError(f"{self.where}: {expectation}, got {found!r}")


Function = Callable[..., Any]


@dataclass(frozen=True)
class Meaning:
    """`function(call, *operands)` gives the result or a tuple of results; an absent operand is None.

    `since` and `until` bound the versions of the domain for which the meaning holds, as far as this table knows.
    `moves` says that the function only places elements of its first operand (of all, where `moves` is "all"), whatever
    they are, so that it can also be applied to their addresses.
    """

    domain: str
    op: str
    function: Function
    moves: str = ""


MEANINGS: dict[tuple[str, str], Meaning] = {}


def meaning(*ops: str, domain: str = "", moves: str = "") -> Callable[[Function], Function]:
    """Enter a function under the names of its operators."""

    def enter(function: Function) -> Function:
        for op in ops:
            MEANINGS[domain, op] = Meaning(domain, op, function, moves)
        return function

    return enter


def as_float(x: Array) -> Array:
    """In float32 at least: how the reference computes what half types hold."""
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


def number_type(c: Call, code: int) -> np.dtype[Any]:
    """The numpy type of an ONNX element type. Raises DlavmError for strings, complex numbers and unknown codes."""
    if code in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128, TensorProto.UNDEFINED):
        c.fail("element type expected real numbers", TensorProto.DataType.Name(code))
    try:
        return np.dtype(tensor_dtype_to_np_dtype(code))
    except KeyError:
        c.fail("element type expected one that the onnx package knows", code)
