"""Ordering of the decoupled engines: a program without the semaphores that it needs is refused (numerics.md, 9)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.target.isa import Instr, SReg
from tests.unit.native_helpers import DATA, copy, nano, run, scale, units

SPEC = nano()
ENGINE = SPEC.enums["engine"]
A, B, C, D = (DATA + 0x1000 * i for i in range(4))


@pytest.fixture
def device() -> Iterator[NativeDevice]:
    with NativeDevice(SPEC, threads=1) as d:
        yield d


def signal(engine: str, sem: int) -> Instr:
    return Instr("SIGNAL", {"engine": ENGINE[engine], "sem": sem})


def wait(engine: str, sem: int) -> Instr:
    return Instr("WAIT", {"engine": ENGINE[engine], "sem": sem})


def linear(src: int, wgt: int, dst: int, form: str = "int4g128") -> Instr:
    return Instr("LINEAR", {"format": SPEC.enums["weight_format"][form], "src": units(src), "wgt": units(wgt),
                            "dst": units(dst), "k": 32, "n": 8, "rows_o": 1, "rows_i": 1, "batch": 1, "wgt_tile": 128})


def append(src: int, cache: int, pos: int = 0) -> Instr:
    fields = {"src": units(src), "rows_o": 1, "rows_i": 1, "dim": 32, "cache": units(cache), "pos": pos}
    return Instr("KV_APPEND", fields)


def refused(device: NativeDevice, program: list[Instr]) -> str:
    with pytest.raises(DeviceError) as caught:
        run(device, SPEC, program)
    assert caught.value.code == "hazard"
    return str(caught.value)


def test_read_after_write(device: NativeDevice) -> None:
    text = refused(device, [copy(A, B), scale(B, C)])
    assert "ELTWISE at word 11" in text and "field src" in text and "vector" in text and "store" in text
    run(device, SPEC, [copy(A, B), signal("store", 1), wait("vector", 1), scale(B, C)])


def test_write_after_read_and_after_write(device: NativeDevice) -> None:
    refused(device, [copy(A, B), scale(C, A)])
    refused(device, [copy(A, B), scale(C, B)])
    ordered = [signal("store", 1), wait("vector", 1)]
    run(device, SPEC, [copy(A, B), *ordered, scale(C, A), scale(C, B)])


def test_reads_beside_each_other_and_one_engine_alone(device: NativeDevice) -> None:
    run(device, SPEC, [copy(A, B), scale(A, C)])
    run(device, SPEC, [copy(A, B), copy(B, C), copy(C, B)])


def test_neighbours_do_not_touch(device: NativeDevice) -> None:
    run(device, SPEC, [copy(A, B), scale(A, B + 16)])
    refused(device, [copy(A, B, 9), scale(A, B + 16)])


def test_rows_that_are_apart(device: NativeDevice) -> None:
    rows = {"rows_o": 2, "src_so": 4, "dst_so": 4}
    run(device, SPEC, [copy(A, B, **rows), scale(A, B + 32)])
    refused(device, [copy(A, B, **rows), scale(A, B + 64)])


def test_signal_before_the_write_does_not_help(device: NativeDevice) -> None:
    refused(device, [signal("store", 1), copy(A, B), wait("vector", 1), scale(B, C)])
    refused(device, [copy(A, B), signal("store", 1), copy(A, B), wait("vector", 1), scale(B, C)])


def test_wrong_engine_waits(device: NativeDevice) -> None:
    refused(device, [copy(A, B), signal("store", 1), wait("matrix", 1), scale(B, C)])


def test_chain_of_engines(device: NativeDevice) -> None:
    chain = [signal("store", 1), wait("matrix", 1), signal("matrix", 2), wait("vector", 2)]
    run(device, SPEC, [copy(A, B), *chain, scale(B, C)])
    refused(device, [copy(A, B), signal("matrix", 2), signal("store", 1), wait("matrix", 1), wait("vector", 2),
                     scale(B, C)])


def test_fence_orders_everything(device: NativeDevice) -> None:
    run(device, SPEC, [copy(A, B), Instr("FENCE"), scale(B, C)])
    run(device, SPEC, [copy(A, B), Instr("LOAD_TABLE", {"table": units(D)}), scale(B, C)])


def test_what_an_engine_wrote_is_loaded_behind_a_fence(device: NativeDevice) -> None:
    """The choice of a router: no semaphore holds the front end, only a fence does."""
    topk = Instr("TOPK", {"src": units(A), "rows_o": 1, "n": 8, "k": 2, "ids": units(B), "weights": units(C)})
    fn = SPEC.enums["scalar_fn"]
    place = Instr("SCALAR", {"fn": fn["mov"], "rd": 10, "b": units(B)})
    load = Instr("SCALAR", {"fn": fn["load"], "rd": 9, "ra": 10, "b": 1})
    for between in ([], [signal("vector", 1), wait("matrix", 1)]):
        assert "field ra: reads bytes 0x" in refused(device, [topk, place, *between, load])
    run(device, SPEC, [topk, Instr("FENCE"), place, load])
    refused(device, [topk, Instr("FENCE"), place, load, copy(A, B), load])


def test_results_of_the_vector_engine_need_a_semaphore(device: NativeDevice) -> None:
    row = {"rows_o": 1, "rows_i": 1}
    slanted = Instr("SOFTMAX", {**row, "src": units(A), "dst": units(B), "recip": units(C), "batch": 1, "visible": 8,
                                "width": 8, "use_slopes": 1, "slopes": units(D)})
    windowed = Instr("SOFTMAX", {**row, "src": units(A), "dst": units(B), "recip": units(C), "batch": 1, "visible": 64,
                                 "width": 64, "window": 8})
    permute = Instr("PERMUTE", {**row, "src": units(A), "dst": units(B), "index": units(D), "dim": 1, "limit": 8})
    for command in (slanted, permute):
        refused(device, [copy(A, D, 4), command])
        run(device, SPEC, [copy(A, D, 4), signal("store", 1), wait("vector", 1), command])
        refused(device, [command, copy(B, D, 4)])
    run(device, SPEC, [copy(D, A + 64, 8), windowed])  # in front of the window nothing is read
    refused(device, [copy(D, A + 112, 8), windowed])


def test_a_new_start_forgets(device: NativeDevice) -> None:
    run(device, SPEC, [copy(A, B), signal("store", 1)])
    run(device, SPEC, [scale(B, C)])
    with pytest.raises(DeviceError) as caught:  # semaphores are zero again
        run(device, SPEC, [wait("vector", 1)])
    assert caught.value.code == "deadlock"


def test_weights_belong_to_the_load_engine(device: NativeDevice) -> None:
    cache = D
    for form in ("kv_k", "kvq_k", "int4g128"):
        refused(device, [append(A, cache), signal("store", 1), wait("matrix", 1), linear(B, cache, C, form)])
        run(device, SPEC, [append(A, cache), signal("store", 1), wait("load", 1), linear(B, cache, C, form)])
    # The activations of the same command belong to the matrix engine.
    refused(device, [copy(A, B), signal("store", 1), wait("load", 1), linear(B, cache, C)])
    # The matrix engine knows its own weights: its signal frees them.
    run(device, SPEC, [linear(B, cache, C), signal("matrix", 1), wait("store", 1), append(A, cache)])
    refused(device, [linear(B, cache, C), append(A, cache)])


def test_exponents_of_a_cache_are_its_bytes_too(device: NativeDevice) -> None:
    """They stand behind the rows of all units of a block."""
    byte_append = Instr("KV_APPEND", {**append(A, D, 3).fields, "format": SPEC.enums["kv_format"]["mxint8"]})
    for first in (D + 3 * 32, D + 1024):
        refused(device, [byte_append, scale(first, C)])
        run(device, SPEC, [byte_append, signal("store", 1), wait("vector", 1), scale(first, C)])
    run(device, SPEC, [byte_append, scale(D + 3 * 32 - 16, C), scale(D + 1040, C)])


def test_prefetch_of_the_next_weights(device: NativeDevice) -> None:
    """The load engine runs ahead: it may not read what the matrix engine has just written."""
    refused(device, [linear(A, D, B), linear(A, B & ~31, C)])
    run(device, SPEC, [linear(A, D, B), signal("matrix", 1), wait("load", 1), linear(A, B & ~31, C)])


def test_deadlock_and_counting(device: NativeDevice) -> None:
    run(device, SPEC, [signal("store", 4), signal("store", 4), wait("vector", 4), wait("load", 4)])
    with pytest.raises(DeviceError, match="WAIT at word") as caught:
        run(device, SPEC, [signal("store", 4), wait("vector", 4), wait("load", 4)])
    assert caught.value.code == "deadlock"


def test_check_can_be_switched_off(device: NativeDevice) -> None:
    program = [copy(A, B), scale(B, C)]
    device.set_option("check_hazards", 0)
    run(device, SPEC, program)
    with pytest.raises(DeviceError, match="deadlock"):
        run(device, SPEC, [wait("vector", 1)])
    device.set_option("check_hazards", 1)
    refused(device, program)


def test_engines_in_order_on_v2() -> None:
    spec = nano("v2")
    with NativeDevice(spec, threads=1) as device:
        run(device, spec, [copy(A, B), scale(B, C)])


def test_long_loop_keeps_its_books(device: NativeDevice) -> None:
    """Ten thousand ordered rounds, then one step out of order."""
    body = [copy(A, B), signal("store", 1), wait("vector", 1), scale(B, C), signal("vector", 2), wait("store", 2)]
    loop = [Instr("LOOP", {"rd": 1, "count": SReg(1), "body": 11 + 3 + 3 + 16 + 3 + 3 + 2}), *body, Instr("ENDLOOP")]
    run(device, SPEC, loop, (10000,))
    refused(device, [*loop, scale(B, C), copy(A, C)])
