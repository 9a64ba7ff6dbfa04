"""Reading an .onnx file: checked, in order, its tensors mapped into memory and never copied."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import google.protobuf.message
import numpy as np
import onnx
import onnx.inliner
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from dlavm.frontend.onnx_import.ir import Array, OnnxGraph, OnnxInput, OnnxNode, Tensor
from dlavm.frontend.onnx_import.meaning import CONTRIB
from dlavm.frontend.onnx_import.wire import strip
from dlavm.support.errors import DlavmError

OLDEST = 13  # opset of ai.onnx
NEWEST = onnx.defs.onnx_opset_version()
BITS: dict[int, int] = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
}
FOREIGN = ("SimplifiedLayerNormalization",)
REFUSED = (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128, TensorProto.UNDEFINED)


def read_graph(path: Path) -> OnnxGraph:
    """The graph of an .onnx file, functions inlined.

    Raises DlavmError naming file and place for a file that is not readable, truncated or not ONNX, that the onnx
    package's checker refuses, for a cycle, a value that nothing makes, tensors whose bytes are missing, too few or
    outside of the model's folder, and for opsets that are not known.
    """
    data = _mapped(path)
    stripped = strip(memoryview(data), str(path))
    model = ModelProto()
    try:
        model.ParseFromString(stripped.message)
    except (google.protobuf.message.DecodeError, ValueError) as error:
        raise DlavmError(f"{path}: expected an ONNX model, got {_line(error)!r}") from None
    if not model.HasField("graph"):
        raise DlavmError(f"{path}: expected an ONNX model, got a message without a graph")
    if model.graph.sparse_initializer or any(t.HasField("segment") for t in model.graph.initializer):
        raise DlavmError(f"{path}: initialisers expected whole and dense, got sparse ones or segments")
    opsets = _opsets(path, model)
    files = _Files(path, data)
    tensors = {t.name: files.tensor(t, stripped.data.get(i)) for i, t in enumerate(model.graph.initializer)}
    model = _checked(path, model)
    return replace(_graph(path, model.graph, tensors, opsets), files=tuple(files.maps.values()))


def _mapped(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DlavmError(f"{path}: expected a readable file, got {error.strerror!r}") from None
    except ValueError:
        raise DlavmError(f"{path}: expected an ONNX model, got an empty file") from None


def _opsets(path: Path, model: ModelProto) -> dict[str, int]:
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    if not OLDEST <= opsets.get("", OLDEST) <= NEWEST:
        raise DlavmError(f"{path}: opset of ai.onnx expected within {OLDEST}..{NEWEST}, got {opsets['']}")
    return opsets


class _Files:
    """The model's own file and those with external data, each mapped once."""

    def __init__(self, path: Path, data: Any) -> None:
        self.path, self.folder = path, path.parent
        self.maps: dict[str, Any] = {"": data}

    def tensor(self, proto: TensorProto, raw: tuple[int, int] | None) -> Tensor:
        """An initialiser; `raw` is where its data lies in the model's file if it was left out of the message."""
        place = f"{self.path}: initialiser {proto.name!r}"
        if proto.data_type in REFUSED or proto.data_type not in TensorProto.DataType.values():
            raise DlavmError(f"{place}: element type expected real numbers, got {_type_name(proto.data_type)!r}")
        dtype, shape = np.dtype(helper.tensor_dtype_to_np_dtype(proto.data_type)), tuple(proto.dims)
        if any(extent < 0 for extent in shape):
            raise DlavmError(f"{place}: shape expected extents of at least 0, got {list(shape)!r}")
        bits = BITS.get(proto.data_type, 8 * dtype.itemsize)
        size = 1
        for extent in shape:
            size *= extent
        count = -(-size * bits // 8)
        if proto.data_location == TensorProto.EXTERNAL:
            data, (offset, length) = self._external(proto, place, count)
        elif raw is not None:
            data, (offset, length) = self.maps[""], raw
        else:
            return Tensor(proto.name, dtype, shape, _inline(proto, place))
        if length != count:
            raise DlavmError(f"{place}: expected {count} bytes for {dtype}{list(shape)}, got {length}")
        if bits < 8:
            return Tensor(proto.name, dtype, shape, np.frombuffer(data, np.uint8, count, offset), bits)
        flat = np.frombuffer(data, dtype, size, offset) if size else np.empty(0, dtype)
        return Tensor(proto.name, dtype, shape, flat.reshape(shape))

    def _external(self, proto: TensorProto, place: str, count: int) -> tuple[Any, tuple[int, int]]:
        entries = {e.key: e.value for e in proto.external_data}
        location = entries.get("location", "")
        data = self.maps.get(location) if location else None
        if data is None:
            data = self.maps[location] = _mapped(self._inside(location, place))
        numbers = []
        for key, default in (("offset", 0), ("length", count)):
            text = entries.get(key, str(default))
            if not (text.isascii() and text.isdigit() and len(text) < 19):
                raise DlavmError(f"{place}: external data: {key} expected a number of bytes, got {text!r}")
            numbers.append(int(text))
        offset, length = numbers
        if offset + length > len(data):
            raise DlavmError(
                f"{place}: external data expected {length} bytes at {offset}, got a file {location!r} of {len(data)}"
            )
        return data, (offset, length)

    def _inside(self, location: str, place: str) -> Path:
        """The file of that name, if it lies in the model's folder and no link leads out of it."""
        parts = Path(location.replace("\\", "/")).parts
        if not parts or location.startswith("/") or ".." in parts or "\0" in location or ":" in parts[0]:
            raise DlavmError(
                f"{place}: external data: location expected a file in the model's folder, got {location!r}"
            )
        path = self.folder
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise DlavmError(f"{place}: external data: location expected no link, got {location!r}")
        if not path.is_file():
            raise DlavmError(f"{place}: external data: location expected a file beside the model, got {location!r}")
        return path


def _inline(proto: TensorProto, place: str) -> Array:
    try:
        return np.asarray(numpy_helper.to_array(proto))
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DlavmError(f"{place}: expected as many numbers as {list(proto.dims)} has, got {_line(error)!r}") from None


def _type_name(code: int) -> str:
    return TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else str(code)


def _checked(path: Path, model: ModelProto) -> ModelProto:
    """The model in the checker's order, checked, with functions inlined; its initialisers are inputs there."""
    stated = {value.name for value in model.graph.input}
    for proto in model.graph.initializer:
        if proto.name not in stated:
            model.graph.input.append(helper.make_tensor_value_info(proto.name, proto.data_type, list(proto.dims)))
    del model.graph.initializer[:]
    for value in model.graph.output:  # whose shapes nobody states with a dynamic exporter, and nobody reads here
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    _move_foreign(model)
    try:
        _sort(path, model.graph)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, RuntimeError, ValueError, google.protobuf.message.DecodeError) as error:
        raise DlavmError(f"{path}: expected a valid ONNX model, got {_line(error)!r}") from None
    return model


def _move_foreign(model: ModelProto) -> None:
    """Operators that onnxruntime has in the domain of ai.onnx, which the checker does not know there, go to its own."""
    foreign = [node for node in model.graph.node if node.op_type in FOREIGN and node.domain in ("", "ai.onnx")]
    for node in foreign:
        node.domain = CONTRIB
    if foreign and not any(o.domain == CONTRIB for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))


def _sort(path: Path, graph: GraphProto) -> None:
    """Puts nodes behind those that make their operands. Raises DlavmError for a cycle and for unknown operands."""
    made = {value.name for value in graph.input}
    outputs = {name for node in graph.node for name in node.output if name}
    waiting: dict[str, list[int]] = {}
    missing = [0] * len(graph.node)
    for index, node in enumerate(graph.node):
        for name in {n for n in _needs(node) if n and n not in made}:
            if name not in outputs:
                raise DlavmError(
                    f"{path}: {_where(node)} ({node.op_type}): expected an input, initialiser or result, got {name!r}, "
                    "which nothing makes"
                )
            waiting.setdefault(name, []).append(index)
            missing[index] += 1
    ready, order = [i for i, count in enumerate(missing) if not count], []
    while ready:
        order += ready
        following = []
        for index in ready:
            for name in graph.node[index].output:
                for user in waiting.pop(name, []):
                    missing[user] -= 1
                    if not missing[user]:
                        following.append(user)
        ready = sorted(following)
    if len(order) < len(graph.node):
        first = graph.node[min(set(range(len(graph.node))) - set(order))]
        raise DlavmError(f"{path}: expected a graph without cycles, got one through or before {_where(first)!r}")
    if order != list(range(len(order))):
        nodes = [NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
        del graph.node[:]
        graph.node.extend(nodes)
    for value in graph.output:
        if value.name not in made | outputs:
            raise DlavmError(
                f"{path}: output {value.name!r}: expected a value of the graph, got one that nothing makes"
            )


def _needs(node: NodeProto) -> Iterable[str]:
    """Operands of a node and what its subgraphs take from around it."""
    yield from node.input
    yield from _captured(node)


def _captured(node: NodeProto) -> Iterable[str]:
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            yield from (n for inner in graph.node for n in _needs(inner) if n not in own)
            yield from (v.name for v in graph.output if v.name not in own)


def _graph(path: Path, graph: GraphProto, tensors: dict[str, Tensor], opsets: dict[str, int]) -> OnnxGraph:
    nodes = tuple(_node(path, node, opsets) for node in graph.node)
    inputs = tuple(_value(v) for v in graph.input if v.name not in tensors)
    return OnnxGraph(str(path), nodes, inputs, tuple(_value(v) for v in graph.output), tensors, opsets)


def _node(path: Path, node: NodeProto, opsets: dict[str, int]) -> OnnxNode:
    domain = "" if node.domain == "ai.onnx" else node.domain
    attrs = {a.name: _attribute(path, node, a, opsets) for a in node.attribute}
    captured = tuple(dict.fromkeys(_captured(node)))
    version = opsets.get(domain, 1)
    return OnnxNode(node.op_type, domain, version, _where(node), tuple(node.input), tuple(node.output), attrs, captured)


def _where(node: NodeProto) -> str:
    return str(node.name or f"{node.op_type} of {next(iter(node.output), '')}")


def _attribute(path: Path, node: NodeProto, proto: AttributeProto, opsets: dict[str, int]) -> Any:
    """An attribute's value; None for a kind that no operator of the table has."""
    place = f"{path}: {_where(node)}: attribute {proto.name}"
    if proto.type == AttributeProto.TENSOR:
        if proto.t.data_location == TensorProto.EXTERNAL or proto.t.data_type in REFUSED:
            raise DlavmError(f"{place}: expected numbers in the model's file, got {_type_name(proto.t.data_type)!r}")
        return _inline(proto.t, place)
    if proto.type == AttributeProto.GRAPH:
        tensors = {
            t.name: Tensor(t.name, np.dtype(object), tuple(t.dims), _inline(t, place)) for t in proto.g.initializer
        }
        return _graph(path, proto.g, tensors, opsets)
    if proto.type in (AttributeProto.STRING, AttributeProto.STRINGS):
        return _text(proto.s) if proto.type == AttributeProto.STRING else [_text(s) for s in proto.strings]
    fields = {
        AttributeProto.INT: "i",
        AttributeProto.FLOAT: "f",
        AttributeProto.INTS: "ints",
        AttributeProto.FLOATS: "floats",
    }
    if proto.type not in fields:
        return None
    value = getattr(proto, fields[proto.type])
    return value if isinstance(value, int | float) else list(value)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _value(value: ValueInfoProto) -> OnnxInput:
    if not value.type.HasField("tensor_type"):
        return OnnxInput(value.name, None, None)
    tensor = value.type.tensor_type
    known = tensor.elem_type not in REFUSED and tensor.elem_type in TensorProto.DataType.values()
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if known else None
    if not tensor.HasField("shape"):
        return OnnxInput(value.name, dtype, None)
    dims = tensor.shape.dim
    return OnnxInput(value.name, dtype, tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims))


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return " ".join(text.splitlines()[0].split()) if text else type(error).__name__
