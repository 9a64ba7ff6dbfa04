"""The text form of graphs. Deterministic, and `parse_graph(print_graph(g))` prints the same again.

    graph tiny
    var token in [1, 8]
    meta vocab_size = 32
    input %ids : i32[token]
    param %head : f16[32, 16] from %embed
    param %qk : f16[32, 16] from %q[16], %k[16]
    constant %rotary : f16[64, 8] = rotary(ctx=64, dim=8, theta=10000.0)
    kv %layer0.k : f16[2, 64, 8]
    %x = embedding(%ids, %embed) : f16[token, 16] @ "embed"
    %y = linear(%x, %w, aux=%x) {aux_mode="add"} : f16[token, 16] @ "layer 0 / o_proj"
    output logits = %y

`from` (checkpoint tensor, or several with the rows of each; kv storage) is left out where it is the value's own name,
an attribute where it has its default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from dlavm.graph.constants import constant_args
from dlavm.graph.ir import AttrValue, Constant, Graph, JsonValue, Node, Type, Value
from dlavm.graph.ops import OPS
from dlavm.graph.verify import verify
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, Var
from dlavm.sym.text import EXPR_RULES, fold_tree


def print_graph(graph: Graph) -> str:
    """The text, one statement a line, ending in a newline."""
    lines = [f"graph {graph.name}"]
    lines += [f"var {name} in [{v.lo}, {v.hi}]" for name, v in graph.variables.items()]
    lines += [f"meta {key} = {json.dumps(value, sort_keys=True)}" for key, value in graph.meta.items()]
    lines += [f"{v.role} {_declaration(v)}" for v in (*graph.inputs, *graph.params)]
    lines += [f"constant {_declaration(c.value)} = {c.kind}({_pairs(c.args)})" for c in graph.constants]
    lines += [f"kv {_declaration(v)}" for v in graph.kv]
    lines += [_node_text(node) for node in graph.nodes]
    lines += [f"output {label} = %{value.name}" for label, value in graph.outputs.items()]
    return "\n".join(lines) + "\n"


def _declaration(value: Value) -> str:
    sources = [f"%{name}[{rows}]" for name, rows in value.parts]
    if value.source not in ("", value.name):
        sources = [f"%{value.source}"]
    source = f" from {', '.join(sources)}" if sources else ""
    return f"%{value.name} : {value.type}{source}"


def _node_text(node: Node) -> str:
    definition = OPS[node.op]
    operands = [f"%{v.name}" if n in definition.required else f"{n}=%{v.name}" for n, v in node.operands]
    given = attributes_text(node)
    attrs = f" {{{given}}}" if given else ""
    where = f" @ {json.dumps(node.where)}" if node.where else ""
    outputs = ", ".join(f"%{v.name}" for v in node.outputs)
    types = ", ".join(str(v.type) for v in node.outputs)
    return f"{outputs} = {node.op}({', '.join(operands)}){attrs} : {types}{where}"


def given_attributes(node: Node) -> list[tuple[str, AttrValue]]:
    """The attributes of a node that are not its op's defaults."""
    known = OPS[node.op].attrs
    return [(name, value) for name, value in node.attrs.items() if value != known[name].default]


def attributes_text(node: Node) -> str:
    """`given_attributes` as the text form writes them."""
    return _pairs(given_attributes(node))


def _pairs(pairs: Any) -> str:
    return ", ".join(f"{name}={_attr_text(value)}" for name, value in pairs)


def _attr_text(value: AttrValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return repr(value) if isinstance(value, float) else str(value)


_GRAMMAR = (
    r"""
start: _NL? (statement _NL)*
?statement: "graph" WORD -> graph
    | "var" NAME "in" "[" SIGNED "," SIGNED "]" -> var
    | "meta" NAME "=" JSON -> meta
    | "input" REF ":" type -> input
    | "param" REF ":" type ["from" (REF | parts)] -> param
    | "kv" REF ":" type ["from" REF] -> kv
    | "constant" REF ":" type "=" NAME "(" pairs ")" -> constant
    | REF "=" NAME "(" operands ")" ["{" pairs "}"] ":" type ["@" STRING] -> node
    | "output" NAME "=" REF -> output
parts: part ("," part)*
part: REF "[" expr "]"
type: NAME "[" [expr ("," expr)*] "]"
operands: [operand ("," operand)*]
operand: REF | NAME "=" REF
pairs: [pair ("," pair)*]
pair: NAME "=" (literal | expr | shape)
literal: STRING | FLOAT | "true" -> true | "false" -> false
shape: "[" [expr ("," expr)*] "]"
WORD: /[^\s]+/
JSON: /[^\n]+/
SIGNED: /-?[0-9]+/
FLOAT.2: /-?[0-9]+(\.[0-9]+(e[+-]?[0-9]+)?|e[+-]?[0-9]+)/
STRING: /"(\\.|[^"\\\n])*"/
REF: /%[A-Za-z0-9_][A-Za-z0-9_.|\-]*/
_NL: /(\r?\n[ \t]*(#[^\n]*)?)+/
%ignore /[ \t]+/
"""
    + EXPR_RULES
)


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


def parse_graph(text: str) -> Graph:
    """The verified graph of a text. Raises DlavmError naming the line for bad syntax, or as `verify` does."""
    try:
        tree = _parser().parse(text.rstrip() + "\n")
    except UnexpectedInput as error:
        lines = text.splitlines()
        line = lines[error.line - 1].strip() if 0 < error.line <= len(lines) else ""
        raise DlavmError(f"graph text: bad syntax at line {error.line}, column {error.column}, got {line!r}") from None
    reader = _Reader()
    for statement in tree.children:
        assert isinstance(statement, Tree)
        getattr(reader, f"read_{statement.data}")(*statement.children)
    graph = Graph(**reader.parts)
    verify(graph)
    return graph


class _Reader:
    """Collects the parts of a graph, statement by statement."""

    def __init__(self) -> None:
        self.name = ""
        self.variables: dict[str, Expr] = {}
        self.values: dict[str, Value] = {}
        self.meta: dict[str, JsonValue] = {}
        self.sources: dict[str, list[Value]] = {"inputs": [], "params": [], "kv": []}
        self.constants: list[Constant] = []
        self.nodes: list[Node] = []
        self.outputs: dict[str, Value] = {}

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "variables": self.variables,
            "meta": self.meta,
            "constants": tuple(self.constants),
            "nodes": tuple(self.nodes),
            "outputs": self.outputs,
            **{name: tuple(values) for name, values in self.sources.items()},
        }

    def read_graph(self, name: Token) -> None:
        self.name = str(name)

    def read_var(self, name: Token, lo: Token, hi: Token) -> None:
        self.variables[str(name)] = Var(str(name), int(lo), int(hi))

    def read_meta(self, name: Token, value: Token) -> None:
        try:
            self.meta[str(name)] = json.loads(value)
        except ValueError:
            raise DlavmError(f"graph text: meta {name} expected JSON, got {value.strip()!r}") from None

    def read_input(self, ref: Token, type_: Tree[Token]) -> None:
        self._declare("inputs", ref, type_, "input", "")

    def read_param(self, ref: Token, type_: Tree[Token], source: Token | Tree[Token] | None = None) -> None:
        if not isinstance(source, Tree):
            self._declare("params", ref, type_, "param", (source or ref)[1:])
            return
        pairs = [(str(part.children[0])[1:], part.children[1]) for part in source.children]  # type: ignore[union-attr]
        parts = tuple((name, int(fold_tree(rows, self.variables))) for name, rows in pairs)  # type: ignore[arg-type]
        value = Value(str(ref[1:]), self._type(type_), "param", parts=parts)
        self.values[value.name] = value
        self.sources["params"].append(value)

    def read_kv(self, ref: Token, type_: Tree[Token], source: Token | None = None) -> None:
        self._declare("kv", ref, type_, "kv", (source or ref)[1:])

    def _declare(self, group: str, ref: Token, type_: Tree[Token], role: str, source: str) -> None:
        self.sources[group].append(self._value(ref, self._type(type_), role, source))

    def read_constant(self, ref: Token, type_: Tree[Token], kind: Token, pairs: Tree[Token]) -> None:
        args = constant_args(str(kind), self._pairs(pairs))
        self.constants.append(Constant(self._value(ref, self._type(type_), "constant", ""), str(kind), args))

    def read_output(self, label: Token, ref: Token) -> None:
        self.outputs[str(label)] = self._lookup(ref, f"output {label}")

    def read_node(self, ref: Token, op: Token, operands: Tree[Token], *rest: Tree[Token] | Token) -> None:
        definition = OPS.get(str(op))
        if definition is None:
            raise DlavmError(f"graph text: op of {ref} expected one of {list(OPS)!r}, got {str(op)!r}")
        trees = {str(part.data): part for part in rest if isinstance(part, Tree)}
        where = next((json.loads(part) for part in rest if isinstance(part, Token)), "")
        place = where or str(ref[1:])
        given = self._pairs(trees["pairs"]) if "pairs" in trees else {}
        attrs = definition.complete_attrs(given, place)
        pairs = self._operands(operands, definition.required, f"{op} at {place}")
        role, source = "activation", ""
        if op == "kv_append" and "cache" in dict(pairs):
            role, source = "kv", dict(pairs)["cache"].source
        output = self._value(ref, self._type(trees["type"]), role, source)
        self.nodes.append(Node(str(op), pairs, attrs, (output,), where))

    def _operands(self, tree: Tree[Token], names: tuple[str, ...], place: str) -> tuple[tuple[str, Value], ...]:
        found: list[tuple[str, Value]] = []
        for operand in tree.children:
            assert isinstance(operand, Tree)
            *keyword, ref = (str(child) for child in operand.children)
            if not keyword and len(found) >= len(names):
                raise DlavmError(f"{place}: expected {len(names)} operands without a name, got {ref!r} too")
            found.append((keyword[0] if keyword else names[len(found)], self._lookup(ref, place)))
        return tuple(found)

    def _lookup(self, ref: str, place: str) -> Value:
        if ref[1:] not in self.values:
            raise DlavmError(f"{place}: expected a value defined earlier, got {str(ref[1:])!r}")
        return self.values[ref[1:]]

    def _value(self, ref: Token, type_: Type, role: str, source: str) -> Value:
        self.values[ref[1:]] = value = Value(str(ref[1:]), type_, role, source)
        return value

    def _type(self, tree: Tree[Token]) -> Type:
        dtype, *shape = tree.children
        return Type.of(self._exprs(shape, self.variables), str(dtype))

    def _pairs(self, tree: Tree[Token]) -> dict[str, object]:
        return {str(pair.children[0]): self._attr(pair.children[1]) for pair in tree.children}  # type: ignore[union-attr, arg-type]

    def _attr(self, tree: Tree[Token]) -> object:
        if tree.data in ("true", "false"):
            return tree.data == "true"
        if tree.data == "literal":
            return json.loads(str(tree.children[0]))
        if tree.data == "shape":
            return self._exprs(tree.children, self.variables)
        return fold_tree(tree, self.variables)

    @staticmethod
    def _exprs(trees: Any, variables: Mapping[str, Expr]) -> tuple[Expr, ...]:
        return tuple(fold_tree(tree, variables) for tree in trees)
