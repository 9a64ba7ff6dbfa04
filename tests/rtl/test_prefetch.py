"""Weights fetched before their command's turn: whose bytes they are, whose errors, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from dlavm.rtl import build
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.target.isa import Instr, f32_bits
from dlavm.target.layout import PackedWeights
from dlavm.target.sizes import sizes
from tests.ops.programs import FORMATS, PROGRAM, READ, USED, WEIGHTS, WRITE, Case, case_of, chained_case
from tests.rtl import cores
from tests.rtl.cores import START, V3, check_same, placed, register
from tests.rtl.test_core import in_weights

missing = build.missing_tools()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))

HEADER = V3.header_words
K, N = 256, 160
TILE_UNITS = PackedWeights(V3.space("weights"), N, K, FORMATS["int4g128"]).tile_bytes // 16
OTHER = WEIGHTS // 16 + 0x2000  # other weights


@pytest.fixture
def core() -> Iterator[NativeDevice]:
    yield from cores.opened(V3)


def product(wgt: int, dst: int, **more: int) -> Instr:
    """LINEAR of packed weights at a unit, to a unit behind the start of WRITE."""
    fields = {"format": V3.enums["weight_format"]["int4g128"], "rows_o": 1, "rows_i": 1, "batch": 1, "k": K, "n": N,
              "src": READ // 16, "wgt": wgt, "wgt_tile": TILE_UNITS, "dst": WRITE // 16 + dst}
    return Instr("LINEAR", fields | more)


def order(source: str, sink: str, sem: int) -> list[Instr]:
    engine = V3.enums["engine"]
    return [Instr(op, {"engine": engine[of], "sem": sem}) for op, of in (("SIGNAL", source), ("WAIT", sink))]


def case(program: list[Instr]) -> Case:
    memory = np.arange(USED).astype(np.uint8)
    memory[:PROGRAM] = np.random.default_rng(1).integers(0, 60, PROGRAM).astype(np.uint8)
    return case_of(V3, memory, program)


def checked(core: NativeDevice, program: list[Instr], what: str) -> None:
    """The simulator takes the program, with its hazards, and the core leaves the same bytes."""
    with NativeDevice(V3) as native:
        check_same(core, native, V3, placed(V3, case(program)), what)


@pytest.mark.parametrize("seed", range(12))
def test_chains(core: NativeDevice, seed: int) -> None:
    """Commands that use what was just written, into weights too, with the waits that the simulator asks for."""
    core.set_option("latency", (1, 7, 40, 150)[seed % 4])
    core.set_option("stalls", (0, 0, 300)[seed % 3])
    core.set_option("seed", seed)
    with NativeDevice(V3) as native:
        check_same(core, native, V3, placed(V3, chained_case(V3, seed, 16)), f"seed {seed}")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1200, 20))
def test_many_chains(core: NativeDevice, first: int) -> None:
    with NativeDevice(V3) as native:
        for seed in range(first, first + 20):
            core.set_option("stalls", (0, 0, 200)[seed % 3])
            check_same(core, native, V3, placed(V3, chained_case(V3, seed, 20)), f"seed {seed}")


def test_a_wait_of_load_is_not_passed(core: NativeDevice) -> None:
    """Weights that a long COPY writes while a product is still to run; memory is fast, so that a fetch would win."""
    core.set_option("latency", 1)
    copy = {"src": READ // 16, "src_so": 0x100, "dst": OTHER, "dst_so": 0x100, "rows_o": 12, "rows_i": 1, "dim": 0x780}
    program = [product(WEIGHTS // 16, 0), Instr("COPY", copy), *order("store", "load", 1), product(OTHER, 0x100)]
    checked(core, program, "COPY")
    with NativeDevice(V3) as native, pytest.raises(DeviceError, match="hazard"):
        check_same(core, native, V3, placed(V3, case([i for i in program if i.op not in ("SIGNAL", "WAIT")])), "")


def test_it_is_fetched_ahead(core: NativeDevice) -> None:
    """While the vector engine works between two products the weights of the second one come, as many as the buffer
    holds, unless `load` waits too. Memory is slower than the products, so that it shows."""
    core.set_option("stalls", 500)
    norm = Instr("NORM", {"norm": 1, "src": READ // 16, "dst": WRITE // 16 + 0x400, "rows_o": 1, "rows_i": 1,
                          "dim": 1024, "gamma": READ // 16, "inv_n": f32_bits(1 / 1024)})  # fmt: skip
    between = [*order("matrix", "vector", 1), norm, *order("vector", "matrix", 2)]
    cycles = []
    for waits in ([], order("vector", "load", 3)):
        program = [product(WEIGHTS // 16, 0), *between, *waits, product(OTHER, 0x100)]
        cores.memory_after(core, V3, placed(V3, case(program)))
        cycles.append(core.counters().cycles)
    assert cycles[1] > cycles[0] + sizes(V3).weight_rows // 2


def faulty(core: NativeDevice, program: list[Instr], unit: int) -> int:
    """Runs a program with a unit that memory does not give; the word of the command that stopped it. All of it
    lies in the space of weights."""
    assert unit % 2 == 0  # channel 0 has the even units
    broken = case(program)
    core.mem_write(0, broken.memory)
    core.set_option("fault", unit * 8 + 3)
    with pytest.raises(DeviceError, match="bus"):
        in_weights(core, V3, broken)
    core.set_option("fault", "none")
    return core.csr_read(register(V3, "ERROR_PC"))


def words(*program: Instr) -> int:
    return sum(HEADER + V3.commands[instr.op].payload_words for instr in program)


def test_a_fault_belongs_to_the_command_it_was_fetched_for(core: NativeDevice) -> None:
    """The product before it is complete; the error is told at the second one's turn, not before."""
    first, second = product(WEIGHTS // 16, 0), product(OTHER, 0x100)
    with NativeDevice(V3) as native:
        native.mem_write(0, case([first]).memory)
        in_weights(native, V3, case([first]))
        want = native.mem_read(WRITE, 2 * N)
    small = product(WEIGHTS // 16, 0x200, n=7)  # several of them are fetched ahead
    for unit in (OTHER, OTHER + TILE_UNITS + 4):
        for between in (order("matrix", "matrix", 1), [small, small, small, small, small]):
            assert faulty(core, [first, *between, second], unit) == words(first, *between)
            assert core.mem_read(WRITE, 2 * N) == want
            checked(core, [second, first, Instr("FENCE"), small, second], "afterwards")


def test_a_fault_before_it_drops_what_was_fetched(core: NativeDevice) -> None:
    first, second = product(WEIGHTS // 16, 0), product(OTHER, 0x100)
    assert faulty(core, [first, second], READ // 16 + 2) == 0
    checked(core, [second, first], "afterwards")
    # the same weights for both: the first command that takes them fails
    assert faulty(core, [first, first, second], WEIGHTS // 16 + 2) == 0
    checked(core, [first, second], "afterwards")


@pytest.mark.parametrize("latency", [1, 40, 150])
def test_an_error_of_another_engine_drops_it(core: NativeDevice, latency: int) -> None:
    """A product waits for a GATHER that fails: its weights are there, and must not be taken for another's."""
    core.set_option("latency", latency)
    bad = Instr("GATHER", {"ids": READ // 16, "dst": WRITE // 16 + 0x200, "rows_o": 1, "dim": 8, "limit": 1})
    stops = case([bad, *order("store", "matrix", 2), product(WEIGHTS // 16, 0, n=7), product(OTHER, 0x100)])
    stops.memory[READ:READ + 4] = 255
    for _ in range(2):
        core.mem_write(0, stops.memory)
        with pytest.raises(DeviceError, match="gather_index"):
            in_weights(core, V3, stops)
        checked(core, [product(WEIGHTS // 16, 0), product(OTHER, 0x100)], "afterwards, without a reset")


def test_accumulators_outlive_what_is_dropped(core: NativeDevice) -> None:
    """A dropped command would have left others, of another shape."""
    bad = Instr("GATHER", {"ids": READ // 16, "dst": WRITE // 16 + 0x200, "rows_o": 1, "dim": 8, "limit": 1})
    leaves = case([product(WEIGHTS // 16, 0, acc_out=1)])
    stops = case([bad, *order("store", "matrix", 2), product(OTHER, 0x100, n=80, acc_out=1)])
    stops.memory[READ:READ + 4] = 255
    takes = case([product(OTHER, 0x100, acc_in=1)])
    results = []
    with NativeDevice(V3) as native:
        for device in (native, core):
            for each in (leaves, stops, takes):
                device.mem_write(0, each.memory)
                if each is stops:
                    with pytest.raises(DeviceError, match="gather_index"):
                        in_weights(device, V3, each)
                else:
                    in_weights(device, V3, each)
            results.append(device.mem_read(WRITE, 0x2000))
    assert results[0] == results[1]


def test_a_reset_drops_it(core: NativeDevice) -> None:
    first, second = product(WEIGHTS // 16, 0, rows_o=8), product(OTHER, 0x100)
    for cycles in range(150, 1200, 150):
        begun = case([first, *order("matrix", "matrix", 1), second])
        core.mem_write(0, begun.memory)
        core.csr_write(register(V3, "PROGRAM"), PROGRAM // 16)
        core.csr_write(register(V3, "PROGRAM_WORDS"), len(begun.words))
        core.csr_write(register(V3, "CONTROL"), START)
        core.set_option("max_cycles", cycles)
        with pytest.raises(DeviceError, match="did not finish"):
            core.run()
        core.csr_write(register(V3, "CONTROL"), cores.RESET)
        core.set_option("max_cycles", 2_000_000)
        checked(core, [second, first], f"after {cycles} cycles")


def test_errors_in_their_order(core: NativeDevice) -> None:
    """Of two bad commands the first is told, though the second is checked while it runs; the core looks at what the
    matrix engine alone knows when it is shown a command."""
    good = product(WEIGHTS // 16, 0)
    large = product(WEIGHTS // 16, 0, rows_o=4000, src_so=0, k=256)
    shape = product(WEIGHTS // 16, 0, acc_in=1)
    for program, code, at in (([good, large, shape], "buffer", words(good)),
                              ([good, shape, large], "field_range", words(good)),
                              ([good, good, shape], "field_range", words(good, good))):
        broken = case(program)
        core.mem_write(0, broken.memory)
        with pytest.raises(DeviceError) as error:
            in_weights(core, V3, broken)
        assert (error.value.code, core.csr_read(register(V3, "ERROR_PC"))) == (code, at)
    checked(core, [product(WEIGHTS // 16, 0, acc_out=1), product(OTHER, 0x100, acc_in=1)], "afterwards")
