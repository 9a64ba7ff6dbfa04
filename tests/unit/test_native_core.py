"""Registers, memory and front end of the native simulator."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice, build_info
from dlavm.sim.reference import ReferenceDevice
from dlavm.support import paths
from dlavm.support.env import SIMD_LEVELS
from dlavm.support.errors import DlavmError
from dlavm.target.isa import Instr, SReg, encode, encode_program
from dlavm.target.spec import load_target
from tests.unit.native_helpers import (
    DATA,
    PROGRAM,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_ERROR,
    copy,
    nano,
    register,
    run,
    scale,
    start,
    units,
)

SPEC = nano()
END = Instr("END")


@pytest.fixture
def device() -> Iterator[NativeDevice]:
    with NativeDevice(SPEC, threads=1) as d:
        yield d


def value_of(device: NativeDevice, program: list[Instr], index: int, args: tuple[int, ...] = ()) -> int:
    """Value of scalar register `index` after a program: it becomes the length of a COPY, half by half, and the
    counter of bytes written tells it."""
    result = 0
    for shift in (0, 16):
        probe = [Instr("SCALAR", {"fn": 9, "rd": 31, "ra": index, "b": shift}),
                 Instr("SCALAR", {"fn": 5, "rd": 31, "ra": 31, "b": 65536}),
                 Instr("COPY", {"src": units(DATA), "dst": units(DATA + (1 << 20)), "rows_o": 1, "rows_i": 1,
                                "dim": SReg(31)})]
        run(device, SPEC, [*program, *probe], args)
        result |= device.counters().bytes_written // 2 << shift
    return result


def test_library_says_how_it_was_built(device: NativeDevice) -> None:
    assert "compiler" in build_info()
    info = device.info()
    assert info["engine"] == "sim" and info["threads"] == 1 and info["simd"] in SIMD_LEVELS[1:]


def test_missing_library_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "LIBRARY_NAME", "libmissing.so")
    with pytest.raises(DlavmError, match="native library"):
        paths.native_library()


def test_unknown_scheme_and_closed_device() -> None:
    with pytest.raises(DeviceError, match="sim:") as caught:
        NativeDevice(SPEC, "nowhere:")
    assert caught.value.code == "not_found"
    device = NativeDevice(SPEC)
    device.close()
    device.close()
    with pytest.raises(DlavmError, match="closed"):
        device.csr_read(0)


@pytest.mark.parametrize(("name", "value"), [("threads", "-1"), ("threads", "x"), ("simd", "mmx"), ("check_hazards", 2),
                                             ("colour", 1)])
def test_bad_options(device: NativeDevice, name: str, value: Any) -> None:
    with pytest.raises(DeviceError, match=name):
        device.set_option(name, value)


@pytest.mark.parametrize("board", ["nano", "vcu128", "kv260", "v80"])
def test_memory_round_trip_at_any_alignment(board: str) -> None:
    spec = load_target("v3", board)
    rng = np.random.default_rng(1)
    with NativeDevice(spec, threads=1) as device:
        for m in spec.board.memories.values():
            data = rng.integers(0, 256, 70001, dtype=np.uint8)
            device.mem_write(m.base + 77, data)
            assert device.mem_read(m.base + 77, data.size) == data.tobytes()
            for _ in range(20):
                at, n = int(rng.integers(0, 60000)), int(rng.integers(0, 10000))
                assert device.mem_read(m.base + 77 + at, n) == data[at:at + n].tobytes()
            out = np.empty((7, 11), dtype=np.uint16)
            device.mem_read_into(m.base + 77, out)
            assert out.tobytes() == data[:154].tobytes()
            device.mem_write(m.base + m.capacity - 5, b"12345")
            with pytest.raises(DeviceError) as caught:
                device.mem_write(m.base + m.capacity - 4, b"12345")
            assert caught.value.code == "bad_address"


def test_channel_image_stands_in_its_beats(tmp_path: Path, device: NativeDevice) -> None:
    memory = next(iter(SPEC.board.memories.values()))
    image = np.random.default_rng(2).integers(0, 256, 5000, dtype=np.uint8)
    path = tmp_path / "ch1.bin"
    path.write_bytes(image.tobytes())
    at = memory.base + 4096 * memory.channels
    device.mem_write(at, bytes([7]) * 20000)
    device.mem_map(at, 1, path, 5000)
    seen = np.frombuffer(device.mem_read(at, 20000), dtype=np.uint8).reshape(-1, memory.channels, memory.port_bytes)
    assert seen[:, 1].reshape(-1)[:5000].tobytes() == image.tobytes()
    assert (seen[:, 1].reshape(-1)[5000:] == 7).all()  # what stood behind the image is still there
    assert (seen[:, 0] == 7).all()
    device.mem_write(at, bytes([9]) * 64)
    assert path.read_bytes() == image.tobytes()  # the file is never written


@pytest.mark.parametrize(("address", "channel", "nbytes", "code"), [
    (16, 0, 16, "bad_address"), (0, 2, 16, "bad_address"), (32, 0, 16, "bad_address"), (0, 0, 17, "bad_argument"),
    (1 << 50, 0, 16, "bad_address"),
])
def test_bad_images(tmp_path: Path, device: NativeDevice, address: int, channel: int, nbytes: int, code: str) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(bytes(16))
    with pytest.raises(DeviceError) as caught:
        device.mem_map(address, channel, path, nbytes)
    assert caught.value.code == code


def test_missing_image(tmp_path: Path, device: NativeDevice) -> None:
    with pytest.raises(DeviceError, match=r"nothing\.bin") as caught:
        device.mem_map(0, 0, tmp_path / "nothing.bin", 16)
    assert caught.value.code == "not_found"


def test_registers(device: NativeDevice) -> None:
    assert device.csr_read(register(SPEC, "ID")) == int(SPEC.hash[:8], 16)
    assert device.csr_read(register(SPEC, "STATUS")) == 0
    for name in ("PROGRAM", "PROGRAM_WORDS"):
        device.csr_write(register(SPEC, name), 0xDEADBEEF)
        assert device.csr_read(register(SPEC, name)) == 0xDEADBEEF
    device.csr_write(register(SPEC, "ARG", 7), 5)
    assert device.csr_read(register(SPEC, "ARG", 7)) == 5
    device.csr_write(register(SPEC, "CONTROL"), 2)
    assert device.csr_read(register(SPEC, "ARG", 7)) == 0
    for offset in (0x01, 0x1C, 0x40, 0x7C, 0xA4, 0xFC, 0x100, 0x1000):
        with pytest.raises(DeviceError) as caught:
            device.csr_read(offset)
        assert caught.value.code == "bad_register"
    for name in ("ID", "STATUS", "CYCLES"):
        with pytest.raises(DeviceError, match="cannot be written"):
            device.csr_write(register(SPEC, name), 1)


def test_run_to_the_end_and_counters(device: NativeDevice) -> None:
    device.mem_write(DATA, np.arange(8, dtype=np.float16))
    assert device.run() == 0  # nothing was started
    assert run(device, SPEC, [scale(DATA, DATA + 64)]) == 2
    assert np.frombuffer(device.mem_read(DATA + 64, 16), dtype=np.float16).tolist() == [2 * i for i in range(8)]
    assert device.csr_read(register(SPEC, "STATUS")) == STATUS_DONE
    counters = device.counters()
    assert (counters.cycles, counters.commands, counters.bytes_read, counters.bytes_written) == (0, 2, 16, 16)
    assert device.csr_read(register(SPEC, "BYTES_READ")) == 16 and device.csr_read(register(SPEC, "BYTES_READ", 1)) == 0


def test_single_steps_keep_the_state(device: NativeDevice) -> None:
    start(device, SPEC, encode_program(SPEC, [copy(DATA, DATA + 64)] * 3 + [END]))
    assert [device.run(1) for _ in range(3)] == [1, 1, 1]
    assert device.csr_read(register(SPEC, "STATUS")) == STATUS_BUSY
    assert device.run(10) == 1
    assert device.csr_read(register(SPEC, "STATUS")) == STATUS_DONE
    assert device.run(10) == 0


SCALARS = [
    ("mov", 3, 9, 9), ("add", -1, 2, 1), ("sub", 2, 5, -3), ("mul", 65536, 65537, 65536), ("div", -7, 2, -4),
    ("div", 7, -2, -4), ("div", -(1 << 31), -1, -(1 << 31)), ("mod", -7, 2, 1), ("mod", 7, -2, -1),
    ("mod", -(1 << 31), -1, 0), ("min", -3, 2, -3), ("max", -3, 2, 2), ("shl", 3, 31, -(1 << 31)), ("shr", -8, 1, -4),
    ("lt", -1, 0, 1), ("le", 0, -1, 0), ("le", 4, 4, 1), ("eq", 4, 4, 1), ("eq", 4, 5, 0),
]


@pytest.mark.parametrize(("fn", "a", "b", "expected"), SCALARS)
def test_scalar_functions(device: NativeDevice, fn: str, a: int, b: int, expected: int) -> None:
    program = [Instr("SCALAR", {"fn": SPEC.enums["scalar_fn"][fn], "rd": 9, "ra": 1, "b": SReg(2)})]
    assert value_of(device, program, 9, (a & 0xFFFFFFFF, b & 0xFFFFFFFF)) == expected & 0xFFFFFFFF


@pytest.mark.parametrize(("fn", "b"), [("div", 0), ("mod", 0), ("shl", 32), ("shr", 0xFFFFFFFF)])
def test_scalar_errors(device: NativeDevice, fn: str, b: int) -> None:
    with pytest.raises(DeviceError, match="SCALAR at word 0") as caught:
        run(device, SPEC, [Instr("SCALAR", {"fn": SPEC.enums["scalar_fn"][fn], "rd": 1, "b": b})])
    assert caught.value.code == "scalar"


def test_words_of_memory(device: NativeDevice) -> None:
    """By an immediate and by a register; what an engine wrote only behind a FENCE."""
    reference = ReferenceDevice(SPEC)
    base = Instr("SCALAR", {"fn": 0, "rd": 12, "b": DATA // 16})
    word = {n: Instr("SCALAR", {"fn": SPEC.enums["scalar_fn"]["load"], "rd": 9, "ra": 12, "b": n}) for n in (0, 3, 5)}
    by_register = Instr("SCALAR", {"fn": SPEC.enums["scalar_fn"]["load"], "rd": 9, "ra": 12, "b": SReg(1)})
    for one in (device, reference):
        one.mem_write(DATA, np.arange(100, 116, dtype=np.uint32))
    for n, instr in word.items():
        assert value_of(device, [base, instr], 9, ()) == 100 + n
    assert value_of(device, [base, by_register], 9, (7,)) == 107
    outside = [Instr("SCALAR", {"fn": 0, "rd": 12, "b": 0xFFFFFFFF}), word[0]]
    for one in (device, reference):
        with pytest.raises(DeviceError, match="SCALAR") as caught:
            run(one, SPEC, [*outside, END])
        assert caught.value.code == "bad_address"
    written = [base, copy(DATA + 64, DATA)]
    with pytest.raises(DeviceError, match="wrote since the last FENCE") as caught:
        run(device, SPEC, [*written, word[0], END])
    assert caught.value.code == "hazard"
    beside = [base, copy(DATA + 64, DATA + 16)]
    counted = 8 | 8 << 16  # what the COPY writes, in both halves of the probe
    device.mem_write(DATA, np.arange(100, 116, dtype=np.uint32))
    assert value_of(device, [*beside, word[0]], 9, ()) - counted == 100
    fenced = value_of(device, [*written, Instr("FENCE"), word[3]], 9, ())
    assert fenced - counted == int.from_bytes(device.mem_read(DATA + 12, 4), "little")


def loop(count: int | SReg, body: list[Instr], rd: int = 20, pred: int = 0) -> list[Instr]:
    words = sum(len(encode(SPEC, i)) for i in body) + len(encode(SPEC, Instr("ENDLOOP")))
    return [Instr("LOOP", {"rd": rd, "count": count, "body": words}, pred), *body, Instr("ENDLOOP")]


def add(rd: int, b: int | SReg, pred: int = 0) -> Instr:
    return Instr("SCALAR", {"fn": 1, "rd": rd, "ra": rd, "b": b}, pred)


def test_loops_and_their_variables(device: NativeDevice) -> None:
    program = loop(SReg(1), loop(SReg(2), [add(10, SReg(20)), add(11, SReg(21))], rd=21))
    assert value_of(device, program, 10, (4, 5)) == (0 + 1 + 2 + 3) * 5
    assert value_of(device, program, 11, (4, 5)) == (0 + 1 + 2 + 3 + 4) * 4
    assert value_of(device, program, 10, (0, 5)) == 0
    assert value_of(device, program, 10, (0xFFFFFFFF, 5)) == 0


def test_predicates(device: NativeDevice) -> None:
    loops = [*loop(3, [add(10, 100)], pred=1), *loop(3, [add(10, 1000)], pred=2)]
    program = [add(10, 1, pred=1), add(10, 2, pred=2), *loops]
    assert value_of(device, program, 10, (0, 7)) == 3002


def test_register_zero(device: NativeDevice) -> None:
    assert value_of(device, [add(0, 77), Instr("SCALAR", {"fn": 1, "rd": 10, "ra": 0, "b": 5})], 10) == 5


def test_calls(device: NativeDevice) -> None:
    body = [add(10, 3), Instr("RET")]
    main = [Instr("CALL", {"target": 0}), Instr("CALL", {"target": SReg(1)}), END]
    length = len(encode_program(SPEC, main))
    main[0] = Instr("CALL", {"target": length})
    start(device, SPEC, encode_program(SPEC, [*main, *body]), (length,))
    assert device.run() == 2 * 3 + 1
    assert device.csr_read(register(SPEC, "STATUS")) == STATUS_DONE


def test_endless_loop_is_stopped_by_count_and_by_reset(device: NativeDevice) -> None:
    program = loop(0x7FFFFFFF, loop(0x7FFFFFFF, []))
    start(device, SPEC, encode_program(SPEC, [*program, END]))
    assert device.run(1000) == 1000
    runner = threading.Thread(target=device.run)
    runner.start()
    time.sleep(0.02)
    device.csr_write(register(SPEC, "CONTROL"), 2)
    runner.join(10)
    assert not runner.is_alive()
    assert device.csr_read(register(SPEC, "STATUS")) == 0


def header(op: str, length: int | None = None, extra: int = 0) -> int:
    command = SPEC.commands[op]
    return command.opcode | (2 + command.payload_words if length is None else length) << 8 | extra


def with_word(instr: Instr, index: int, value: int) -> list[int]:
    """The words of a command with one of them replaced."""
    words = encode(SPEC, instr)
    words[index] = value
    return words


LINEAR = {"k": 32, "n": 8, "rows_o": 1, "rows_i": 1, "batch": 1, "src": units(DATA), "wgt": units(DATA),
          "dst": units(DATA), "wgt_tile": 0}
KV_K, KV_V = SPEC.enums["weight_format"]["kv_k"], SPEC.enums["weight_format"]["kv_v"]
ROWS = {"rows_o": 1, "rows_i": 1, "dim": 8}
FULL = {"rows_o": (1 << 20) - 1, "rows_i": (1 << 12) - 1}


def linear(**fields: int) -> list[int]:
    return encode(SPEC, Instr("LINEAR", {**LINEAR, **fields}))


def command(op: str, **fields: int) -> list[int]:
    return encode(SPEC, Instr(op, fields))


BAD = [
    ("illegal_opcode", [0xFF | 2 << 8, 0]),
    ("bad_length", []),
    ("bad_length", [header("END", 3), 0]),
    ("bad_length", [header("COPY"), 0, 1]),
    ("bad_length", encode(SPEC, Instr("FENCE"))),
    ("reserved_bits", [header("END", extra=1 << 21), 0]),
    ("reserved_bits", [header("END"), 1]),
    ("reserved_bits", [header("NORM"), 1, *[0] * 14]),
    ("reserved_bits", with_word(Instr("NORM"), 2, 4)),
    ("reserved_bits", [header("ENDLOOP", extra=1 << 16), 0]),
    ("field_range", with_word(Instr("SCALAR"), 2, 14)),
    ("field_range", with_word(Instr("COPY", {"dim": SReg(3)}), 10, 32)),
    ("field_range", with_word(Instr("COPY"), 10, 1 << 20)),
    ("field_range", linear(k=0)),
    ("field_range", linear(acc_out=1, batch=2)),
    ("field_range", linear(acc_in=1, format=KV_K)),
    ("field_range", linear(aux_mode=1, batch=2)),
    ("field_range", linear(wgt=1)),
    ("field_range", linear(wgt_tile=1)),
    ("field_range", command("SOFTMAX", rows_o=1, rows_i=1, batch=1, width=8)),
    ("bad_address", command("SOFTMAX", rows_o=1, rows_i=1, batch=1, width=8, visible=1, use_slopes=1,
                            slopes=0xFFFFFFFF)),
    ("bad_address", command("PERMUTE", **ROWS, index=0xFFFFFFFF)),
    ("field_range", command("TOPK", rows_o=1, n=4, k=5)),
    ("bad_address", command("TOPK", rows_o=1, n=4, k=4, ids=0xFFFFFFFF)),
    ("bad_address", command("TOPK", rows_o=1, n=4, k=4, weights=0xFFFFFFFF)),
    ("field_range", command("ROPE", **ROWS, rot=3)),
    ("field_range", command("ROPE", **ROWS, rot=10)),
    ("bad_address", command("COPY", **ROWS, src=0xFFFFFFFF)),
    ("bad_address", command("COPY", **ROWS, dst=0xFFFFFFFF)),
    ("bad_address", command("COPY", **FULL, dim=(1 << 20) - 1, src_so=0xFFFFFFFF, src_si=0xFFFFFFFF)),
    ("bad_address", command("NORM", **ROWS, gamma=0xFFFFFFFF)),
    ("bad_address", command("KV_APPEND", rows_o=1, rows_i=4095, dim=65535, cache_head=0xFFFFFFFF, pos=0xFFFFFF)),
    ("bad_address", command("LOAD_TABLE", table=0xFFFFFFFF)),
    ("bad_address", linear(wgt_tile=0xFFFFFFFE, n=5000)),
    ("bad_address", linear(use_bias=1, bias=0xFFFFFFFF)),
    ("bad_address", linear(format=KV_V, wgt_b=0xFFFFFFFF, batch=4095, wgt_tile=128)),
    ("buffer", linear(k=8193)),
    ("buffer", linear(k=8192, rows_o=2)),
    ("buffer", linear(**FULL, k=(1 << 24) - 1, n=(1 << 24) - 1)),
    ("buffer", linear(format=KV_K, k=32, rows_o=257)),
    ("buffer", linear(format=KV_V, n=33, rows_o=65, k=1)),
    ("buffer", linear(acc_out=1, n=4097)),
    ("deadlock", command("WAIT", engine=1, sem=3)),
    ("stack", command("ENDLOOP")),
    ("stack", command("RET")),
    ("stack", command("LOOP", count=1) + command("END")),
    ("stack", command("LOOP", count=1) * 9),
    ("stack", command("CALL", target=0)),
]


@pytest.mark.parametrize(("code", "words"), BAD)
def test_bad_commands(device: NativeDevice, code: str, words: list[int]) -> None:
    start(device, SPEC, words)
    with pytest.raises(DeviceError, match=code) as caught:
        device.run()
    assert caught.value.code == code
    assert device.csr_read(register(SPEC, "STATUS")) == STATUS_ERROR
    assert device.csr_read(register(SPEC, "ERROR")) == SPEC.enums["error"][code]
    with pytest.raises(DeviceError, match=code):  # it stays stopped until it is started again
        device.run()
    assert run(device, SPEC, []) == 1


def test_error_names_command_place_and_field(device: NativeDevice) -> None:
    with pytest.raises(DeviceError, match=r"COPY at word 2: bad_address: field dst: 16 bytes at 0xffffffff0") as caught:
        run(device, SPEC, [Instr("FENCE"), copy(DATA, 0xFFFFFFFF0)])
    assert caught.value.code == "bad_address"
    assert device.csr_read(register(SPEC, "ERROR_PC")) == 2


def test_indirect_value_past_a_limit(device: NativeDevice) -> None:
    with pytest.raises(DeviceError) as caught:
        run(device, SPEC, [Instr("COPY", {"dim": SReg(1)})], (1 << 20,))
    assert caught.value.code == "field_range"


def test_gather_index(device: NativeDevice) -> None:
    device.mem_write(DATA, np.array([1, 5], dtype=np.uint32))
    fields = {"ids": units(DATA), "table": units(DATA), "dst": units(DATA + 256), "rows_o": 2, "dim": 8, "limit": 5}
    before = device.mem_read(DATA, 1024)
    with pytest.raises(DeviceError, match="ids: element 1: expected an index below 5, got 5") as caught:
        run(device, SPEC, [Instr("GATHER", fields)])
    assert caught.value.code == "gather_index"
    assert device.mem_read(DATA, 1024) == before


@pytest.mark.parametrize(("limit", "code"), [(8, "none"), (7, "gather_index"), (0, "gather_index")])
def test_permute(device: NativeDevice, limit: int, code: str) -> None:
    index = np.array([7, 0, 0, 3, 1], dtype=np.uint32)
    row = np.array([0x7C00, 1, 0x8000, 0xFFFF, 4, 5, 6, 7], dtype=np.uint16)  # any bytes, as they are
    device.mem_write(DATA, row)
    device.mem_write(DATA + 64, index)
    fields = {"src": units(DATA), "dst": units(DATA + 128), "rows_o": 1, "rows_i": 1, "dim": 5, "limit": limit,
              "index": units(DATA + 64)}
    before = device.mem_read(DATA + 128, 16)
    if code == "none":
        run(device, SPEC, [Instr("PERMUTE", fields)])
        assert device.mem_read(DATA + 128, 16) == row[index].tobytes() + before[10:]
    else:
        with pytest.raises(DeviceError, match=f"field index: element 0: expected an index below {limit}") as caught:
            run(device, SPEC, [Instr("PERMUTE", fields)])
        assert caught.value.code == code and device.mem_read(DATA + 128, 16) == before


def test_stream_outside_memory(device: NativeDevice) -> None:
    device.csr_write(register(SPEC, "PROGRAM"), 0xFFFFFFFF)
    device.csr_write(register(SPEC, "PROGRAM_WORDS"), 8)
    device.csr_write(register(SPEC, "CONTROL"), 1)
    with pytest.raises(DeviceError) as caught:
        device.run()
    assert caught.value.code == "bad_address"


@pytest.mark.parametrize("op", [c.name for c in SPEC.commands.values() if c.engine and c.name != "LOAD_TABLE"])
def test_no_rows_do_nothing(device: NativeDevice, op: str) -> None:
    """Even with addresses that do not exist."""
    fields = {f.name: 0xFFFFFFFF for f in SPEC.commands[op].fields if f.kind in ("addr", "stride")}
    assert run(device, SPEC, [Instr(op, fields)]) == 2
    assert device.counters().bytes_read == device.counters().bytes_written == 0


def test_register_driven_target() -> None:
    spec = nano("v1")
    with NativeDevice(spec, threads=1) as device:
        ddr = spec.board.memories["ddr"].base
        device.mem_write(ddr, np.arange(8, dtype=np.float16))
        payload = [units(ddr), 0, 0, units(ddr + 64), 0, 0, 1, 1, 8]
        for i, word in enumerate(payload):
            device.csr_write(register(spec, "OP", i), word)
        device.csr_write(register(spec, "LAUNCH"), spec.commands["COPY"].opcode)
        assert device.mem_read(ddr + 64, 16) == device.mem_read(ddr, 16)
        assert device.csr_read(register(spec, "STATUS")) == STATUS_DONE
        assert device.counters().commands == 1
        device.csr_write(register(spec, "OP", 0), 0xFFFFFFFF)
        with pytest.raises(DeviceError, match="COPY: bad_address: field src"):
            device.csr_write(register(spec, "LAUNCH"), spec.commands["COPY"].opcode)
        assert device.csr_read(register(spec, "STATUS")) == STATUS_ERROR
        for opcode in (0xFE, 0x00, 0x1000):
            with pytest.raises(DeviceError, match="illegal_opcode"):
                device.csr_write(register(spec, "LAUNCH"), opcode)
        with pytest.raises(DeviceError, match="cannot be read"):
            device.csr_read(register(SPEC, "PROGRAM"))


def test_stream_target_without_scalars() -> None:
    spec = nano("v2")
    with NativeDevice(spec, threads=1) as device:
        words = [spec.commands["KV_APPEND"].opcode | 11 << 8, SPEC.enums["kv_format"]["mxint8"], *[0] * 9]
        start(device, spec, words)
        with pytest.raises(DeviceError, match="KV_APPEND at word 0: field_range: field format: expected one that the"):
            device.run()
        assert run(device, spec, [copy(DATA, DATA + 64), Instr("FENCE")]) == 3
        start(device, spec, [spec.commands["END"].opcode | 1 << 8 | 1 << 16])
        with pytest.raises(DeviceError, match="reserved_bits"):
            device.run()
        start(device, spec, [spec.enums["engine"]["load"] | 0x02 | 2 << 8, 0])
        with pytest.raises(DeviceError, match="illegal_opcode"):
            device.run()


def test_program_can_be_changed_between_runs(device: NativeDevice) -> None:
    words = encode_program(SPEC, [copy(DATA, DATA + 64), END])
    start(device, SPEC, words)
    device.run()
    words[-3] = 4  # dim
    device.mem_write(SPEC.space("program").base + PROGRAM, np.array(words, dtype=np.uint32))
    device.csr_write(register(SPEC, "CONTROL"), 1)
    device.run()
    assert device.counters().bytes_written == 8
