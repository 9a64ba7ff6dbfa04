"""The graph IR: SSA over tensors. Frozen values and nodes in one ordered list; traversal is a loop over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, Union

from dlavm.formats import FORMATS
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, IntoExpr, wrap

DTYPES = ("f16", "f32", "i32", *FORMATS)
ROLES = ("input", "param", "constant", "activation", "kv")

AttrValue = Union[str, bool, int, float, Expr, "tuple[Expr, ...]"]
JsonValue = Union[None, str, bool, int, float, "list[JsonValue]", "dict[str, JsonValue]"]


@dataclass(frozen=True)
class Type:
    """A shape of symbolic extents and an element type of DTYPES (a name of FORMATS: a quantised weight)."""

    shape: tuple[Expr, ...]
    dtype: str

    @staticmethod
    def of(shape: tuple[IntoExpr, ...], dtype: str) -> Type:
        """The type with plain ints of the shape wrapped. Raises DlavmError for an unknown dtype."""
        if dtype not in DTYPES:
            raise DlavmError(f"type: dtype expected one of {DTYPES!r}, got {dtype!r}")
        return Type(tuple(wrap(extent) for extent in shape), dtype)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


class Tensor(NamedTuple):
    """A tensor of a checkpoint."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A tensor, identified by its name within a graph.

    `source` is the checkpoint tensor of a param (two params may share one: a tied head) and the storage, that
    is the name of the kv input, of a kv value; empty for the others. A param that is several checkpoint tensors, one
    below the other, has no source but `parts`: the name of each and its rows. Of a param of three axes each part is a
    matrix, an entry of the first axis.
    """

    name: str
    type: Type
    role: str
    source: str = ""
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What a param is in the checkpoint, in the order of its rows."""
        shape = tuple(int(extent) for extent in self.type.shape)
        inner = shape[2:] if len(shape) == 3 else shape[1:]
        parts = tuple(Tensor(name, (rows, *inner)) for name, rows in self.parts)
        return parts or (Tensor(self.source, shape),)


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. `operands` pairs the operand names of the op table with values, absent optional ones left out;
    `attrs` holds every attribute of the op, defaults filled in; `where` is the place in the source model."""

    op: str
    operands: tuple[tuple[str, Value], ...]
    attrs: Mapping[str, AttrValue]
    outputs: tuple[Value, ...]
    where: str = ""

    @property
    def name(self) -> str:
        """The first output's name, unique within a graph."""
        return self.outputs[0].name

    @property
    def output(self) -> Value:
        return self.outputs[0]

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(value for _, value in self.operands)

    def get(self, operand: str) -> Value | None:
        """The operand of that name, None when it is absent."""
        return dict(self.operands).get(operand)

    def number(self, attr: str) -> float:
        """A numeric attribute. Raises DlavmError for one of another kind."""
        value = self.attrs[attr]
        if not isinstance(value, int | float):
            raise DlavmError(f"{self}: attribute {attr} expected a number, got {value!r}")
        return float(value)

    def __getitem__(self, operand: str) -> Value:
        """The operand of that name. Raises DlavmError when it is absent."""
        value = self.get(operand)
        if value is None:
            raise DlavmError(f"{self}: expected an operand {operand!r}, got {[n for n, _ in self.operands]!r}")
        return value

    def __str__(self) -> str:
        return f"{self.op} at {self.where or self.name}"


@dataclass(frozen=True)
class Constant:
    """A tensor that the compiler computes: a named generator of `dlavm.graph.constants` and its arguments."""

    value: Value
    kind: str
    args: tuple[tuple[str, AttrValue], ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A model. `nodes` are in execution order; `outputs` maps labels (`logits`, `next`) to values;
    `variables` maps the names of the symbolic variables to their expressions (a constant where only one value is
    possible); `meta` is the model configuration, JSON values only."""

    name: str
    variables: Mapping[str, Expr] = field(default_factory=dict)
    inputs: tuple[Value, ...] = ()
    params: tuple[Value, ...] = ()
    constants: tuple[Constant, ...] = ()
    kv: tuple[Value, ...] = ()
    nodes: tuple[Node, ...] = ()
    outputs: Mapping[str, Value] = field(default_factory=dict)
    meta: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("variables", "outputs", "meta"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @cached_property
    def sources(self) -> tuple[Value, ...]:
        """The values that no node produces."""
        return (*self.inputs, *self.params, *(c.value for c in self.constants), *self.kv)

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Every value by name."""
        produced = (value for node in self.nodes for value in node.outputs)
        return {value.name: value for value in (*self.sources, *produced)}

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The producing node by value name; sources are absent."""
        return {value.name: node for node in self.nodes for value in node.outputs}

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read a value, by value name, in order, once per operand; unread values are absent."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                found.setdefault(value.name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def is_output(self, value: Value) -> bool:
        return any(output.name == value.name for output in self.outputs.values())
