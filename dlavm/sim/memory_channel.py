"""A memory channel's timing (clib/include/dlavm/memory_timing.h) over cffi: addresses in, cycles of the beats out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlavm.support.errors import DlavmError
from dlavm.support.native import load
from dlavm.target.memory_timing import FIELDS

NEVER = (1 << 64) - 1
KINDS = ("activate", "precharge", "read", "write", "refresh")

_CDEF = f"""
typedef struct {{ uint32_t {', '.join(FIELDS)}; }} dlavm_memory_timing;
typedef struct dlavm_memory_channel dlavm_memory_channel;
typedef struct {{ uint64_t clock, row; uint32_t kind, bank; }} dlavm_memory_command;
const char *dlavm_memory_problem(const dlavm_memory_timing *timing);
dlavm_memory_channel *dlavm_memory_open(const dlavm_memory_timing *timing);
void dlavm_memory_close(dlavm_memory_channel *channel);
int dlavm_memory_read_room(dlavm_memory_channel *channel, uint64_t cycle);
int dlavm_memory_write_room(dlavm_memory_channel *channel, uint64_t cycle);
void dlavm_memory_read(dlavm_memory_channel *channel, uint64_t cycle, uint64_t address, uint32_t beats);
void dlavm_memory_write(dlavm_memory_channel *channel, uint64_t cycle, uint64_t address, uint32_t beats);
void dlavm_memory_write_beat(dlavm_memory_channel *channel, uint64_t cycle);
uint64_t dlavm_memory_next_beat(const dlavm_memory_channel *channel);
uint64_t dlavm_memory_next_response(const dlavm_memory_channel *channel);
uint64_t dlavm_memory_next_write_room(const dlavm_memory_channel *channel);
int dlavm_memory_beat_ready(dlavm_memory_channel *channel, uint64_t cycle);
int dlavm_memory_response_ready(dlavm_memory_channel *channel, uint64_t cycle);
void dlavm_memory_take_beat(dlavm_memory_channel *channel);
void dlavm_memory_take_response(dlavm_memory_channel *channel);
void dlavm_memory_record(dlavm_memory_channel *channel);
uint64_t dlavm_memory_recorded(dlavm_memory_channel *channel, const dlavm_memory_command **out);
"""


@dataclass(frozen=True)
class BankCommand:
    """`clock` of the memory; `kind` is one of KINDS; `bank` counts through the groups."""

    clock: int
    kind: str
    bank: int
    row: int


class MemoryChannel:
    """The functions of the header; `timing` has a number for each of its FIELDS. Raises DlavmError for one unsound."""

    def __init__(self, timing: Mapping[str, int], record: bool = False) -> None:
        self._ffi, self._lib = load(_CDEF)
        values = self._ffi.new("dlavm_memory_timing *", dict(timing))
        problem = self._lib.dlavm_memory_problem(values)
        if problem != self._ffi.NULL:
            raise DlavmError(f"memory timing: {self._ffi.string(problem).decode()}")
        self._channel = self._ffi.gc(self._lib.dlavm_memory_open(values), self._lib.dlavm_memory_close)
        if record:
            self._lib.dlavm_memory_record(self._channel)

    def __getattr__(self, name: str) -> Any:
        """read_room(cycle) .. take_response(), as in the header."""
        if name.startswith("_"):
            raise AttributeError(name)
        function = getattr(self._lib, f"dlavm_memory_{name}")
        return lambda *values: function(self._channel, *values)

    def commands(self) -> list[BankCommand]:
        """What the banks were told since the channel was opened to record, in the order of the decisions."""
        out = self._ffi.new("const dlavm_memory_command **")
        count = self._lib.dlavm_memory_recorded(self._channel, out)
        rows = (out[0][i] for i in range(count))
        return [BankCommand(int(c.clock), KINDS[c.kind], int(c.bank), int(c.row)) for c in rows]
