"""LINEAR: doc/numerics.md section 3."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK, FORMATS
from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.numerics import (
    F32,
    I32,
    activation,
    add,
    load16,
    load32,
    mul,
    power_of_two,
    quantize,
    rn16,
)
from dlavm.sim.reference.store import EXPONENT_BIAS, STORED_BITS
from dlavm.sim.reference.weights import read_weights
from dlavm.target.layout import ceildiv
from dlavm.target.spec import ADDRESS_UNIT, TargetSpec

KEY_BITS = 12  # mantissas of keys and values of an fp16 cache, in either mode of the activations
EXPONENTS = (-24, 15)  # of an MXINT8 cache: those that fp16 numbers can have; others read as the nearer one
Fields = Mapping[str, int]


class MatrixEngine:
    def __init__(self, spec: TargetSpec, memory: FlatMemory) -> None:
        self._memory = memory
        self._board = spec.board
        self._formats = {v: k for k, v in spec.enums["weight_format"].items()}
        self._aux_modes = {v: k for k, v in spec.enums["aux_mode"].items()}
        self._act_bits = {v: int(k[1:]) for k, v in spec.enums["act_bits"].items()}
        self._accumulators: F32
        self.reset()

    def linear(self, f: Fields, tables: list[F32]) -> str:
        """Executes LINEAR; returns the name of an error, or '' if it went well."""
        rows = f["rows_o"] * f["rows_i"]
        if not (rows and f["n"] and f["batch"]):
            return ""
        form = self._formats[f["format"]]
        if problem := self._check(f, form, rows):
            return problem
        counts = (f["batch"], f["rows_o"], f["rows_i"])
        strides = tuple(f[s] * ADDRESS_UNIT for s in ("src_b", "src_so", "src_si"))
        src = self._memory.rows(f["src"] * ADDRESS_UNIT, counts, strides, f["k"])
        x = load16(np.ascontiguousarray(src)).reshape(f["batch"], rows, f["k"])
        start = self._accumulators if f["acc_in"] else np.zeros((rows, f["n"]), dtype=np.float32)
        product = KEYS_VALUES.get(form, MatrixEngine._weights)
        acc = np.stack([product(self, f, b, x[b], start) for b in range(f["batch"])])
        if f["acc_out"]:
            self._accumulators = acc[0]
            return ""
        y = self._epilogue(f, acc.reshape(*counts, f["n"]), tables)
        strides = tuple(f[s] * ADDRESS_UNIT for s in ("dst_b", "dst_so", "dst_si"))
        self._memory.rows(f["dst"] * ADDRESS_UNIT, counts, strides, f["n"])[...] = rn16(y).view(np.uint16)
        return ""

    def _check(self, f: Fields, form: str, rows: int) -> str:
        tiled = f["acc_in"] or f["acc_out"]
        if f["k"] == 0 or (tiled and (f["batch"] != 1 or form not in FORMATS)):
            return "field_range"
        if f["aux_mode"] not in self._aux_modes or (f["aux_mode"] and f["batch"] != 1):
            return "field_range"
        if KEYS_VALUES.get(form) is MatrixEngine._values:
            return "buffer" if rows * ceildiv(f["n"], BLOCK) * BLOCK > self._board.accumulators else ""
        if rows * ceildiv(f["k"], BLOCK) * BLOCK > self._board.activation_elements:
            return "buffer"
        if tiled and rows * f["n"] > self._board.accumulators:
            return "buffer"
        if f["acc_in"] and self._accumulators.shape != (rows, f["n"]):
            return "field_range"
        return self._check_weights(f) if form in FORMATS else ""

    def _check_weights(self, f: Fields) -> str:
        """Weights start at beat rows, and all batches lie in one space."""
        space = self._memory.space(f["wgt"] * ADDRESS_UNIT)
        strides = ("wgt_tile", "wgt_b") if f["batch"] > 1 else ("wgt_tile",)
        if any(f[name] * ADDRESS_UNIT % space.beat_row for name in ("wgt", *strides)):
            return "field_range"
        last = self._memory.space((f["wgt"] + (f["batch"] - 1) * f["wgt_b"]) * ADDRESS_UNIT)
        return "" if last is space else "bad_address"

    def reset(self) -> None:
        """Forgets the accumulators."""
        self._accumulators = np.zeros((0, 0), dtype=np.float32)

    def _weights(self, f: Fields, batch: int, x: F32, acc: F32) -> F32:
        m, e = quantize(x, self._act_bits[f["act_bits"]])
        address = (f["wgt"] + batch * f["wgt_b"]) * ADDRESS_UNIT
        form = FORMATS[self._formats[f["format"]]]
        w, scale = read_weights(self._memory, address, f["wgt_tile"] * ADDRESS_UNIT, f["n"], f["k"], form)
        dots = block_dots(m, w)
        for kb in range(m.shape[1]):
            part = mul(dots[kb].astype(np.float32), scale[None, :, kb * BLOCK // form.group])
            acc = add(acc, mul(part, power_of_two(e[:, kb] + form.element.unit_exponent)[:, None]))
        return acc

    def _cached(self, f: Fields, batch: int, tokens: int, dim: int) -> tuple[I32, I32]:
        """Mantissas [tokens, units, 32] and exponents [tokens, units] of the rows of one head's cache."""
        address, stride = (f["wgt"] + batch * f["wgt_b"]) * ADDRESS_UNIT, f["wgt_tile"] * ADDRESS_UNIT
        units, blocks = ceildiv(dim, BLOCK), ceildiv(tokens, BLOCK)
        if self._formats[f["format"]] in ("kv_k", "kv_v"):
            view = self._memory.rows(address, (blocks, units, BLOCK), (stride, 2048, 64), BLOCK)
            rows = load16(np.ascontiguousarray(view)).transpose(0, 2, 1, 3).reshape(-1, units * BLOCK)
            return quantize(rows[:tokens, :dim], KEY_BITS)
        mantissas = self._memory.rows(address, (blocks, units, BLOCK), (stride, 1024, 32), BLOCK, np.int8)
        stored = self._memory.rows(address + 1024 * units, (blocks, units), (stride, BLOCK), BLOCK, np.uint8)
        exponents = np.clip(stored.astype(np.int32) - EXPONENT_BIAS, *EXPONENTS) - (STORED_BITS - 2)
        by_token = (mantissas.astype(np.int32).transpose(0, 2, 1, 3), exponents.transpose(0, 2, 1))
        return by_token[0].reshape(-1, units, BLOCK)[:tokens], by_token[1].reshape(-1, units)[:tokens]

    def _keys(self, f: Fields, batch: int, x: F32, acc: F32) -> F32:
        m, e = quantize(x, self._act_bits[f["act_bits"]])
        mk, ek = self._cached(f, batch, f["n"], f["k"])
        dots = block_dots(m, mk)
        for kb in range(m.shape[1]):
            acc = add(acc, mul(dots[kb].astype(np.float32), power_of_two(e[:, kb, None] + ek[None, :, kb])))
        return acc

    def _values(self, f: Fields, batch: int, p: F32, acc: F32) -> F32:
        mv, ev = self._cached(f, batch, f["k"], f["n"])
        acc = acc.copy()
        for c in range(ceildiv(f["n"], BLOCK)):
            shifted = np.ldexp(p.astype(np.float64), ev[None, :, c])  # P with V's exponents moved in, exact
            m, e = quantize(shifted, self._act_bits[f["act_bits"]])
            columns = slice(c * BLOCK, min((c + 1) * BLOCK, f["n"]))
            v = mv[:, c, :columns.stop - columns.start]
            padded = np.zeros((m.shape[1] * BLOCK, v.shape[1]), dtype=np.int32)
            padded[:len(v)] = v
            dots = block_dots(m, padded.reshape(m.shape[1], BLOCK, -1).transpose(2, 0, 1))
            for tb in range(m.shape[1]):
                part = mul(dots[tb].astype(np.float32), power_of_two(e[:, tb])[:, None])
                acc[:, columns] = add(acc[:, columns], part)
        return acc

    def _epilogue(self, f: Fields, y: F32, tables: list[F32]) -> F32:
        """y: [batch, rows_o, rows_i, n]; the steps of section 3 in their order, before the last rounding."""
        if f["use_scale"]:
            y = mul(y, load32(np.array([f["scale"]], dtype=np.uint32)))
        if f["use_row_scale"]:
            bits = self._memory.bytes(f["row_scale"] * ADDRESS_UNIT, 4 * y[..., 0].size).view(np.uint32)
            y = mul(y, load32(bits).reshape(*y.shape[:3], 1))
        if f["use_bias"]:
            y = add(y, load16(self._memory.bytes(f["bias"] * ADDRESS_UNIT, 2 * f["n"]).view(np.uint16)))
        if f["use_act"]:
            y = activation(y, tables[f["act_slot"]])
        mode = self._aux_modes[f["aux_mode"]]
        if mode != "none":
            aux = self._memory.rows(f["aux"] * ADDRESS_UNIT, y.shape[1:3],
                                    (f["aux_so"] * ADDRESS_UNIT, f["aux_si"] * ADDRESS_UNIT), f["n"])
            y = (add if mode == "add" else mul)(y, load16(np.ascontiguousarray(aux))[None])
        return y


def block_dots(m: I32, w: NDArray[np.int32]) -> NDArray[np.float64]:
    """Exact integer dot products [blocks, rows, n] of m [rows, blocks, 32] and w [n, blocks, 32] (under 2^53)."""
    return np.matmul(m.transpose(1, 0, 2).astype(np.float64), w.transpose(1, 2, 0).astype(np.float64))


KEYS_VALUES = {"kv_k": MatrixEngine._keys, "kvq_k": MatrixEngine._keys,
               "kv_v": MatrixEngine._values, "kvq_v": MatrixEngine._values}
