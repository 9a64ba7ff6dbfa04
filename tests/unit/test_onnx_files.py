"""ONNX files that are wrong: one clear error each, and no crash, hang or large allocation whatever bytes they have."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dlavm.frontend import load_model
from dlavm.frontend.onnx_import.load import read_graph
from dlavm.frontend.onnx_import.wire import strip
from dlavm.support.errors import DlavmError
from tests.conftest import examples
from tests.unit.onnx_models import Writer


def decoder() -> onnx.ModelProto:
    return Writer().model()


def saved(folder: Path, change: Callable[[onnx.ModelProto], None], model: onnx.ModelProto | None = None) -> Path:
    model = decoder() if model is None else model
    change(model)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external(model: onnx.ModelProto, location: str, **entries: str) -> None:
    """The first initialiser has its data in a file."""
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)


def cycle(model: onnx.ModelProto) -> None:
    nodes = {node.name: node for node in model.graph.node}
    first = next(n for n in model.graph.node if n.op_type == "Gather" and "input_ids" in n.input)
    first.input[1] = nodes["lm_head"].output[0]


def missing(model: onnx.ModelProto) -> None:
    del model.graph.initializer[:1]


def tensor_of(change: Callable[[onnx.TensorProto], None]) -> Callable[[onnx.ModelProto], None]:
    return lambda model: change(model.graph.initializer[0])


def huge(tensor: onnx.TensorProto) -> None:
    tensor.dims[0] = 1 << 50


def negative(tensor: onnx.TensorProto) -> None:
    tensor.dims[0] = -3


def strings(tensor: onnx.TensorProto) -> None:
    tensor.data_type = TensorProto.STRING


def unknown_type(tensor: onnx.TensorProto) -> None:
    tensor.data_type = 99


def short(tensor: onnx.TensorProto) -> None:
    tensor.raw_data = tensor.raw_data[:-4]


def old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 12


def new(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 1000


def no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


def twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[-1])


def bad_attribute(model: onnx.ModelProto) -> None:
    softmax = next(n for n in model.graph.node if n.op_type == "Softmax")
    softmax.attribute.append(helper.make_attribute("axle", 3))


def no_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "elsewhere"


CHANGES: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "cycle": (cycle, "expected a graph without cycles, got one through or before"),
    "missing initialiser": (missing, "expected an input, initialiser or result, got '.*', which nothing makes"),
    "huge extents": (tensor_of(huge), r"initialiser .*: expected \d+ bytes for float32"),
    "negative extents": (tensor_of(negative), "shape expected extents of at least 0"),
    "strings": (tensor_of(strings), "element type expected real numbers, got 'STRING'"),
    "unknown type": (tensor_of(unknown_type), "element type expected real numbers, got '99'"),
    "short data": (tensor_of(short), r"initialiser .*: expected \d+ bytes for float32\[37, 64\], got \d+"),
    "old opset": (old, r"opset of ai.onnx expected within 13..\d+, got 12"),
    "new opset": (new, r"opset of ai.onnx expected within 13..\d+, got 1000"),
    "no graph": (no_graph, "expected an ONNX model, got a message without a graph"),
    "one name twice": (twice, "expected a valid ONNX model, got"),
    "unknown attribute": (bad_attribute, "expected a valid ONNX model, got .*axle"),
    "unknown output": (no_output, "output 'elsewhere': expected a value of the graph, got one that nothing makes"),
    "outside": (lambda m: external(m, "../weights.bin"), "expected a file in the model's folder, got '../weights.bin'"),
    "absolute": (lambda m: external(m, "/etc/passwd"), "location expected a file in the model's folder"),
    "hidden outside": (lambda m: external(m, "a/../../w.bin"), "location expected a file in the model's folder"),
    "backslashes": (lambda m: external(m, "..\\w.bin"), "location expected a file in the model's folder"),
    "no such file": (lambda m: external(m, "gone.bin"), "location expected a file beside the model, got 'gone.bin'"),
    "a directory": (lambda m: external(m, "."), "location expected a file"),
    "no location": (lambda m: external(m, ""), "location expected a file in the model's folder, got ''"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_one_clear_error(case: str, tmp_path: Path) -> None:
    change, message = CHANGES[case]
    path = saved(tmp_path, change)
    with pytest.raises(DlavmError, match=message) as error:
        read_graph(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "-4"}, "offset expected a number of bytes, got '-4'"),
        ({"length": "many"}, "length expected a number of bytes, got 'many'"),
        ({"offset": "16"}, "external data expected 9472 bytes at 16, got a file 'w.bin' of 9472"),
        ({"offset": "9" * 18}, "external data expected"),
        ({"length": "16"}, r"expected 9472 bytes for float32\[37, 64\], got 16"),
    ],
)
def test_external_data_that_lies(entries: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(37 * 64 * 4))
    with pytest.raises(DlavmError, match=message):
        read_graph(saved(tmp_path, lambda model: external(model, "w.bin", **entries)))


def test_links_are_not_followed(tmp_path: Path) -> None:
    model, outside = tmp_path / "model", tmp_path / "outside"
    for folder in (model, outside):
        folder.mkdir()
    (outside / "w.bin").write_bytes(bytes(37 * 64 * 4))
    (model / "link.bin").symlink_to(outside / "w.bin")
    (model / "folder").symlink_to(outside)
    for location in ("link.bin", "folder/w.bin"):
        with pytest.raises(DlavmError, match="location expected no link"):
            read_graph(saved(model, lambda m, location=location: external(m, location)))  # type: ignore[misc]


def test_external_data_is_the_same_as_inline(tmp_path: Path) -> None:
    model = decoder()
    path = saved(tmp_path, lambda m: None, model)
    inline = {name: tensor.values().tobytes() for name, tensor in read_graph(path).tensors.items()}
    (tmp_path / "data").mkdir()
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="data/w.bin", size_threshold=16)
    graph = read_graph(tmp_path / "split.onnx")
    assert {name: tensor.values().tobytes() for name, tensor in graph.tensors.items()} == inline
    assert not graph.tensors["embed_tokens"].values().flags.owndata


@pytest.mark.parametrize("code", [TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1, TensorProto.BFLOAT16])
def test_packed_types_are_those_of_the_onnx_package(code: int, tmp_path: Path) -> None:
    """In the file itself and, above the size that stays in the message, mapped."""
    for count in (7, 4097):
        values = np.arange(count) % 13 - 6
        tensor = helper.make_tensor("w", code, [count], np.abs(values) if code == TensorProto.UINT4 else values)
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor), "w")
        graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [],
                                  [helper.make_tensor_value_info("y", code, [count])], [tensor])  # fmt: skip
        path = tmp_path / "model.onnx"
        path.write_bytes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11).SerializeToString()
        )
        found = read_graph(path).tensors["w"].values()
        wanted = numpy_helper.to_array(tensor)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found.astype(np.float32), wanted.astype(np.float32))


def test_the_stripped_message_is_the_model(tmp_path: Path) -> None:
    data = decoder().SerializeToString()
    found = strip(memoryview(data), "here")
    assert len(found.message) < len(data) / 4
    model = onnx.ModelProto.FromString(found.message)
    for index, tensor in enumerate(onnx.ModelProto.FromString(data).graph.initializer):
        offset, length = found.data.get(index, (0, 0))
        raw = data[offset : offset + length] if length else model.graph.initializer[index].raw_data
        assert raw == tensor.raw_data and model.graph.initializer[index].name == tensor.name


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"GGUF" + bytes(100), b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x08" + b"\xff" * 20]
)
def test_what_is_no_onnx(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(DlavmError, match="expected an ONNX model"):
        read_graph(path)


def test_truncated_at_every_part(tmp_path: Path) -> None:
    data, path = decoder().SerializeToString(), tmp_path / "model.onnx"
    for cut in np.linspace(1, len(data) - 1, 60).astype(int):
        path.write_bytes(data[:cut])
        with pytest.raises(DlavmError):
            read_graph(path)


DATA = Writer(cached=True, norm="contrib", attention="gqa", linear="nbits").model().SerializeToString()
HEAD = strip(memoryview(DATA), "").message  # changes to weights alone would find nothing


def attempt(data: bytes, path: Path) -> None:
    """A file is a model, or refused in one line."""
    path.write_bytes(data)
    message = ""
    try:
        load_model(path).graph(16, 4)
    except DlavmError as error:
        message = str(error)
    assert "\n" not in message


@settings(max_examples=examples(30))
@given(st.lists(st.tuples(st.integers(0, len(HEAD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]) -> None:
    data = bytearray(HEAD)
    for at, value in changes:
        data[at] = value
    attempt(bytes(data), tmp_path_factory.getbasetemp() / "changed.onnx")


@settings(max_examples=examples(12))
@given(st.data())
def test_changed_graphs(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Changes that keep the message sound: of types, extents, attributes, operands."""
    model = onnx.ModelProto.FromString(DATA)
    for _ in range(data.draw(st.integers(1, 3))):
        change(model.graph, data.draw)
    attempt(model.SerializeToString(), tmp_path_factory.getbasetemp() / "changed.onnx")


def change(graph: onnx.GraphProto, draw: Any) -> None:
    node = graph.node[draw(st.integers(0, len(graph.node) - 1))]
    tensor = graph.initializer[draw(st.integers(0, len(graph.initializer) - 1))]
    kind = draw(st.sampled_from(["operand", "attribute", "extent", "type", "input", "op", "drop"]))
    numbers = st.sampled_from([-(1 << 63), -1, 0, 1, 2, 3, 31, 1 << 20, 1 << 40, (1 << 63) - 1])
    if kind == "operand" and node.input:
        other = graph.node[draw(st.integers(0, len(graph.node) - 1))]
        node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from([*other.input, *other.output, ""]))
    elif kind == "attribute" and node.attribute:
        attribute = node.attribute[draw(st.integers(0, len(node.attribute) - 1))]
        if attribute.type == onnx.AttributeProto.INT:
            attribute.i = draw(numbers)
        elif attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = draw(st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 1e30]))
    elif kind == "extent" and tensor.dims:
        tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(numbers)
    elif kind == "type":
        tensor.data_type = draw(st.integers(0, 30))
    elif kind == "input":
        value = graph.input[draw(st.integers(0, len(graph.input) - 1))]
        dim = value.type.tensor_type.shape.dim[draw(st.integers(0, len(value.type.tensor_type.shape.dim) - 1))]
        dim.dim_value = draw(numbers)
    elif kind == "op":
        node.op_type = draw(
            st.sampled_from(["MatMul", "Add", "Reshape", "Expand", "Range", "Tile", "Softmax", "Nothing"])
        )
    elif kind == "drop":
        graph.node.remove(node)


@pytest.mark.slow
def test_changed_files_take_little_memory(tmp_path: Path) -> None:
    """In a process that may have 3 GiB: what a claimed size asks for is not allocated."""
    script = tmp_path / "attempts.py"
    script.write_text(
        "import random, sys\nfrom pathlib import Path\nimport onnx\n"
        "from tests.unit.test_onnx_files import DATA, attempt, change\n"
        "from hypothesis import strategies as st\n"
        "random.seed(1)\n"
        "class Draw:\n"
        "    def __call__(self, strategy):\n"
        "        import warnings\n"
        "        with warnings.catch_warnings():\n"
        "            warnings.simplefilter('ignore')\n"
        "            return strategy.example()\n"
        f"for _ in range({examples(60)}):\n"
        "    model = onnx.ModelProto.FromString(DATA)\n"
        "    change(model.graph, Draw())\n"
        f"    attempt(model.SerializeToString(), Path({str(tmp_path / 'changed.onnx')!r}))\n"
    )  # fmt: skip

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], preexec_fn=limit, env=environment, capture_output=True, text=True,
                          timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
