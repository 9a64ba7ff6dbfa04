"""The counters of channels and engines: against what the harness counts at the ports, and on the simulators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cffi import FFI
from numpy.typing import NDArray

from dlavm.rtl import build
from dlavm.rtl.model import library
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.target import load_target
from dlavm.target.isa import Instr, encode_program
from tests.ops.programs import PROGRAM, READ, USED, WRITE, Case, random_case
from tests.ops.test_engines import start

NANO = load_target("v3", "nano")
REGISTERS = {name: register.offset for name, register in NANO.registers.items()}
PER_CHANNEL = ("CHANNEL_READ", "CHANNEL_WRITTEN", "CHANNEL_BUSY", "CHANNEL_STALLED", "CHANNEL_IDLE")
ENGINES = NANO.enums["engine"]
CHANNELS, PORT, DONE = 3, 16, 2
missing = build.missing_tools(("verilator",))
rtl = pytest.mark.skipif(missing is not None, reason=str(missing))

_CDEF = """
typedef struct { uint8_t *data; uint64_t bytes; } dlavm_rtl_channel;
typedef struct { uint32_t latency, stalls; uint64_t seed, fault; } dlavm_rtl_memory;
typedef struct { uint64_t read_beats, written_beats, busy, stalled; } dlavm_rtl_traffic;
typedef struct dlavm_rtl_model dlavm_rtl_model;
dlavm_rtl_model *dlavm_rtl_open(const dlavm_rtl_channel *channels, uint32_t count, uint32_t port_bytes);
void dlavm_rtl_close(dlavm_rtl_model *model);
void dlavm_rtl_set_memory(dlavm_rtl_model *model, const dlavm_rtl_memory *memory);
uint32_t dlavm_rtl_read(dlavm_rtl_model *model, uint32_t offset);
void dlavm_rtl_write(dlavm_rtl_model *model, uint32_t offset, uint32_t value);
uint64_t dlavm_rtl_run(dlavm_rtl_model *model, uint64_t cycles);
dlavm_rtl_traffic dlavm_rtl_traffic_of(const dlavm_rtl_model *model, uint32_t channel);
"""
BOARD_TIMING, NO_FAULT = 0xFFFFFFFF, (1 << 64) - 1


@dataclass
class Model:
    """The Verilated core without libdlavm: its channels are arrays here."""

    lib: Any
    handle: Any
    channels: list[NDArray[np.uint8]]

    def read(self, offset: int) -> int:
        return int(self.lib.dlavm_rtl_read(self.handle, offset))

    def pair(self, offset: int) -> int:
        return self.read(offset) | self.read(offset + 4) << 32

    def write(self, name: str, value: int) -> None:
        self.lib.dlavm_rtl_write(self.handle, REGISTERS[name], value)

    def run(self, case: Case) -> None:
        """A program, to its end; the memory `hbm` has two channels, in beats by turns."""
        beats = case.memory.reshape(-1, 2, PORT)
        for c in range(2):
            self.channels[c][: beats.shape[0] * PORT] = beats[:, c].reshape(-1)
        for name, value in (("PROGRAM", PROGRAM // 16), ("PROGRAM_WORDS", len(case.words)), ("CONTROL", 1)):
            self.write(name, value)
        self.lib.dlavm_rtl_run(self.handle, 1 << 32)
        assert self.read(REGISTERS["STATUS"]) == DONE

    def counters(self, channel: int) -> dict[str, int]:
        self.write("CHANNEL", channel)
        assert self.read(REGISTERS["CHANNEL"]) == channel
        return {name: self.pair(REGISTERS[name]) for name in PER_CHANNEL}

    def engines(self) -> dict[str, int]:
        return {name: self.pair(REGISTERS["ENGINE_BUSY"] + 8 * number) for name, number in ENGINES.items()}

    def traffic(self, channel: int) -> NDArray[np.int64]:
        """Bytes read and written, busy and stalled cycles that the harness saw since the model was opened."""
        seen = self.lib.dlavm_rtl_traffic_of(self.handle, channel)
        return np.array([PORT * seen.read_beats, PORT * seen.written_beats, seen.busy, seen.stalled], np.int64)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    ffi = FFI()
    ffi.cdef(_CDEF)
    lib = ffi.dlopen(str(library(NANO)))
    channels = [np.zeros(1 << 26, np.uint8) for _ in range(CHANNELS)]
    views = [ffi.from_buffer(channel) for channel in channels]
    described = ffi.new("dlavm_rtl_channel[]", [(ffi.cast("uint8_t *", v), len(v)) for v in views])
    handle = lib.dlavm_rtl_open(described, CHANNELS, PORT)
    assert handle != ffi.NULL
    yield Model(lib, handle, channels)
    lib.dlavm_rtl_close(handle)


@rtl
@pytest.mark.parametrize("seed", range(6))
def test_counters_are_those_of_the_ports(model: Model, seed: int) -> None:
    """With the board's timing and others, with stalls: bytes, busy and stalled cycles, run after run."""
    memory = ((BOARD_TIMING, 0), (BOARD_TIMING, 300), (1, 0), (90, 0), (7, 500), (BOARD_TIMING, 700))[seed]
    model.lib.dlavm_rtl_set_memory(model.handle, [(*memory, seed + 1, NO_FAULT)])
    before = [model.traffic(c) for c in range(CHANNELS)]
    model.run(random_case(NANO, 500 + seed, commands=10))
    cycles = model.pair(REGISTERS["CYCLES"])
    for c in range(CHANNELS):
        got = model.counters(c)
        assert [got[name] for name in PER_CHANNEL[:4]] == list(model.traffic(c) - before[c]), f"channel {c}"
        assert got["CHANNEL_BUSY"] + got["CHANNEL_STALLED"] + got["CHANNEL_IDLE"] == cycles
    first, second, third = (model.counters(c) for c in range(CHANNELS))
    assert first["CHANNEL_READ"] == second["CHANNEL_READ"] > 0
    assert set(third.values()) == {0, cycles}  # nothing of a case lies in the memory ddr
    assert set(model.counters(CHANNELS).values()) == {0}


@rtl
def test_engines(model: Model) -> None:
    """An engine is busy while it has a command, no longer than the run, and not at all in runs without it."""
    rows = {"rows_o": 1, "rows_i": 1, "dim": 1000}
    copy = Instr("COPY", {"src": READ // 16, "dst": WRITE // 16, **rows})
    add = Instr("ELTWISE", {"fn": 0, "src": READ // 16, "b": READ // 16, "dst": (WRITE + 0x4000) // 16, **rows})
    busy = {}
    for name, program in (("copy", [copy]), ("copies", [copy, copy]), ("both", [copy, add]), ("none", [])):
        words = encode_program(NANO, [*program, Instr("END")])
        memory = np.zeros(USED, np.uint8)
        memory[PROGRAM:PROGRAM + 4 * len(words)] = np.array(words, dtype=np.uint32).view(np.uint8)
        model.lib.dlavm_rtl_set_memory(model.handle, [(20, 0, 1, NO_FAULT)])
        model.run(Case(memory, words))
        busy[name] = model.engines()
        assert max(busy[name].values()) < model.pair(REGISTERS["CYCLES"])
    assert set(busy["none"].values()) == {0}
    assert {name for name, cycles in busy["copy"].items() if cycles} == {"store"}
    assert {name for name, cycles in busy["both"].items() if cycles} == {"store", "vector"}
    assert busy["copy"]["store"] > 125 and busy["copies"]["store"] == 2 * busy["copy"]["store"]


@rtl
def test_they_begin_anew_with_a_start_and_a_reset(model: Model) -> None:
    model.run(random_case(NANO, 1, commands=3))
    assert model.counters(0)["CHANNEL_READ"] > 0
    model.write("CONTROL", 2)
    model.lib.dlavm_rtl_run(model.handle, 10000)
    assert model.read(REGISTERS["CHANNEL"]) == 0
    assert set(model.counters(0).values()) == set(model.engines().values()) == {0}


@pytest.mark.parametrize("target", ["v1", "v2", "v3"])
def test_simulators_count_nothing(target: str) -> None:
    """CHANNEL is kept until a reset; what it would show is zero."""
    spec = load_target(target, "nano")
    for device in (NativeDevice(spec), ReferenceDevice(spec)):
        if target == "v3":
            start(device, spec, random_case(spec, 1, commands=3))
            device.run()
        offsets = {name: register.offset for name, register in spec.registers.items()}
        device.csr_write(offsets["CHANNEL"], 2)
        for name in (*PER_CHANNEL, "ENGINE_BUSY"):
            for half in range(spec.registers[name].count):
                assert device.csr_read(offsets[name] + 4 * half) == 0
        assert device.csr_read(offsets["CHANNEL"]) == 2
        device.csr_write(offsets["CONTROL"], 2)
        assert device.csr_read(offsets["CHANNEL"]) == 0
        device.close()
