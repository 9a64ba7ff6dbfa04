"""Short programs for the tests of the native simulator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlavm.sim.native import NativeDevice
from dlavm.target.isa import Instr, encode_program
from dlavm.target.spec import TargetSpec, load_target

PROGRAM = 0x400000  # of streams, from the base of their memory
DATA = 0x100000  # byte address of operands
STATUS_BUSY, STATUS_DONE, STATUS_ERROR = 1, 2, 4


def nano(target: str = "v3") -> TargetSpec:
    return load_target(target, "nano")


def register(spec: TargetSpec, name: str, index: int = 0) -> int:
    return spec.registers[name].offset + 4 * index


def start(device: NativeDevice, spec: TargetSpec, words: Sequence[int], args: Sequence[int] = ()) -> None:
    """Writes a stream and starts it; nothing runs yet."""
    address = spec.space("program").base + PROGRAM
    device.mem_write(address, np.array(words, dtype=np.uint32))
    device.csr_write(register(spec, "PROGRAM"), units(address))
    device.csr_write(register(spec, "PROGRAM_WORDS"), len(words))
    for i, value in enumerate(args):
        device.csr_write(register(spec, "ARG", i), value)
    device.csr_write(register(spec, "CONTROL"), 1)


def run(device: NativeDevice, spec: TargetSpec, program: Sequence[Instr], args: Sequence[int] = ()) -> int:
    """Runs a program that ends with END; returns the commands executed."""
    start(device, spec, encode_program(spec, [*program, Instr("END")]), args)
    return device.run()


def units(address: int) -> int:
    assert address % 16 == 0
    return address // 16


def copy(src: int, dst: int, dim: int = 8, **fields: int) -> Instr:
    """COPY of one row of `dim` fp16 between byte addresses."""
    return Instr("COPY", {"src": units(src), "dst": units(dst), "rows_o": 1, "rows_i": 1, "dim": dim, **fields})


def scale(src: int, dst: int, dim: int = 8) -> Instr:
    """ELTWISE: one row times 2."""
    return Instr("ELTWISE", {"fn": 2, "src": units(src), "dst": units(dst), "rows_o": 1, "rows_i": 1, "dim": dim,
                             "scale": 0x40000000})
