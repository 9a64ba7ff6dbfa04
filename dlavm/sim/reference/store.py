"""Store engine: KV_APPEND, GATHER, COPY, LOAD_TABLE; but for an MXINT8 cache they move bytes unchanged."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK
from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.numerics import F32, load16, load32, quantize
from dlavm.target.layout import KV_FORMATS, KvFormat, ceildiv
from dlavm.target.spec import ADDRESS_UNIT, TargetSpec
from dlavm.target.tables import SEGMENTS

STORED_BITS = 8  # mantissas of an MXINT8 cache
EXPONENT_BIAS = 127
Fields = Mapping[str, int]


class StoreEngine:
    def __init__(self, spec: TargetSpec, memory: FlatMemory) -> None:
        self._memory = memory
        self._kv_formats = {number: KV_FORMATS[name] for name, number in spec.enums["kv_format"].items()}

    def kv_append(self, f: Fields) -> str:
        if not (f["rows_o"] and f["rows_i"] and f["dim"]):
            return ""
        form, units = self._kv_formats[f["format"]], ceildiv(f["dim"], BLOCK)
        strides = (f["src_so"] * ADDRESS_UNIT, f["src_si"] * ADDRESS_UNIT)
        src = self._memory.rows(f["src"] * ADDRESS_UNIT, (f["rows_o"], f["rows_i"]), strides, f["dim"]).copy()
        writes = []  # every address is checked before the first byte is written
        for o in range(f["rows_o"]):
            block, slot = divmod(f["pos"] + o, BLOCK)
            base = f["cache"] * ADDRESS_UNIT + block * form.block_bytes(units)
            for offset, values in _stored(src[o], form, units, slot):
                writes.append((self._heads(f, base + offset, values), values))
        for place, values in writes:
            place[...] = values
        return ""

    def _heads(self, f: Fields, address: int, values: NDArray[Any]) -> NDArray[np.generic]:
        """The places of `values` [heads, n] in the blocks of all heads."""
        strides = (f["cache_head"] * ADDRESS_UNIT,)
        return self._memory.rows(address, (f["rows_i"],), strides, values.shape[1], values.dtype.type)

    def gather(self, f: Fields) -> str:
        if not (f["rows_o"] and f["dim"]):
            return ""
        ids = self._memory.bytes(f["ids"] * ADDRESS_UNIT, 4 * f["rows_o"]).view(np.uint32)
        dst = self._memory.rows(f["dst"] * ADDRESS_UNIT, (f["rows_o"],), (f["dst_so"] * ADDRESS_UNIT,), f["dim"])
        if (ids >= f["limit"]).any():
            return "gather_index"
        addresses = [(f["table"] + index * f["table_so"]) * ADDRESS_UNIT for index in ids.tolist()]
        rows = [self._memory.bytes(a, 2 * f["dim"]).view(np.uint16).copy() for a in addresses]
        for row, values in zip(dst, rows, strict=True):
            row[...] = values
        return ""

    def copy(self, f: Fields) -> str:
        if not (f["rows_o"] and f["rows_i"] and f["dim"]):
            return ""
        counts = (f["rows_o"], f["rows_i"])
        src = self._memory.rows(f["src"] * ADDRESS_UNIT, counts,
                                (f["src_so"] * ADDRESS_UNIT, f["src_si"] * ADDRESS_UNIT), f["dim"]).copy()
        self._memory.rows(f["dst"] * ADDRESS_UNIT, counts,
                          (f["dst_so"] * ADDRESS_UNIT, f["dst_si"] * ADDRESS_UNIT), f["dim"])[...] = src
        return ""

    def load_table(self, f: Fields) -> F32:
        """float32[2048, 2]: base and slope of every segment."""
        bits = self._memory.bytes(f["table"] * ADDRESS_UNIT, SEGMENTS * 8).view(np.uint32)
        return load32(bits).reshape(SEGMENTS, 2)


def _stored(rows: NDArray[Any], form: KvFormat, units: int, slot: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """What a token's rows [heads, dim] are in its block, and at which byte of it."""
    if not form.exponent_bytes:
        for unit in range(units):
            yield unit * form.unit_bytes + slot * form.row_bytes, rows[:, unit * BLOCK:(unit + 1) * BLOCK]
        return
    mantissas, exponents = quantize(load16(rows), STORED_BITS)
    for unit in range(units):
        yield (unit * BLOCK + slot) * form.row_bytes, mantissas[:, unit].astype(np.int8)
    for unit in range(units):
        stored = exponents[:, unit:unit + 1] + (STORED_BITS - 2 + EXPONENT_BIAS)
        yield units * BLOCK * form.row_bytes + unit * BLOCK + slot, stored.astype(np.uint8)
