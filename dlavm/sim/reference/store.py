"""Store engine: KV_APPEND, GATHER, COPY, LOAD_TABLE; they move bytes unchanged."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.numerics import F32, load32
from dlavm.target.layout import BLOCK, KV_UNIT_BYTES, ceildiv
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.target.tables import SEGMENTS

Fields = Mapping[str, int]


class StoreEngine:
    def __init__(self, memory: FlatMemory) -> None:
        self._memory = memory

    def kv_append(self, f: Fields) -> str:
        if not (f["rows_o"] and f["rows_i"] and f["dim"]):
            return ""
        units = ceildiv(f["dim"], BLOCK)
        strides = (f["src_so"] * ADDRESS_UNIT, f["src_si"] * ADDRESS_UNIT)
        src = self._memory.rows(f["src"] * ADDRESS_UNIT, (f["rows_o"], f["rows_i"]), strides, f["dim"]).copy()
        writes = []  # every address is checked before the first byte is written
        for o in range(f["rows_o"]):
            block, slot = divmod(f["pos"] + o, BLOCK)
            base = f["cache"] * ADDRESS_UNIT + block * units * KV_UNIT_BYTES + slot * 2 * BLOCK
            for unit in range(units):
                columns = slice(unit * BLOCK, min((unit + 1) * BLOCK, f["dim"]))
                heads = self._memory.rows(base + unit * KV_UNIT_BYTES, (f["rows_i"],),
                                          (f["cache_head"] * ADDRESS_UNIT,), columns.stop - columns.start)
                writes.append((heads, src[o, :, columns]))
        for heads, values in writes:
            heads[...] = values
        return ""

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
