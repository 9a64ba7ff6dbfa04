"""The op table. To add an op, write its type rule, its numpy meaning and one entry, here and nowhere else:
builder, verifier, text form and evaluator all read this table. Shapes are written (axis, axis); `..` is any number
of leading axes; T is the token axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dlavm.formats import FORMATS
from dlavm.graph.activations import act_attr, activation
from dlavm.graph.attention import attention_reference
from dlavm.graph.ir import Type
from dlavm.graph.moe import moe_reference
from dlavm.graph.opdef import Array, Attr, Call, OpDef
from dlavm.sym import Expr, mul, wrap

OPS: dict[str, OpDef] = {}
WEIGHTS = " ".join(("f16", "f32", *FORMATS))  # what the matrix engine can multiply with
CACHES = "f16 f32 mxint8"  # what a KV cache may hold
Operands = Mapping[str, Array]
Attrs = Mapping[str, Any]


def _op(name: str, operands: str, rule: Callable[[Call], Type], reference: Callable[[Operands, Attrs, int], Array],
        doc: str, effect: bool = False, rowwise: str = "", **attrs: Attr) -> None:  # fmt: skip
    OPS[name] = OpDef(name, operands, rule, reference, attrs, doc, effect, tuple(rowwise.split()))


# embedding: ids (T,), table (vocab, dim) -> (T, dim)
def _embedding_type(c: Call) -> Type:
    (tokens,) = c.rank("ids", 1, "i32")
    _, dim = c.rank("table", 2, "f16 f32")
    return Type((tokens, dim), "f16")


def _embedding(v: Operands, a: Attrs, kv_len: int) -> Array:
    return np.asarray(v["table"][v["ids"]], dtype=np.float32)


_op("embedding", "ids table", _embedding_type, _embedding, "Row ids[i] of the table, for each i.")


# linear: x (.., K), w (N, K), bias (N,), aux (.., N) -> (.., N)
def _linear_type(c: Call) -> Type:
    k = c.dim("x", -1)
    n = c.rank("w", 2, WEIGHTS)[0]
    c.match("x", c["x"].shape)
    c.match("w", (n, k), WEIGHTS)
    c.match("bias", (n,))
    out = (*c["x"].shape[:-1], n)
    c.match("aux", out)
    has_aux = c.get("aux") is not None
    mode = str(c.attrs["aux_mode"])
    c.require(has_aux == (mode != "none"), "aux and aux_mode expected both or neither", mode)
    return Type(out, "f16")


def _linear(v: Operands, a: Attrs, kv_len: int) -> Array:
    y = v["x"] @ v["w"].T
    if a["scale"] != 1.0:
        y = y * np.float32(a["scale"])
    if "bias" in v:
        y = y + v["bias"]
    if a["act"] != "none":
        y = activation(a["act"])(y)
    if a["aux_mode"] == "mul":
        y = y * v["aux"]
    elif a["aux_mode"] == "add":
        y = y + v["aux"]
    return y


_op("linear", "x w bias? aux?", _linear_type, _linear,
    "act(x @ w.T * scale + bias), then * aux or + aux: the epilogue of the matrix engine, in its order.",
    rowwise="x aux", act=act_attr("none", default="none"), aux_mode=Attr("str", "none", ("none", "add", "mul")),
    scale=Attr("float", 1.0))  # fmt: skip


# rms_norm, layer_norm: x (.., D), gamma (D,), beta (D,) -> like x
def _norm_type(c: Call) -> Type:
    d = c.dim("x", -1)
    c.match("x", c["x"].shape)
    c.match("gamma", (d,))
    c.match("beta", (d,))
    c.require(float(c.attrs["eps"]) >= 0, "eps expected at least 0", c.attrs["eps"])  # type: ignore[arg-type]
    return Type(c["x"].shape, "f16")


def _rms_norm(v: Operands, a: Attrs, kv_len: int) -> Array:
    x = v["x"]
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + np.float32(a["eps"])) * v["gamma"]


def _layer_norm(v: Operands, a: Attrs, kv_len: int) -> Array:
    centred = v["x"] - np.mean(v["x"], axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    y = centred / np.sqrt(variance + np.float32(a["eps"])) * v["gamma"]
    return y + v["beta"] if "beta" in v else y


_op("rms_norm", "x gamma", _norm_type, _rms_norm,
    "x / sqrt(mean(x^2) + eps) * gamma over the last axis.", rowwise="x", eps=Attr("float"))  # fmt: skip
_op("layer_norm", "x gamma beta?", _norm_type, _layer_norm,
    "(x - mean) / sqrt(variance + eps) * gamma + beta over the last axis.", rowwise="x", eps=Attr("float"))  # fmt: skip


# rope: x (T, heads, d), table (ctx, rot): cos (rot/2) then sin (rot/2) -> like x
def _rope_type(c: Call) -> Type:
    _, _, d = c.rank("x", 3)
    ctx, _ = c.rank("table", 2)
    rot = int(c.attrs["rotary_dim"])  # type: ignore[arg-type]
    c.require(rot > 0 and rot % 2 == 0 and rot <= d.lo, f"rotary_dim expected even, 2..{d}", rot)
    c.match("table", (ctx, rot))
    return Type(c["x"].shape, "f16")


def _rope(v: Operands, a: Attrs, kv_len: int) -> Array:
    x, rot = v["x"], a["rotary_dim"]
    rows = v["table"][kv_len : kv_len + len(x)].astype(np.float32)
    cos, sin = rows[:, None, : rot // 2], rows[:, None, rot // 2 :]
    first = slice(0, rot, 2) if a["interleaved"] else slice(0, rot // 2)
    second = slice(1, rot, 2) if a["interleaved"] else slice(rot // 2, rot)
    y = x.copy()
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., second] * cos + x[..., first] * sin
    return y


_op("rope", "x table", _rope_type, _rope,
    "Rotate pairs of the first rotary_dim elements by the table row kv_len + i: pairs (j, j + rot/2), or (2j, 2j+1) "
    "when interleaved.", rotary_dim=Attr("int"), interleaved=Attr("bool", False))  # fmt: skip


# kv_append: cache (kv_heads, ctx, d), x (T, kv_heads, d) -> the cache, a new SSA value of the same storage
def _kv_append_type(c: Call) -> Type:
    heads, _, d = c.rank("cache", 3, CACHES)
    tokens = c.dim("x", 0)
    c.match("x", (tokens, heads, d))
    return c["cache"]


def _kv_append(v: Operands, a: Attrs, kv_len: int) -> Array:
    # In place: the verifier holds that nobody reads the older SSA value afterwards.
    v["cache"][:, kv_len : kv_len + len(v["x"])] = v["x"].transpose(1, 0, 2)
    return v["cache"]


_op("kv_append", "cache x", _kv_append_type, _kv_append, "Write x[i] at position kv_len + i.", effect=True)


# attention: q (T, heads, d), k_cache and v_cache (kv_heads, ctx, d) -> (T, heads, d)
def _attention_type(c: Call) -> Type:
    _, heads, d = c.rank("q", 3)
    kv_heads, ctx, _ = c.rank("k_cache", 3, CACHES)
    c.match("k_cache", (kv_heads, ctx, d), CACHES)
    c.match("v_cache", (kv_heads, ctx, d), c["k_cache"].dtype)
    c.require(int(heads) % int(kv_heads) == 0, f"heads expected a multiple of {kv_heads} kv heads", heads)
    for name in ("window", "softcap", "alibi"):
        c.require(c.attrs[name] >= 0, f"{name} expected at least 0", c.attrs[name])  # type: ignore[operator]
    return Type(c["q"].shape, "f16")


_op("attention", "q k_cache v_cache", _attention_type, attention_reference,
    "softmax(scores) v, where scores = q k^T * scale; row i sees positions up to kv_len + i, of them the last\n"
    "`window` where that is not 0; query head h uses kv head h // (heads / kv_heads). `softcap` c > 0: c * tanh(score\n"
    "/ c). `alibi` > 0: plus slope[h] * (position of k - that of q) * alibi_scale (Press et al., arXiv 2108.12409).",
    scale=Attr("float"), window=Attr("int", 0), softcap=Attr("float", 0.0), alibi=Attr("float", 0.0),
    alibi_scale=Attr("float", 1.0))  # fmt: skip


# add_positions: x (T, D), table (P, D) -> like x
def _add_positions_type(c: Call) -> Type:
    _, d = c.rank("x", 2)
    positions, _ = c.rank("table", 2)
    c.match("table", (positions, d))
    return Type(c["x"].shape, "f16")


_op("add_positions", "x table", _add_positions_type,
    lambda v, a, kv_len: v["x"] + v["table"][kv_len : kv_len + len(v["x"])],
    "x[i] + table[kv_len + i]: learned positions.")  # fmt: skip


# moe: x (T, D), logits (T, E), gate and up (E, I, D), down (E, D, I) -> (T, D)
def _moe_type(c: Call) -> Type:
    tokens, d = c.rank("x", 2)
    experts, inner, _ = c.rank("gate", 3, WEIGHTS)
    c.match("logits", (tokens, experts))
    for name in ("gate", "up"):
        c.match(name, (experts, inner, d), WEIGHTS)
    c.match("down", (experts, d, inner), WEIGHTS)
    top_k = int(c.attrs["top_k"])  # type: ignore[arg-type]
    c.require(1 <= top_k <= int(experts), f"top_k expected 1..{experts}", top_k)
    return Type(c["x"].shape, "f16")


_op("moe", "x logits gate up down", _moe_type, moe_reference,
    "Mixture of experts: p = softmax(logits), the top_k largest (the lowest index of equal ones), divided by\n"
    "their sum with `renormalize`; the sum of p[j] * (act(x @ gate[j].T) * (x @ up[j].T)) @ down[j].T over them.",
    rowwise="x logits", top_k=Attr("int"), act=act_attr(), renormalize=Attr("bool", True))  # fmt: skip


# permute: x (.., N), index (N,) -> like x
def _permute_type(c: Call) -> Type:
    c.match("x", c["x"].shape)
    c.match("index", (c.dim("x", -1),), "i32")
    return Type(c["x"].shape, "f16")


_op("permute", "x index", _permute_type, lambda v, a, kv_len: v["x"][..., v["index"].astype(np.int64)],
    "y[.., j] = x[.., index[j]].", rowwise="x")  # fmt: skip


def _reshape_type(c: Call) -> Type:
    shape: tuple[Expr, ...] = c.attrs["shape"]  # type: ignore[assignment]
    wanted = f"shape expected {mul(*c['x'].shape)} elements"
    c.require(mul(*shape) == mul(*c["x"].shape), wanted, shape)
    return Type(shape, c["x"].dtype)


_op("reshape", "x", _reshape_type, lambda v, a, kv_len: v["x"].reshape(a["shape"]),
    "The same elements in row-major order.", rowwise="x", shape=Attr("shape"))  # fmt: skip


# last_rows: x (T, ..) -> (count, ..)
def _last_rows_type(c: Call) -> Type:
    rows, count = c.dim("x", 0), c.attrs["count"]
    assert isinstance(count, Expr)
    c.require(count.lo >= 0 and count.hi <= rows.hi, f"count expected within 0..{rows}", count)
    return Type((count, *c["x"].shape[1:]), c["x"].dtype)


_op("last_rows", "x", _last_rows_type, lambda v, a, kv_len: v["x"][len(v["x"]) - a["count"] :],
    "The last `count` rows.", count=Attr("expr"))  # fmt: skip


# slice: x (.., N) -> (.., size)
def _slice_type(c: Call) -> Type:
    n, start, size = c.dim("x", -1), c.attrs["start"], c.attrs["size"]
    assert isinstance(start, int) and isinstance(size, int)
    fits = start >= 0 and size >= 1 and start + size <= n.lo
    c.require(fits, f"start and size expected a part of 0..{n}", (start, size))
    return Type((*c["x"].shape[:-1], wrap(size)), c["x"].dtype)


_op("slice", "x", _slice_type, lambda v, a, kv_len: v["x"][..., a["start"] : a["start"] + a["size"]],
    "Elements start .. start + size - 1 of the last axis: a part of a fused projection.",
    rowwise="x", start=Attr("int"), size=Attr("int"))  # fmt: skip


# add, mul: a (.., N), b the same shape or (N,) -> like a
def _binary_type(c: Call) -> Type:
    c.match("a", c["a"].shape)
    c.match("b", (c.dim("a", -1),) if c["b"].rank == 1 else c["a"].shape)
    return Type(c["a"].shape, "f16")


_op(
    "add",
    "a b",
    _binary_type,
    lambda v, a, kv_len: v["a"] + v["b"],
    "a + b; b of one axis is added to every row.",
    rowwise="a b",
)
_op(
    "mul",
    "a b",
    _binary_type,
    lambda v, a, kv_len: v["a"] * v["b"],
    "a * b; b of one axis multiplies every row.",
    rowwise="a b",
)


def _same_type(c: Call) -> Type:
    c.match("x", c["x"].shape)
    return Type(c["x"].shape, "f16")


_op("scale", "x", _same_type, lambda v, a, kv_len: v["x"] * np.float32(a["value"]),
    "x * value.", rowwise="x", value=Attr("float"))  # fmt: skip
_op("act", "x", _same_type, lambda v, a, kv_len: activation(a["fn"])(v["x"]),
    "An activation function, element by element.", rowwise="x", fn=act_attr())  # fmt: skip


# argmax: x (rows, n) -> (rows,)
def _argmax_type(c: Call) -> Type:
    rows, _ = c.rank("x", 2)
    return Type((rows,), "i32")


_op("argmax", "x", _argmax_type, lambda v, a, kv_len: np.argmax(v["x"], axis=-1).astype(np.int32),
    "The index of the largest value of each row; the lowest index wins a tie.", rowwise="x")  # fmt: skip
_op("copy", "x", lambda c: c["x"], lambda v, a, kv_len: v["x"].copy(), "The same tensor in another place.",
    rowwise="x")  # fmt: skip
