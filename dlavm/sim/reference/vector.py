"""Vector engine: NORM, SOFTMAX, ROPE, ACT, ELTWISE, ARGMAX, PERMUTE, TOPK (doc/numerics.md sections 4 to 8)."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK
from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.numerics import (
    F16,
    F32,
    activation,
    add,
    exp,
    lane_sum,
    load16,
    load32,
    mul,
    reciprocal,
    rn16,
    rsqrt,
    sub,
)
from dlavm.target.spec import ADDRESS_UNIT, TargetSpec

Fields = Mapping[str, int]


def immediate(bits: int) -> np.float32:
    """The float32 that an immediate field holds (section 1: exponent 255 saturates)."""
    return np.float32(load32(np.array([bits], dtype=np.uint32))[0])


class VectorEngine:
    def __init__(self, spec: TargetSpec, memory: FlatMemory) -> None:
        self._memory = memory
        self._enums = {name: {v: k for k, v in values.items()} for name, values in spec.enums.items()}

    def _rows(self, f: Fields, name: str, length: int, batched: bool = False) -> NDArray[np.uint16]:
        """The row set `name` (src, dst, b) as a view [batch?, rows_o, rows_i, length]."""
        strides = tuple(f[name + s] * ADDRESS_UNIT for s in (("_b",) if batched else ()) + ("_so", "_si"))
        counts = ((f["batch"],) if batched else ()) + (f["rows_o"], f["rows_i"])
        return self._memory.rows(f[name] * ADDRESS_UNIT, counts, strides, length)  # type: ignore[return-value]

    def _load(self, f: Fields, name: str, length: int, batched: bool = False) -> F32:
        return load16(np.ascontiguousarray(self._rows(f, name, length, batched)))

    def _store(self, f: Fields, y: F16, batched: bool = False) -> None:
        self._rows(f, "dst", y.shape[-1], batched)[...] = y.view(np.uint16)

    def _vector(self, address: int, length: int) -> F32:
        return load16(self._memory.bytes(address * ADDRESS_UNIT, 2 * length).view(np.uint16))

    def norm(self, f: Fields) -> str:
        if not (f["rows_o"] and f["rows_i"] and f["dim"]):
            return ""
        x = self._load(f, "src", f["dim"])
        inv_n, eps = immediate(f["inv_n"]), immediate(f["eps"])
        if self._enums["norm_kind"][f["norm"]] == "layer":
            x = sub(x, mul(lane_sum(x), inv_n)[..., None])
        r = rsqrt(add(mul(lane_sum(mul(x, x)), inv_n), eps))
        y = mul(mul(x, r[..., None]), self._vector(f["gamma"], f["dim"]))
        if f["use_beta"]:
            y = add(y, self._vector(f["beta"], f["dim"]))
        self._store(f, rn16(y))
        return ""

    def softmax(self, f: Fields) -> str:
        if not (f["rows_o"] and f["rows_i"] and f["batch"]):
            return ""
        if not f["visible"] or not f["width"]:
            return "field_range"
        s = self._load(f, "src", f["width"], batched=True)
        slopes = self._slopes(f) if f["use_slopes"] else None
        p = np.zeros(s.shape, dtype=np.float16)
        recip = np.zeros(s.shape[:-1], dtype=np.float32)
        for o in range(f["rows_o"]):
            seen = min(f["visible"] + o, f["width"])
            first = max(0, seen - f["window"]) if f["window"] else 0
            scores = s[:, o, :, first:seen]
            if slopes is not None:
                scores = add(scores, mul(slopes, np.arange(first - seen + 1, 1, dtype=np.float32)))
            p[:, o, :, first:seen] = rn16(exp(sub(scores, scores.max(axis=-1, keepdims=True))))
            block = first // BLOCK * BLOCK
            recip[:, o] = reciprocal(lane_sum(p[:, o, :, block:seen].astype(np.float32)))
        reciprocals = self._memory.bytes(f["recip"] * ADDRESS_UNIT, recip.nbytes)
        self._store(f, p, batched=True)
        reciprocals[...] = recip.reshape(-1).view(np.uint8)
        return ""

    def _slopes(self, f: Fields) -> F32:
        """[batch, rows_i, 1]"""
        bits = self._memory.bytes(f["slopes"] * ADDRESS_UNIT, 4 * f["batch"] * f["rows_i"]).view(np.uint32)
        return load32(bits).reshape(f["batch"], f["rows_i"], 1)

    def rope(self, f: Fields) -> str:
        if not (f["rows_o"] and f["rows_i"] and f["dim"]):
            return ""
        half = f["rot"] // 2
        if f["rot"] % 2 or f["rot"] > f["dim"]:
            return "field_range"
        x = self._load(f, "src", f["dim"])
        y = np.ascontiguousarray(self._rows(f, "src", f["dim"])).view(np.float16).copy()
        table = self._memory.rows(f["table"] * ADDRESS_UNIT, (f["rows_o"],), (f["table_so"] * ADDRESS_UNIT,), f["rot"])
        cos_sin = load16(np.ascontiguousarray(table))[:, None, :]
        c, s = cos_sin[..., :half], cos_sin[..., half:]
        if self._enums["rope_form"][f["form"]] == "half":
            first, second = slice(0, half), slice(half, 2 * half)
        else:
            first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        a, b = x[..., first], x[..., second]
        y[..., first] = rn16(sub(mul(a, c), mul(b, s)))
        y[..., second] = rn16(add(mul(b, c), mul(a, s)))
        self._store(f, y)
        return ""

    def act(self, f: Fields, tables: list[F32]) -> str:
        if f["rows_o"] and f["rows_i"] and f["dim"]:
            self._store(f, rn16(activation(self._load(f, "src", f["dim"]), tables[f["act_slot"]])))
        return ""

    def eltwise(self, f: Fields) -> str:
        if not (f["rows_o"] and f["rows_i"] and f["dim"]):
            return ""
        x = self._load(f, "src", f["dim"])
        fn = self._enums["eltwise_fn"].get(f["fn"])
        if fn is None:
            return "field_range"
        if fn == "scale":
            y = mul(x, immediate(f["scale"]))
        else:
            y = (add if fn == "add" else mul)(x, self._load(f, "b", f["dim"]))
        self._store(f, rn16(y))
        return ""

    def argmax(self, f: Fields) -> str:
        if not (f["rows_o"] and f["n"]):
            return ""
        rows = self._memory.rows(f["src"] * ADDRESS_UNIT, (f["rows_o"],), (f["src_so"] * ADDRESS_UNIT,), f["n"])
        best = load16(np.ascontiguousarray(rows)).argmax(axis=-1).astype(np.uint32)  # the first of equals
        self._memory.bytes(f["dst"] * ADDRESS_UNIT, best.nbytes)[...] = best.view(np.uint8)
        return ""

    def permute(self, f: Fields) -> str:
        if not (f["rows_o"] and f["rows_i"] and f["dim"]):
            return ""
        index = self._memory.bytes(f["index"] * ADDRESS_UNIT, 4 * f["dim"]).view(np.uint32)
        if (index >= f["limit"]).any():
            return "gather_index"
        src = np.ascontiguousarray(self._rows(f, "src", f["limit"]))
        self._rows(f, "dst", f["dim"])[...] = src[..., index]
        return ""

    def topk(self, f: Fields) -> str:
        if not (f["rows_o"] and f["n"] and f["k"]):
            return ""
        if f["k"] > f["n"]:
            return "field_range"
        rows = self._memory.rows(f["src"] * ADDRESS_UNIT, (f["rows_o"],), (f["src_so"] * ADDRESS_UNIT,), f["n"])
        logits = load16(np.ascontiguousarray(rows))
        chosen = np.argsort(-logits, axis=-1, kind="stable")[:, :f["k"]].astype(np.uint32)
        powers = exp(sub(logits, logits.max(axis=-1, keepdims=True)))
        weights = np.take_along_axis(powers, chosen.astype(np.int64), axis=-1)
        if f["renormalize"]:
            total = np.zeros(f["rows_o"], dtype=np.float32)
            for rank in range(f["k"]):
                total = add(total, weights[:, rank])
        else:
            total = lane_sum(powers)
        weights = mul(weights, reciprocal(total)[:, None])
        places = [self._memory.bytes(f[name] * ADDRESS_UNIT, chosen.nbytes) for name in ("ids", "weights")]
        for place, values in zip(places, (chosen, weights), strict=True):
            place[...] = values.reshape(-1).view(np.uint8)
        return ""
