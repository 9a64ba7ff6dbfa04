"""Writing a model: `Builder` has a method for every op of the table, named like the op."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dlavm.graph.constants import constant_args
from dlavm.graph.ir import Constant, Graph, JsonValue, Node, Type, Value
from dlavm.graph.ops import OPS
from dlavm.graph.rotary import packed
from dlavm.graph.verify import verify
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, IntoExpr, Var


class Builder:
    """Collects nodes in the order of the calls.

    A decoder graph runs `token` new rows (1 .. chunk) after `kv_len` cached ones (0 .. ctx-1) and keeps the last
    `head_rows` (0 .. chunk, at most token) for the head. Use:

        b = Builder("name", ctx=1024, chunk=64)
        ids = b.input("ids", (b.token,), "i32")
        x = b.embedding(ids, b.param("model.embed_tokens.weight", (vocab, dim)))
        with b.scope("layer 0"):
            x = b.linear(x, w, bias=c, act="silu", name="q_proj")     # operands, then attributes by name
        graph = b.finish(logits=x)
    """

    def __init__(self, name: str, ctx: int, chunk: int, meta: dict[str, JsonValue] | None = None) -> None:
        """`meta` is the model's configuration. Raises DlavmError unless 1 <= chunk <= ctx."""
        if not 1 <= chunk <= ctx:
            raise DlavmError(f"model {name}: expected 1 <= chunk <= ctx, got chunk={chunk!r}, ctx={ctx!r}")
        self.name, self.ctx, self.chunk = name, ctx, chunk
        self.meta: dict[str, JsonValue] = {**(meta or {}), "ctx": ctx, "chunk": chunk}
        self.token: Expr = Var("token", 1, chunk)
        self.kv_len: Expr = Var("kv_len", 0, ctx - 1)
        self.head_rows: Expr = Var("head_rows", 0, chunk)
        self._scopes: list[str] = []
        self._names: dict[str, int] = {}  # taken; and the number that the last one of the same hint got
        self._sources: dict[str, list[Value]] = {"input": [], "param": [], "kv": []}
        self._constants: list[Constant] = []
        self._nodes: list[Node] = []

    @contextmanager
    def scope(self, place: str) -> Iterator[None]:
        """Name a part of the model, for error messages (`layer 3 / q_proj`) and value names (`layer3.q_proj`)."""
        self._scopes.append(place)
        try:
            yield
        finally:
            self._scopes.pop()

    def input(self, name: str, shape: tuple[IntoExpr, ...], dtype: str) -> Value:
        """What the host gives at each step."""
        return self._source("input", name, shape, dtype, "")

    def param(self, name: str, shape: tuple[IntoExpr, ...], dtype: str = "f16", source: str = "") -> Value:
        """A weight; `name` is the checkpoint's tensor name unless `source` gives that."""
        return self._source("param", name, shape, dtype, source or name)

    def stacked_param(self, name: str, shape: tuple[int, int, int], parts: Sequence[str]) -> Value:
        """A param of three axes, of which each checkpoint tensor of `parts` is a matrix."""
        rows = tuple((part, shape[1]) for part in parts)
        value = replace(self._source("param", name, shape, "f16", ""), parts=rows)
        self._sources["param"][-1] = value
        return value

    def kv(self, name: str, shape: tuple[IntoExpr, ...]) -> Value:
        """A cache (kv_heads, ctx, d) that lives from step to step."""
        return self._source("kv", name, shape, "f16", name)

    def constant(self, name: str, shape: tuple[IntoExpr, ...], kind: str, **args: object) -> Value:
        """A tensor that a generator of `dlavm.graph.constants` computes."""
        value = Value(self._claim(name), Type.of(shape, "f16"), "constant")
        self._constants.append(Constant(value, kind, constant_args(kind, args)))
        return value

    def rotary(self, dim: int, theta: float = 10000.0, name: str = "rotary") -> Value:
        """The table of `rope` for all positions: (ctx, dim)."""
        return self.constant(name, (self.ctx, dim), "rotary", ctx=self.ctx, dim=dim, theta=theta)

    def scaled_rotary(self, frequencies: NDArray[np.float64], scale: float = 1.0, name: str = "rotary") -> Value:
        """The same for any frequencies, float64 [dim / 2] in radians a position; cos and sin are times `scale`."""
        shape = (self.ctx, 2 * len(frequencies))
        return self.constant(name, shape, "scaled_rotary", ctx=self.ctx, frequencies=packed(frequencies), scale=scale)

    def __getattr__(self, op: str) -> Callable[..., Value]:
        if op not in OPS:
            raise AttributeError(f"Builder has no op {op!r}; there are {sorted(OPS)!r}")
        return partial(self.op, op)

    def op(self, op: str, *operands: Value, name: str = "", **others: object) -> Value:
        """Append a node; operands by position or name, attributes by name. Returns the output.

        `name` defaults to the op, of a linear to the last part of its weight's name.
        Raises DlavmError naming op and place, with what was expected and found.
        """
        definition = OPS[op]
        if len(operands) > len(definition.names):
            raise DlavmError(f"{op}: expected operands {definition.names!r}, got {len(operands)} of them")
        given: dict[str, Value] = dict(zip(definition.names, operands, strict=False))
        given.update({k: v for k, v in others.items() if k in definition.names and isinstance(v, Value)})
        attributes = {k: v for k, v in others.items() if k not in given and v is not None}
        hint = name or self._hint(op, given)
        where = " / ".join([*self._scopes, hint])
        for operand, value in given.items():
            if not isinstance(value, Value):
                raise DlavmError(f"{op} at {where}: operand {operand} expected a value, got {value!r}")
        attrs = definition.complete_attrs(attributes, where)
        type_ = definition.derive(given, attrs, where)
        pairs = tuple((n, given[n]) for n in definition.names if n in given)
        out = self._output(op, given, type_, hint)
        self._nodes.append(Node(op, pairs, attrs, (out,), where))
        return out

    def finish(self, **outputs: Value) -> Graph:
        """The verified graph, with its outputs by label. Raises DlavmError as `verify` does."""
        graph = Graph(
            name=self.name,
            variables={"token": self.token, "kv_len": self.kv_len, "head_rows": self.head_rows},
            inputs=tuple(self._sources["input"]),
            params=tuple(self._sources["param"]),
            constants=tuple(self._constants),
            kv=tuple(self._sources["kv"]),
            nodes=tuple(self._nodes),
            outputs=outputs,
            meta=self.meta,
        )
        verify(graph)
        return graph

    def _source(self, role: str, name: str, shape: tuple[IntoExpr, ...], dtype: str, source: str) -> Value:
        if name in self._names:
            raise DlavmError(f"model {self.name}: expected unique names, got {name!r} twice")
        type_ = Type.of(shape, dtype)
        if any(extent.lo < 1 or (role != "input" and not extent.is_const) for extent in type_.shape):
            raise DlavmError(f"{role} {name}: extents expected positive integers, got {type_}")
        value = Value(self._claim(name), type_, role, source)
        self._sources[role].append(value)
        return value

    def _hint(self, op: str, operands: dict[str, Value]) -> str:
        weight = operands.get("w")
        if op != "linear" or not isinstance(weight, Value):
            return op
        return weight.name.removesuffix(".weight").rsplit(".", 1)[-1]

    def _output(self, op: str, operands: dict[str, Value], type_: Type, hint: str) -> Value:
        prefix = [re.sub(r"[^A-Za-z0-9_]+", "", scope) for scope in self._scopes]
        if op == "kv_append":
            cache = operands["cache"]
            return Value(self._claim(f"{cache.source}.new"), type_, "kv", cache.source)
        return Value(self._claim(".".join([*prefix, re.sub(r"[^A-Za-z0-9_.-]+", "_", hint)])), type_, "activation")

    def _claim(self, name: str) -> str:
        unique, count = name, self._names.get(name, 1)
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names[name] = count  # all numbers up to it are taken
        self._names.setdefault(unique, 1)
        return unique
