"""The op table: numpy meanings against plain formulas, refusals that name op, place and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlavm.graph import OPS, Builder, Value, evaluate, new_state
from dlavm.graph.rotary import rotary_table
from dlavm.support.errors import DlavmError

RNG = np.random.default_rng(7)
T, CTX, D, KV_LEN = 3, 16, 8, 5
X = RNG.standard_normal((T, D)).astype(np.float32)
Y = RNG.standard_normal((T, D)).astype(np.float32)
W = RNG.standard_normal((6, D)).astype(np.float32)
GAMMA, BETA = RNG.standard_normal((2, D)).astype(np.float32)
HEADS = RNG.standard_normal((T, 4, D)).astype(np.float32)
ROWS = RNG.standard_normal((T, 2, D)).astype(np.float32)
K_CACHE, V_CACHE = RNG.standard_normal((2, 2, CTX, D)).astype(np.float32)


def run(arrays: dict[str, Any], model: Callable[[Builder, dict[str, Value]], Value], caches: dict[str, Any]) -> Any:
    """Evaluate one op: `arrays` become inputs (params where 2-D and not of T rows), at kv_len = KV_LEN."""
    b = Builder("op", ctx=CTX, chunk=4)
    values = {}
    for name, array in arrays.items():
        shape = (b.token, *array.shape[1:]) if array.shape[0] == T else array.shape
        values[name] = b.input(name, shape, "i32" if array.dtype == np.int32 else "f16")
    for name, array in caches.items():
        values[name] = b.kv(name, array.shape)
    graph = b.finish(out=model(b, values))
    state = {**new_state(graph), **{name: array.copy() for name, array in caches.items()}}
    return evaluate(graph, {}, {**arrays, "kv_len": KV_LEN, "head_rows": 2}, state)["out"]


def erf_gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def slow_attention(window: int = CTX, cap: float = 0, slopes: list[float] | None = None) -> np.ndarray:
    out = np.zeros_like(HEADS)
    for t in range(T):
        for h in range(4):
            seen = KV_LEN + t + 1
            visible = range(max(0, seen - window), seen)
            scores = [float(HEADS[t, h] @ K_CACHE[h // 2, s]) * 0.25 for s in visible]
            if cap:
                scores = [cap * math.tanh(score / cap) for score in scores]
            if slopes:
                scores = [score - slopes[h] * (KV_LEN + t - s) for score, s in zip(scores, visible, strict=True)]
            p = np.exp(np.array(scores) - max(scores))
            out[t, h] = sum(weight / p.sum() * V_CACHE[h // 2, s] for weight, s in zip(p, visible, strict=True))
    return out


def slow_rope(x: np.ndarray, rot: int, interleaved: bool) -> np.ndarray:
    out = x.copy()
    for t in range(T):
        for j in range(rot // 2):
            angle = (KV_LEN + t) * 100.0 ** (-2 * j / rot)
            first, second = (2 * j, 2 * j + 1) if interleaved else (j, j + rot // 2)
            a, b = x[t, :, first], x[t, :, second]
            out[t, :, first] = a * math.cos(angle) - b * math.sin(angle)
            out[t, :, second] = b * math.cos(angle) + a * math.sin(angle)
    return out


def appended() -> np.ndarray:
    cache = K_CACHE.copy()
    for t in range(T):
        cache[:, KV_LEN + t] = ROWS[t]
    return cache


def slow_moe(renormalize: bool) -> np.ndarray:
    out = np.zeros_like(X)
    for t in range(T):
        p = [math.exp(route) for route in ROUTES[t]]
        chosen = sorted(range(4), key=lambda e: (-p[e], e))[:2]
        total = sum(p[e] for e in chosen) if renormalize else sum(p)
        for e in chosen:
            inner = np.maximum(EXPERTS["gate"][e] @ X[t], 0) * (EXPERTS["up"][e] @ X[t])
            out[t] += p[e] / total * (EXPERTS["down"][e] @ inner)
    return out


POSITIONS = RNG.standard_normal((CTX, D)).astype(np.float32)
ROUTES = np.array([[0, 2, 2, 2], [1, 0, 3, -1], [0, 0, 0, 0]], dtype=np.float32)
EXPERTS = {"gate": RNG.standard_normal((4, 5, D)).astype(np.float32),
           "up": RNG.standard_normal((4, 5, D)).astype(np.float32),
           "down": RNG.standard_normal((4, D, 5)).astype(np.float32)}  # fmt: skip
ORDER = np.array([3, 1, 0, 2, 7, 7, 5, 6], dtype=np.int32)
ATTENTION = {"k": K_CACHE, "v": V_CACHE}
IDS = np.array([5, 0, 5], dtype=np.int32)
SILU = 1 / (1 + np.exp(-X.astype(np.float64))) * X

# op, case, inputs, the call, the expected array, caches
CASES: list[tuple[str, dict[str, Any], Callable[[Builder, dict[str, Value]], Value], Any, dict[str, Any]]] = [
    ("embedding", {"i": IDS, "w": W}, lambda b, v: b.embedding(v["i"], v["w"]), W[IDS], {}),
    ("linear", {"x": X, "w": W}, lambda b, v: b.linear(v["x"], v["w"]), X @ W.T, {}),
    (
        "linear",
        {"x": X, "w": W[:D], "c": W[:, 0], "r": (X @ W.T)},
        lambda b, v: b.linear(v["x"], v["w"], v["c"], v["r"], aux_mode="mul", act="relu", scale=0.5),
        np.maximum(X @ W.T * 0.5 + W[:, 0], 0) * (X @ W.T),
        {},
    ),
    (
        "linear",
        {"x": X, "w": W, "r": X @ W.T},
        lambda b, v: b.linear(v["x"], v["w"], aux=v["r"], aux_mode="add", act="tanh"),
        np.tanh(X @ W.T) + X @ W.T,
        {},
    ),
    (
        "rms_norm",
        {"x": X, "g": GAMMA},
        lambda b, v: b.rms_norm(v["x"], v["g"], eps=0.1),
        X / np.sqrt((X**2).sum(-1, keepdims=True) / D + 0.1) * GAMMA,
        {},
    ),
    (
        "layer_norm",
        {"x": X, "g": GAMMA, "c": BETA},
        lambda b, v: b.layer_norm(v["x"], v["g"], v["c"], eps=0.1),
        (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 0.1) * GAMMA + BETA,
        {},
    ),
    (
        "rope",
        {"x": HEADS},
        lambda b, v: b.rope(v["x"], b.rotary(D, theta=100.0), rotary_dim=D),
        slow_rope(HEADS, D, False),
        {},
    ),
    (
        "rope",
        {"x": HEADS},
        lambda b, v: b.rope(v["x"], b.rotary(4, theta=100.0), rotary_dim=4, interleaved=True),
        slow_rope(HEADS, 4, True),
        {},
    ),
    ("kv_append", {"x": ROWS}, lambda b, v: b.kv_append(v["k"], v["x"]), appended(), {"k": K_CACHE}),
    (
        "attention",
        {"q": HEADS},
        lambda b, v: b.attention(v["q"], v["k"], v["v"], scale=0.25),
        slow_attention(),
        ATTENTION,
    ),
    ("reshape", {"x": HEADS}, lambda b, v: b.reshape(v["x"], shape=(b.token, 32)), HEADS.reshape(T, 32), {}),
    ("last_rows", {"x": X}, lambda b, v: b.last_rows(v["x"], count=b.head_rows), X[1:], {}),
    ("slice", {"x": X}, lambda b, v: b.slice(v["x"], start=2, size=5), X[:, 2:7], {}),
    ("slice", {"x": HEADS}, lambda b, v: b.slice(v["x"], start=0, size=1), HEADS[:, :, :1], {}),
    ("add", {"x": X, "y": Y}, lambda b, v: b.add(v["x"], v["y"]), X + Y, {}),
    ("add", {"x": X, "g": GAMMA}, lambda b, v: b.add(v["x"], v["g"]), X + GAMMA, {}),
    ("mul", {"x": X, "y": Y}, lambda b, v: b.mul(v["x"], v["y"]), X * Y, {}),
    ("scale", {"x": X}, lambda b, v: b.scale(v["x"], value=-2), X * -2, {}),
    ("act", {"x": X}, lambda b, v: b.act(v["x"], fn="silu"), SILU, {}),
    ("act", {"x": X}, lambda b, v: b.act(v["x"], fn="gelu"), np.vectorize(erf_gelu)(X), {}),
    ("act", {"x": X}, lambda b, v: b.act(v["x"], fn="sigmoid"), 1 / (1 + np.exp(-X)), {}),
    ("act", {"x": X}, lambda b, v: b.act(v["x"], fn="softcap(0.5)"), 0.5 * np.tanh(X / 0.5), {}),
    ("layer_norm", {"x": X, "g": GAMMA}, lambda b, v: b.layer_norm(v["x"], v["g"], eps=0.1),
     (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 0.1) * GAMMA, {}),
    ("attention", {"q": HEADS}, lambda b, v: b.attention(v["q"], v["k"], v["v"], scale=0.25, window=4),
     slow_attention(window=4), ATTENTION),
    ("attention", {"q": HEADS}, lambda b, v: b.attention(v["q"], v["k"], v["v"], scale=0.25, softcap=0.5),
     slow_attention(cap=0.5), ATTENTION),
    ("attention", {"q": HEADS},
     lambda b, v: b.attention(v["q"], v["k"], v["v"], scale=0.25, alibi=8.0, alibi_scale=0.5),
     slow_attention(slopes=[0.125, 2**-5, 2**-7, 2**-9]), ATTENTION),
    ("add_positions", {"x": X, "w": POSITIONS}, lambda b, v: b.add_positions(v["x"], v["w"]), X + POSITIONS[5:8], {}),
    ("moe", {"x": X, "l": ROUTES, **EXPERTS},
     lambda b, v: b.moe(v["x"], v["l"], v["gate"], v["up"], v["down"], top_k=2, act="relu"), slow_moe(True), {}),
    ("moe", {"x": X, "l": ROUTES, **EXPERTS},
     lambda b, v: b.moe(v["x"], v["l"], v["gate"], v["up"], v["down"], top_k=2, act="relu", renormalize=False),
     slow_moe(False), {}),
    ("permute", {"x": HEADS, "i": ORDER}, lambda b, v: b.permute(v["x"], v["i"]), HEADS[..., ORDER], {}),
    ("argmax", {"x": np.round(X)}, lambda b, v: b.argmax(v["x"]), [list(r).index(max(r)) for r in np.round(X)], {}),
    ("copy", {"x": X}, lambda b, v: b.copy(v["x"]), X, {}),
]


@pytest.mark.parametrize(("op", "arrays", "model", "expected", "caches"), CASES, ids=[c[0] for c in CASES])
def test_meaning(op: str, arrays: Any, model: Any, expected: Any, caches: Any) -> None:
    np.testing.assert_allclose(run(arrays, model, caches), expected, rtol=2e-5, atol=3e-3 if op == "rope" else 2e-6)


def test_every_op_has_a_case_and_a_text() -> None:
    assert {case[0] for case in CASES} == set(OPS)
    assert all(op.doc and op.name == name for name, op in OPS.items())


def test_gelu_tanh_is_close_to_gelu() -> None:
    tanh = run({"x": X}, lambda b, v: b.act(v["x"], fn="gelu_tanh"), {})
    np.testing.assert_allclose(tanh, np.vectorize(erf_gelu)(X), atol=1e-3)


def test_rotary_table_rows() -> None:
    table = rotary_table(ctx=4, dim=6, theta=10000.0)
    assert table.shape == (4, 6)
    np.testing.assert_array_equal(table[0], [1, 1, 1, 0, 0, 0])
    assert table[3, 4] == math.sin(3 * 10000 ** (-2 / 6))  # not rounded: the device's table is, in constant_array


REFUSALS: list[tuple[Callable[[Builder, Value, Value], object], str]] = [
    (
        lambda b, x, w: b.linear(x, w),
        r"linear at layer 3 / q_proj: w expected f16\|f32\|FORMAT\[6, 8\], got f16\[6, 7\] "
        r"\(operands x: f16\[token, 8\], w: f16\[6, 7\]\)",
    ),
    (lambda b, x, w: b.linear(x, x.type), r"operand w expected a value, got Type"),
    (lambda b, x, w: b.linear(x), r"linear at layer 3 / linear: expected an operand 'w', got \['x'\]"),
    (lambda b, x, w: b.add(x, w, w), r"add: expected operands \('a', 'b'\), got 3"),
    (lambda b, x, w: b.embedding(x, w), r"embedding at layer 3 / embedding: ids expected i32 with 1 axes, got"),
    (lambda b, x, w: b.act(x, fn="selu"), r"act at layer 3 / act: attribute fn expected one of \('silu', .*got 'selu'"),
    (lambda b, x, w: b.act(x), r"attribute fn expected .*, got none"),
    (lambda b, x, w: b.scale(x, value=True), r"attribute value expected a number that float32 holds, got True"),
    (lambda b, x, w: b.scale(x, value=float("nan")), r"got nan"),
    (lambda b, x, w: b.scale(x, value=1e39), r"attribute value expected a number that float32 holds, got 1e\+39"),
    (lambda b, x, w: b.scale(x, value=10**400), r"expected a number that float32 holds, got 1000"),
    (lambda b, x, w: b.rotary(8, theta=-2.0), r"constant rotary: theta expected a number above 0 .*, got -2.0"),
    (lambda b, x, w: b.param("p", (b.token, 4)), r"param p: extents expected positive integers, got f16\[token, 4\]"),
    (lambda b, x, w: b.param("p", (0, 4)), r"param p: extents expected positive integers, got f16\[0, 4\]"),
    (lambda b, x, w: b.kv("k", (2, b.token, 4)), r"kv k: extents expected positive integers"),
    (lambda b, x, w: b.input("i", (b.token, -1), "f16"), r"input i: extents expected positive integers"),
    (lambda b, x, w: b.scale(x, factor=2.0), r"scale .* attributes among \['value'\], got 'factor'"),
    (lambda b, x, w: b.reshape(x, shape=(b.token, 9)), r"shape expected 8 \* token elements, got \[token, 9\] \("),
    (lambda b, x, w: b.reshape(x, shape=8), r"attribute shape expected a value of kind shape, got 8"),
    (lambda b, x, w: b.last_rows(x, count=5), r"count expected within 0..token, got 5 \("),
    (
        lambda b, x, w: b.slice(x, start=4, size=5),
        r"slice at layer 3 / slice: start and size expected a part of 0..8, got \[4, 5\] \(",
    ),
    (lambda b, x, w: b.slice(x, start=-1, size=2), r"start and size expected a part of 0..8, got \[-1, 2\]"),
    (lambda b, x, w: b.slice(x, start=3, size=0), r"start and size expected a part of 0..8, got \[3, 0\]"),
    (lambda b, x, w: b.slice(x, start=0), r"slice at .*: attribute size expected a value of kind int, got none"),
    (lambda b, x, w: b.slice(x, start=0.5, size=1), r"attribute start expected a value of kind int, got 0.5"),
    (lambda b, x, w: b.rope(x, w, rotary_dim=4), r"rope at .*: x expected f16\|f32 with 3 axes"),
    (
        lambda b, x, w: b.rope(b.reshape(x, shape=(b.token, 1, 8)), b.rotary(8), rotary_dim=5),
        r"rotary_dim expected even, 2..8, got 5 \(",
    ),
    (
        lambda b, x, w: b.linear(x, b.param("v", (8, 8)), aux=x),
        r"aux and aux_mode expected both or neither, got 'none'",
    ),
    (lambda b, x, w: b.add(x, w), r"b expected f16\|f32\[token, 8\], got f16\[6, 7\]"),
    (lambda b, x, w: b.rms_norm(x, w, eps=1e-5), r"gamma expected f16\|f32\[8\]"),
    (
        lambda b, x, w: b.attention(
            b.reshape(x, shape=(b.token, 2, 4)), b.kv("k", (3, CTX, 4)), b.kv("v", (3, CTX, 4)), scale=1.0
        ),
        r"heads expected a multiple of 3 kv heads, got 2 \(",
    ),
    (
        lambda b, x, w: b.attention(
            b.reshape(x, shape=(b.token, 2, 4)), b.kv("k", (1, CTX, 4)), b.kv("v", (1, CTX, 4)), scale=1.0, window=-1
        ),
        r"attention at .*: window expected at least 0, got -1",
    ),
    (lambda b, x, w: b.act(x, fn="softcap(0.0)"), r"attribute fn expected one of .*, got 'softcap\(0.0\)'"),
    (lambda b, x, w: b.add_positions(x, w), r"add_positions at .*: table expected f16\|f32\[6, 8\], got f16\[6, 7\]"),
    (
        lambda b, x, w: b.moe(x, b.input("l", (b.token, 2), "f16"), b.param("g", (2, 3, 8)), b.param("u", (2, 3, 8)),
                              b.param("d", (2, 8, 3)), top_k=3, act="silu"),
        r"moe at .*: top_k expected 1..2, got 3",
    ),
    (
        lambda b, x, w: b.moe(x, b.input("l", (b.token, 2), "f16"), b.param("g", (2, 3, 8)), b.param("u", (2, 3, 8)),
                              b.param("d", (2, 3, 8)), top_k=1, act="silu"),
        r"moe at .*: down expected f16\|f32\|FORMAT\[2, 8, 3\], got f16\[2, 3, 8\]",
    ),
    (lambda b, x, w: b.permute(x, w), r"permute at .*: index expected i32\[8\], got f16\[6, 7\]"),
    (lambda b, x, w: b.kv_append(b.kv("k", (2, CTX, 8)), x), r"kv_append at .*: x expected f16\|f32\[token, 2, 8\]"),
]


@pytest.mark.parametrize(("call", "message"), REFUSALS)
def test_shape_errors_name_op_place_and_shapes(call: Any, message: str) -> None:
    b = Builder("bad", ctx=CTX, chunk=4)
    x, w = b.input("x", (b.token, 8), "f16"), b.param("model.layers.3.q_proj.weight", (6, 7))
    with pytest.raises(DlavmError, match=message), b.scope("layer 3"):
        call(b, x, w)


def test_unknown_op_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no op 'convolve'"):
        Builder("bad", ctx=4, chunk=4).convolve  # noqa: B018
