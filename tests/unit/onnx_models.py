"""Small decoders written as ONNX graphs, in the forms in which exporters and builders write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dlavm.frontend.onnx_import.meaning import CONTRIB

VOCAB, WIDTH, HEADS, KV_HEADS, SIZE, INNER, LAYERS, LIMIT = 37, 64, 4, 2, 16, 96, 2, 64


class Writer:
    """Collects nodes and initialisers of a decoder. `parts` name the form of norm, rotation, attention, linear and
    activation; what is not named is written in plain operators of opset 13 on."""

    def __init__(self, opset: int = 17, cached: bool = False, seed: int = 0, **parts: Any) -> None:
        self.opset, self.cached, self.parts = opset, cached, parts
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.names: set[str] = set()

    def weight(self, name: str, *shape: int, scale: float | None = None) -> str:
        spread = scale if scale is not None else 1.5 / np.sqrt(shape[0])
        values = self.rng.standard_normal(shape) * spread + (1.0 if name.endswith("norm") else 0.0)
        return self.tensor(name, values.astype(np.float32))

    def tensor(self, name: str, values: Any) -> str:
        if name not in self.names:
            self.names.add(name)
            self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def ints(self, *values: int) -> str:
        return self.tensor("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.tensor(f"number_{value}", np.array(value, np.float32))

    def __call__(self, op: str, *inputs: str, domain: str = "", outputs: int = 1, name: str = "", **attrs: Any) -> Any:
        made = [f"{op}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(op, inputs, made, domain=domain, name=name or f"{op}_{len(self.nodes)}", **attrs)
        )
        return made[0] if outputs == 1 else made

    def linear(self, x: str, name: str, k: int, n: int, bias: bool = False) -> str:
        if self.parts.get("linear") == "nbits":
            return self._nbits(x, name, k, n)
        if self.parts.get("linear") == "gemm":
            flat = self("Reshape", x, self.ints(-1, k))
            y = self("Gemm", flat, self.weight(name, n, k), self.weight(f"{name}.bias", n, scale=0.1), transB=1)
            return self("Reshape", y, self("Concat", self.ints(1, -1), self.ints(n), axis=0))
        if self.parts.get("linear") == "turned":
            return self("MatMul", x, self("Transpose", self.weight(name, n, k), perm=[1, 0]))
        y = self("MatMul", x, self.weight(name, k, n))
        return self("Add", self.weight(f"{name}.bias", n, scale=0.1), y) if bias else y

    def _nbits(self, x: str, name: str, k: int, n: int, block: int = 32) -> str:
        groups = -(-k // block)
        codes = self.rng.integers(0, 256, (n, groups, block // 2), np.uint8)
        scales = (np.abs(self.rng.standard_normal(n * groups)) * 0.06 + 0.02).astype(np.float16).astype(np.float32)
        inputs = [x, self.tensor(f"{name}_q4", codes), self.tensor(f"{name}_scales", scales)]
        if self.parts.get("zero"):
            inputs.append(self.tensor(f"{name}_zp", self.rng.integers(0, 256, n * -(-groups // 2), np.uint8)))
        return str(self("MatMulNBits", *inputs, domain=CONTRIB, K=k, N=n, bits=4, block_size=block))

    def norm(self, x: str, name: str) -> str:
        gamma, form = self.weight(f"{name}.norm", WIDTH, scale=0.2), self.parts.get("norm")
        if form == "operator":
            return str(self("RMSNormalization", x, gamma, epsilon=1e-5))
        if form == "contrib":
            return str(self("SimplifiedLayerNormalization", x, gamma, epsilon=1e-5, axis=-1))
        if form == "layer":
            return str(
                self("LayerNormalization", x, gamma, self.weight(f"{name}.beta", WIDTH, scale=0.2), epsilon=1e-5)
            )
        axes = [self.ints(-1)] if self.opset >= 18 else []
        more = {} if self.opset >= 18 else {"axes": [-1]}
        if form == "centred":
            x = self("Sub", x, self("ReduceMean", x, *axes, **more))
        square = self("Mul", x, x) if form == "square" else self("Pow", x, self.number(2.0))
        root = self("Sqrt", self("Add", self("ReduceMean", square, *axes, **more), self.number(1e-5)))
        y = self("Div", x, root) if form in ("square", "centred") else self("Mul", x, self("Reciprocal", root))
        return str(self("Mul", gamma, y))

    def tables(self) -> tuple[Any, Any]:
        angles = np.arange(LIMIT)[:, None] * 10000.0 ** (-np.arange(SIZE // 2) / (SIZE // 2))
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def rotate(self, x: str) -> str:
        """(1, heads, tokens, size)."""
        cos, sin = (self.tensor(n, t) for n, t in zip(("cos_cache", "sin_cache"), self.tables(), strict=True))
        if self.parts.get("rotary") == "operator":
            return str(self("RotaryEmbedding", x, cos, sin, "position_ids"))
        if self.parts.get("rotary") == "contrib":
            return str(self("RotaryEmbedding", x, "position_ids", cos, sin, domain=CONTRIB))
        if self.parts.get("rotary") == "interleaved":
            return self._neighbours(x, cos, sin)
        places = self("Cast", self("Unsqueeze", "position_ids", self.ints(1, 3)), to=TensorProto.FLOAT)
        frequencies = 10000.0 ** (-np.arange(SIZE // 2, dtype=np.float32) / (SIZE // 2))
        angle = self("Mul", places, self.tensor("inv_freq", frequencies))
        both = self("Concat", angle, angle, axis=-1)
        low, high = self("Split", x, self.ints(SIZE // 2, SIZE // 2), outputs=2, axis=-1)
        half = self("Concat", self("Neg", high), low, axis=-1)
        return str(self("Add", self("Mul", x, self("Cos", both)), self("Mul", half, self("Sin", both))))

    def _neighbours(self, x: str, cos: str, sin: str) -> str:
        """Pairs (2j, 2j + 1), as complex numbers: sliced apart, turned, stacked again."""
        c, s = (self("Unsqueeze", self("Gather", t, "position_ids"), self.ints(1)) for t in (cos, sin))
        ends, axis, step = self.ints(SIZE), self.ints(-1), self.ints(2)
        a = self("Slice", x, self.ints(0), ends, axis, step)
        b = self("Slice", x, self.ints(1), ends, axis, step)
        first = self("Sub", self("Mul", a, c), self("Mul", b, s))
        second = self("Add", self("Mul", b, c), self("Mul", a, s))
        pairs = self("Concat", *(self("Unsqueeze", y, self.ints(-1)) for y in (first, second)), axis=-1)
        return str(self("Reshape", pairs, self("Shape", x)))

    def heads(self, x: str, count: int) -> str:
        split = self("Reshape", x, self.ints(0, 0, count, SIZE))
        return str(self("Transpose", split, perm=[0, 2, 1, 3]))

    def attention(self, x: str, layer: int) -> str:
        path = f"layers.{layer}.attn"
        q = self.linear(x, f"{path}.q", WIDTH, HEADS * SIZE, bias=bool(self.parts.get("bias")))
        k = self.linear(x, f"{path}.k", WIDTH, KV_HEADS * SIZE)
        v = self.linear(x, f"{path}.v", WIDTH, KV_HEADS * SIZE)
        y = (self._grouped if self.parts.get("attention") == "gqa" else self._scored)(q, k, v, layer)
        return self.linear(y, f"{path}.o", HEADS * SIZE, WIDTH)

    def _grouped(self, q: str, k: str, v: str, layer: int) -> str:
        """GroupQueryAttention, as builders for onnxruntime-genai write it."""
        past = [f"past_key_values.{layer}.{n}" for n in ("key", "value")] if self.cached else ["", ""]
        total = self("ReduceSum", "attention_mask", self.ints(1), keepdims=1)
        lengths = self("Cast", self("Sub", total, self.ints(1)), to=TensorProto.INT32)
        whole = self("Cast", self("Gather", self("Shape", "attention_mask"), self.tensor("one", np.array(1))),
                     to=TensorProto.INT32)  # fmt: skip
        tables = [self.tensor(n, t) for n, t in zip(("cos_cache", "sin_cache"), self.tables(), strict=True)]
        names = [f"attn.{layer}", f"present.{layer}.key", f"present.{layer}.value"]
        attrs = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "do_rotary": 1,
                 "local_window_size": self.parts.get("window", -1)}  # fmt: skip
        inputs, name = [q, k, v, *past, lengths, whole, *tables], f"/layers.{layer}/GroupQueryAttention"
        self.nodes.append(helper.make_node("GroupQueryAttention", inputs, names, name=name, domain=CONTRIB, **attrs))
        return names[0]

    def _scored(self, q: str, k: str, v: str, layer: int) -> str:
        q, k, v = self.rotate(self.heads(q, HEADS)), self.rotate(self.heads(k, KV_HEADS)), self.heads(v, KV_HEADS)
        if self.cached:
            for name in ("key", "value"):
                made = f"present.{layer}.{name}"
                inputs = [f"past_key_values.{layer}.{name}", k if name == "key" else v]
                self.nodes.append(helper.make_node("Concat", inputs, [made], axis=2, name=f"append.{layer}.{name}"))
            k, v = f"present.{layer}.key", f"present.{layer}.value"
        if self.parts.get("attention") == "operator":
            y = self("Attention", q, k, v, self.mask(), scale=SIZE**-0.5)
        else:
            k, v = self.repeated(k), self.repeated(v)
            scores = self("Mul", self("MatMul", q, self("Transpose", k, perm=[0, 1, 3, 2])), self.number(SIZE**-0.5))
            if cap := self.parts.get("softcap"):
                scores = self("Mul", self("Tanh", self("Div", scores, self.number(cap))), self.number(cap))
            if self.parts.get("mask") == "where":
                scores = self("Where", self.seen(), scores, self.number(-3.4e38))
            else:
                scores = self("Add", scores, self.mask())
            y = self("MatMul", self("Softmax", scores, axis=-1), v)
        return str(self("Reshape", self("Transpose", y, perm=[0, 2, 1, 3]), self.ints(0, 0, HEADS * SIZE)))

    def repeated(self, x: str) -> str:
        shape = self("Shape", x)
        parts = [self("Slice", shape, self.ints(i), self.ints(i + 1)) for i in range(4)]
        wide = self("Expand", self("Unsqueeze", x, self.ints(2)),
                    self("Concat", *parts[:2], self.ints(HEADS // KV_HEADS), *parts[2:], axis=0))  # fmt: skip
        return str(self("Reshape", wide, self.ints(0, HEADS, -1, SIZE)))

    def seen(self) -> str:
        """(1, 1, tokens, positions): what rows see, from the positions and, in part, from the mask of padding."""
        total = self("Shape", "attention_mask", start=1) if self.opset >= 15 else self(
            "Slice", self("Shape", "attention_mask"), self.ints(1), self.ints(2))  # fmt: skip
        zero, one = self.tensor("zero", np.array(0)), self.tensor("one", np.array(1))
        columns = self("Range", zero, self("Squeeze", total), one)
        rows = self("Unsqueeze", "position_ids", self.ints(1, 3))
        causal = self("LessOrEqual", columns, rows)
        if window := self.parts.get("window"):
            causal = self("And", causal, self("Greater", columns, self("Sub", rows, self.ints(window))))
        real = self("Cast", self("Unsqueeze", "attention_mask", self.ints(1, 2)), to=TensorProto.BOOL)
        return str(self("And", causal, real))

    def mask(self) -> str:
        return str(self("Where", self.seen(), self.number(0.0), self.number(-3.4e38)))

    def mlp(self, x: str, layer: int) -> str:
        path = f"layers.{layer}.mlp"
        act: Callable[[str], str] = ACTS[self.parts.get("act", "silu")](self)
        if self.parts.get("mlp") == "fused":
            both = self.linear(x, f"{path}.gate_up", WIDTH, 2 * INNER)
            gate, up = self("Split", both, self.ints(INNER, INNER), outputs=2, axis=-1)
        else:
            gate, up = (self.linear(x, f"{path}.{n}", WIDTH, INNER) for n in ("gate", "up"))
        return self.linear(self("Mul", act(gate), up), f"{path}.down", INNER, WIDTH)

    def model(self) -> onnx.ModelProto:
        """The decoder: inputs and outputs as optimum names them."""
        table = self.weight("embed_tokens", VOCAB, WIDTH, scale=0.7)
        x = self("Gather", table, "input_ids")
        for layer in range(LAYERS):
            x = self("Add", x, self.attention(self.norm(x, f"layers.{layer}.input"), layer))
            x = self("Add", x, self.mlp(self.norm(x, f"layers.{layer}.post"), layer))
        x = self.norm(x, "final")
        if self.parts.get("last"):
            x = self("Slice", x, self.ints(-1), self.ints(2**31 - 1), self.ints(1))
        self.nodes.append(
            helper.make_node("MatMul", [x, self.weight("lm_head", WIDTH, VOCAB)], ["logits"], name="lm_head")
        )
        integer = TensorProto.INT64
        inputs = [helper.make_tensor_value_info("input_ids", integer, ["batch", "tokens"]),
                  helper.make_tensor_value_info("attention_mask", integer, ["batch", "total"]),
                  helper.make_tensor_value_info("position_ids", integer, ["batch", "tokens"])]  # fmt: skip
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "rows", VOCAB])]
        for layer in range(LAYERS if self.cached else 0):
            for name in ("key", "value"):
                for group, what, place in ((inputs, "past_key_values", "past"), (outputs, "present", "whole")):
                    group.append(helper.make_tensor_value_info(f"{what}.{layer}.{name}", TensorProto.FLOAT,
                                                               ["batch", KV_HEADS, place, SIZE]))  # fmt: skip
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(self.nodes, "decoder", [v for v in inputs if v.name in used], outputs, self.tensors)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def save(self, path: Path) -> Path:
        path.write_bytes(self.model().SerializeToString())
        return path


def _silu(w: Writer) -> Callable[[str], str]:
    return lambda x: w("Mul", x, w("Sigmoid", x))


def _gelu(w: Writer) -> Callable[[str], str]:
    def apply(x: str) -> str:
        one = w("Add", w("Erf", w("Div", x, w.number(np.sqrt(2.0)))), w.number(1.0))
        return str(w("Mul", w("Mul", x, one), w.number(0.5)))

    return apply


def _gelu_tanh(w: Writer) -> Callable[[str], str]:
    def apply(x: str) -> str:
        cube = w("Mul", w("Mul", w("Mul", x, x), x), w.number(0.044715))
        inner = w("Mul", w("Add", x, cube), w.number(np.sqrt(2 / np.pi)))
        return str(w("Mul", w("Mul", w.number(0.5), x), w("Add", w.number(1.0), w("Tanh", inner))))

    return apply


ACTS: dict[str, Callable[[Writer], Callable[[str], str]]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": lambda w: lambda x: w("Relu", x),
    "swish": lambda w: lambda x: w("Swish", x),
    "quick_gelu": lambda w: lambda x: w("QuickGelu", x, domain=CONTRIB),
    "fast_gelu": lambda w: lambda x: w("FastGelu", x, domain=CONTRIB),
    "bias_gelu": lambda w: lambda x: w("BiasGelu", x, w.weight("gelu.bias", INNER, scale=0.3), domain=CONTRIB),
    "gelu_operator": lambda w: lambda x: w("Gelu", x, approximate="tanh"),
}
