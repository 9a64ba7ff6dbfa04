"""The C++ timing of the memory fabric (clib/include/dlavm/fabric_timing.h) over cffi."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlavm.support.native import load
from dlavm.target.memory_timing import FIELDS

_CDEF = f"""
typedef struct {{ uint32_t {', '.join(FIELDS)}; }} dlavm_memory_timing;
typedef struct {{ uint64_t base, capacity; uint32_t channels; dlavm_memory_timing timing; }} dlavm_fabric_space;
typedef struct {{ uint32_t readers, writers, units, spaces; dlavm_fabric_space space[4]; }} dlavm_fabric_shape;
typedef struct dlavm_fabric dlavm_fabric;
dlavm_fabric *dlavm_fabric_open(const dlavm_fabric_shape *shape);
void dlavm_fabric_close(dlavm_fabric *fabric);
int dlavm_fabric_read_room(const dlavm_fabric *fabric, uint32_t client);
int dlavm_fabric_beat(const dlavm_fabric *fabric, uint32_t client);
int dlavm_fabric_last(const dlavm_fabric *fabric, uint32_t client);
int dlavm_fabric_write_room(const dlavm_fabric *fabric, uint32_t client);
int dlavm_fabric_beat_room(const dlavm_fabric *fabric, uint32_t client);
int dlavm_fabric_idle(const dlavm_fabric *fabric, uint32_t client);
void dlavm_fabric_read(dlavm_fabric *fabric, uint32_t client, uint64_t address, uint32_t units);
void dlavm_fabric_take(dlavm_fabric *fabric, uint32_t client);
void dlavm_fabric_write(dlavm_fabric *fabric, uint32_t client, uint64_t address, uint32_t units);
void dlavm_fabric_put(dlavm_fabric *fabric, uint32_t client);
void dlavm_fabric_step(dlavm_fabric *fabric);
"""

class Fabric:
    """Called with a function's name, the client and its arguments. `spaces`: base, capacity, channels, timing."""

    def __init__(self, readers: int, writers: int, units: int,
                 spaces: Sequence[tuple[int, int, int, dict[str, int]]]) -> None:  # fmt: skip
        self._ffi, self._lib = load(_CDEF)
        named = [dict(zip(("base", "capacity", "channels", "timing"), space, strict=True)) for space in spaces]
        shape = {"readers": readers, "writers": writers, "units": units, "spaces": len(named), "space": named}
        opened = self._lib.dlavm_fabric_open(self._ffi.new("dlavm_fabric_shape *", shape))
        if opened == self._ffi.NULL:
            raise ValueError("no fabric of this shape")
        self._fabric = self._ffi.gc(opened, self._lib.dlavm_fabric_close)

    def __call__(self, name: str, *values: int) -> Any:
        return getattr(self._lib, f"dlavm_fabric_{name}")(self._fabric, *values)
