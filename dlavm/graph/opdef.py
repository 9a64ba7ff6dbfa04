"""What an entry of the op table is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import FORMATS
from dlavm.graph.ir import AttrValue, Type, Value
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, wrap

Array = NDArray[Any]
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
NUMBERS = {"float": "a number that float32 holds", "positive": "a number above 0 that float32 holds"}


@dataclass(frozen=True)
class Attr:
    """An attribute: its kind, the default (None: required) and, of a str, the choices; `accepts` tells further ones."""

    kind: str  # str, bool, int, float, positive (a float above 0), expr, shape
    default: AttrValue | None = None
    choices: tuple[str, ...] = ()
    accepts: Callable[[str], bool] = field(default=lambda text: False)

    def convert(self, value: object) -> AttrValue | None:
        """`value` in its canonical Python type, None when it does not fit."""
        if self.kind == "str":
            known = isinstance(value, str) and (not self.choices or value in self.choices or self.accepts(value))
            return value if known else None  # type: ignore[return-value]  # it is a str
        if self.kind == "bool":
            return value if isinstance(value, bool) else None
        if self.kind == "int" or self.kind in NUMBERS:
            return self._number(value)
        try:
            if self.kind == "expr":
                return wrap(value)  # type: ignore[arg-type]  # wrap refuses what is neither
            return tuple(wrap(extent) for extent in value)  # type: ignore[attr-defined]
        except (DlavmError, TypeError):
            return None

    def _number(self, value: object) -> AttrValue | None:
        if isinstance(value, Expr) and value.is_const:  # how the text form reads an integer
            value = value.value
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
            return None
        if self.kind == "int":
            whole = isinstance(value, int | np.integer) or float(value).is_integer()
            return int(value) if whole else None
        lowest = -LARGEST if self.kind == "float" else SMALLEST
        return float(value) if lowest <= value <= LARGEST else None

    def __str__(self) -> str:
        if self.kind in NUMBERS:
            return NUMBERS[self.kind]
        return f"one of {self.choices!r}" if self.choices else f"a value of kind {self.kind}"


class Call:
    """One use of an op while its type is derived: operand types and attributes, and refusals that say where."""

    def __init__(self, op: str, where: str, types: Mapping[str, Type], attrs: Mapping[str, AttrValue]) -> None:
        self.op, self.where, self.types, self.attrs = op, where, types, attrs

    def __getitem__(self, operand: str) -> Type:
        return self.types[operand]

    def get(self, operand: str) -> Type | None:
        return self.types.get(operand)

    def dim(self, operand: str, axis: int) -> Expr:
        """An extent of an operand, which must have that axis."""
        shape = self.types[operand].shape
        if not -len(shape) <= axis < len(shape):
            self.fail(f"{operand} expected at least {axis + 1 if axis >= 0 else -axis} axes", self.types[operand])
        return shape[axis]

    def match(self, operand: str, shape: tuple[Expr | int, ...], dtypes: str = "f16 f32") -> None:
        """Refuse unless the operand has this shape (of a present one) and one of the dtypes."""
        found = self.types.get(operand)
        if found is None:
            return
        wanted = tuple(wrap(extent) for extent in shape)
        if found.shape != wanted or found.dtype not in dtypes.split():
            self.fail(f"{operand} expected {_listed(dtypes)}[{', '.join(map(str, wanted))}]", found)

    def rank(self, operand: str, rank: int, dtypes: str = "f16 f32") -> tuple[Expr, ...]:
        """The shape of an operand that must have `rank` axes and one of the dtypes."""
        found = self.types[operand]
        if found.rank != rank or found.dtype not in dtypes.split():
            self.fail(f"{operand} expected {_listed(dtypes)} with {rank} axes", found)
        return found.shape

    def require(self, condition: bool, expectation: str, found: object) -> None:
        if not condition:
            self.fail(expectation, found)

    def fail(self, expectation: str, found: object) -> None:
        shapes = ", ".join(f"{name}: {type_}" for name, type_ in self.types.items())
        raise DlavmError(f"{self.op} at {self.where or '?'}: {expectation}, got {_shown(found)} (operands {shapes})")


def _listed(dtypes: str) -> str:
    """For a message; the many weight formats by one name."""
    plain = [dtype for dtype in dtypes.split() if dtype not in FORMATS]
    return "|".join(plain if len(plain) == len(dtypes.split()) else [*plain, "FORMAT"])


def _shown(found: object) -> str:
    """As the text form writes it: only a str is a text in quotes; types, shapes and expressions are not."""
    if isinstance(found, tuple):
        return f"[{', '.join(map(str, found))}]"
    return repr(found) if isinstance(found, str) else str(found)


@dataclass(frozen=True)
class OpDef:
    """One op: everything the graph level knows of it.

    `operands`: names in order; a trailing `?` marks an optional one.
    `type_rule(call)`: the output type from operand types and attributes, refusing through `call`.
    `reference(operands, attrs, kv_len)`: the float32 numpy meaning; absent operands are absent keys, attributes
    of kind expr and shape arrive as ints.
    `effect`: it changes state (the kv cache), so it may be neither removed nor merged.
    `rowwise`: the operands of which row i alone, wherever it stands in the sequence, makes row i of the result; empty
    where rows depend on others or on their positions.
    """

    name: str
    operands: str
    type_rule: Callable[[Call], Type]
    reference: Callable[[Mapping[str, Array], Mapping[str, Any], int], Array]
    attrs: Mapping[str, Attr]
    doc: str
    effect: bool = False
    rowwise: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All operand names, required ones first."""
        return tuple(name.rstrip("?") for name in self.operands.split())

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(name for name in self.operands.split() if not name.endswith("?"))

    def complete_attrs(self, given: Mapping[str, object], where: str) -> dict[str, AttrValue]:
        """Every attribute, checked and defaults filled in. Raises DlavmError naming op, place and attribute."""
        place = f"{self.name} at {where or '?'}"
        for name in given:
            if name not in self.attrs:
                raise DlavmError(f"{place}: expected attributes among {list(self.attrs)!r}, got {name!r}")
        complete: dict[str, AttrValue] = {}
        for name, attr in self.attrs.items():
            raw = given.get(name, attr.default)
            if raw is None:
                raise DlavmError(f"{place}: attribute {name} expected {attr}, got none")
            value = attr.convert(raw)
            if value is None:
                raise DlavmError(f"{place}: attribute {name} expected {attr}, got {raw!r}")
            complete[name] = value
        return complete

    def derive(self, operands: Mapping[str, Value], attrs: Mapping[str, AttrValue], where: str) -> Type:
        """The output type. Raises DlavmError naming op, place, expectation and the shapes found."""
        for name in self.required:
            if name not in operands:
                raise DlavmError(f"{self.name} at {where or '?'}: expected an operand {name!r}, got {list(operands)!r}")
        for name in operands:
            if name not in self.names:
                raise DlavmError(f"{self.name} at {where or '?'}: operands expected {self.names!r}, got {name!r}")
        types = {name: value.type for name, value in operands.items()}
        return self.type_rule(Call(self.name, where, types, attrs))
