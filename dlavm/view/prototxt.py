"""Caffe's text form of a network, for Netron: one `layer` a node, its attributes in a block of our own.

Types are the names of our ops, which Caffe does not know; Netron shows any. Constants are blobs without data: shapes of
the layer that reads them, and their names among its attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dlavm.graph import Graph, Node, Value
from dlavm.graph.ir import AttrValue
from dlavm.graph.text import given_attributes
from dlavm.sym import Expr
from dlavm.target import TargetSpec
from dlavm.task import Copy, For, If, Launch, Program
from dlavm.task.ir import Path, exprs_of, walk
from dlavm.task.text import statement_text, value_labels
from dlavm.view.task_flow import access

BLOCK = "dlavm_param"  # the blocks that Caffe knows, such as reshape_param, have fields of other types
CONSTANT = ("weights", "tables")  # roles of buffers that are no inputs of a command

_Param = tuple[str, "str | bool | int | float"]


@dataclass(frozen=True)
class Layer:
    """A `layer` block. `shape`: of an input; `blobs`: shapes of the constants in it."""

    name: str
    type: str
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    params: tuple[_Param, ...] = ()
    blobs: tuple[tuple[int, ...], ...] = ()
    shape: tuple[int, ...] = ()


def graph_prototxt(graph: Graph) -> str:
    """The graph; extents that vary are shown by their largest values, and as they are among the attributes."""
    inputs = [Layer(v.name, "Input", tops=(v.name,), shape=_extents(v)) for v in (*graph.inputs, *graph.kv)]
    return layers_text(graph.name, [*inputs, *map(_graph_layer, graph.nodes)])


def task_prototxt(program: Program, spec: TargetSpec) -> str:
    """The commands in order, with their loops among the attributes; buffers are what flows between them."""
    around: dict[Path, str] = {}
    layers = []
    for path, stmt in walk(program):
        if isinstance(stmt, For | If):
            around[path] = statement_text(stmt).removesuffix(":")
        elif isinstance(stmt, Launch | Copy):
            places = [around[path[:i]] for i in range(2, len(path)) if path[:i] in around]
            layers.append(_task_layer(path, stmt, program, spec, places))
    return layers_text(program.name, [*_task_inputs(program, layers), *layers])


def _graph_layer(node: Node) -> Layer:
    constants = [(name, value) for name, value in node.operands if value.role in ("param", "constant")]
    flowing = [(name, value) for name, value in node.operands if value.role not in ("param", "constant")]
    params: list[_Param] = [(name, f"{value.name} {value.type}") for name, value in constants]
    params += [(name, _plain(value)) for name, value in given_attributes(node)]
    params += [("operands", " ".join(name for name, _ in flowing)), ("result", str(node.output.type))]
    if node.where:
        params.append(("where", node.where))
    return Layer(node.name, node.op, tuple(v.name for _, v in flowing), tuple(v.name for v in node.outputs),
                 tuple(params), tuple(_extents(v) for _, v in constants))  # fmt: skip


def _task_layer(path: Path, stmt: Launch | Copy, program: Program, spec: TargetSpec, places: list[str]) -> Layer:
    touched = access(stmt, program, spec)
    bottoms = tuple(n for n in touched.reads if n in program.buffer and program.buffer[n].role not in CONSTANT)
    labels = value_labels(stmt, spec) if isinstance(stmt, Launch) else {}
    params: list[_Param] = [(name, labels.get(name, _plain(value))) for name, value in exprs_of(stmt)]
    where = stmt.where if isinstance(stmt, Launch) else ""
    params += [(name, value) for name, value in (("where", where), ("inside", "; ".join(places))) if value]
    name = ".".join(map(str, path)) + (f" {where}" if where else "")
    return Layer(name, stmt.op if isinstance(stmt, Launch) else "copy", bottoms, touched.writes, tuple(params))


def _task_inputs(program: Program, layers: Iterable[Layer]) -> Iterator[Layer]:
    """What is there before the program: the inputs and caches that it touches."""
    touched = {name for layer in layers for name in (*layer.bottoms, *layer.tops)}
    for buffer in program.buffers:
        if buffer.role in ("input", "kv") and buffer.name in touched:
            yield Layer(buffer.name, "Input", tops=(buffer.name,))


def _extents(value: Value) -> tuple[int, ...]:
    return tuple(extent.hi for extent in value.type.shape)


def _plain(value: AttrValue) -> str | bool | int | float:
    if isinstance(value, Expr):
        return value.value if value.is_const else str(value)
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else value


# -- protobuf text -------------------------------------------------------------------------------------------------


def layers_text(name: str, layers: Iterable[Layer]) -> str:
    """A network of layers, which state what flows between them by the names of their bottoms and tops."""
    lines = [f"name: {_value(name)}"]
    for layer in layers:
        lines += ["layer {", *(f"  {line}" for line in _layer_lines(layer)), "}"]
    return "\n".join(lines) + "\n"


def _layer_lines(layer: Layer) -> Iterator[str]:
    yield f"name: {_value(layer.name)}"
    yield f"type: {_value(layer.type)}"
    yield from (f"bottom: {_value(name)}" for name in layer.bottoms)
    yield from (f"top: {_value(name)}" for name in layer.tops)
    for blob in layer.blobs:
        yield f"blobs {{ shape {{ {_dims(blob)} }} }}"
    if layer.shape:
        yield f"input_param {{ shape {{ {_dims(layer.shape)} }} }}"
    if layer.params:
        yield f"{BLOCK} {{"
        yield from (f"  {name}: {_value(value)}" for name, value in layer.params)
        yield "}"


def _dims(shape: tuple[int, ...]) -> str:
    return " ".join(f"dim: {extent}" for extent in shape)


def _value(value: str | bool | int | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    return '"' + "".join(_escaped(char) for char in value) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char >= " " and char != "\x7f" else f"\\{ord(char):03o}"
