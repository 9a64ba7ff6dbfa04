"""The engine `xdma:` on files that stand in for a card: places of bytes, registers, programs, what goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.target.isa import Instr, encode, payload
from dlavm.target.spec import load_target
from tests.unit.fake_board import FakeBoard
from tests.unit.native_helpers import DATA, copy, nano, register, run, scale, start
from tests.unit.transport_helpers import fails

SPEC = nano()
HBM = SPEC.board.memories["hbm"]
REACH = 8 << 20  # PROGRAM of native_helpers lies below
CONTROL, STATUS = register(SPEC, "CONTROL"), register(SPEC, "STATUS")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[FakeBoard]:
    with FakeBoard(tmp_path, SPEC, REACH) as board:
        yield board


@pytest.fixture
def card(board: FakeBoard) -> Iterator[NativeDevice]:
    with NativeDevice(SPEC, board.url) as card:
        yield card


def test_a_beat_stands_in_its_channel(board: FakeBoard, card: NativeDevice) -> None:
    card.mem_write(5 * 16 + 3, bytes([7, 8]))  # beat 5: channel 1, offset 2 * 16
    content = np.memmap(board.memory, np.uint8, "r")
    at = HBM.capacity // 2 + 2 * 16 + 3
    assert content[at : at + 2].tolist() == [7, 8]
    assert np.count_nonzero(content[: HBM.capacity]) == 2
    card.mem_write(SPEC.board.memories["ddr"].base + 100, b"x")
    assert content[SPEC.board.memories["ddr"].base + 100] == ord("x")


@pytest.mark.parametrize("name", ["nano", "vcu128", "kv260", "v80"])
def test_memory_equals_the_simulator_at_any_alignment(name: str, tmp_path: Path) -> None:
    spec, rng = load_target("v3", name), np.random.default_rng(3)
    board = FakeBoard(tmp_path, spec)  # without its core
    with NativeDevice(spec, board.url) as card, NativeDevice(spec, threads=1) as sim:
        for memory in spec.board.memories.values():
            for _ in range(30):
                at, count = memory.base + int(rng.integers(0, 50000)), int(rng.integers(1, 9000))
                data = rng.integers(0, 256, count, np.uint8)
                for device in (card, sim):
                    device.mem_write(at, data)
                at, count = memory.base + int(rng.integers(0, 50000)), int(rng.integers(1, 9000))
                assert card.mem_read(at, count) == sim.mem_read(at, count)
            rows = 70000 // memory.beat_row
            beats = board.channels(memory, rows * memory.port_bytes).reshape(memory.channels, rows, -1)
            assert beats.transpose(1, 0, 2).tobytes() == sim.mem_read(memory.base, rows * memory.beat_row)
            card.mem_write(memory.base + memory.capacity - 5, b"12345")
            assert card.mem_read(memory.base + memory.capacity - 5, 5) == b"12345"


def test_pieces_join(card: NativeDevice) -> None:
    data = np.random.default_rng(4).integers(0, 256, (9 << 20) + 77, np.uint8)
    card.mem_write(1000003, data)
    assert card.mem_read(1000003, data.size) == data.tobytes()
    out = np.empty(data.size - 5, np.uint8)
    card.mem_read_into(1000008, out)
    assert (out == data[5:]).all()


def test_one_transfer_a_channel(tmp_path: Path) -> None:
    def calls() -> int:
        return int(Path("/proc/self/io").read_text().split("syscw:")[1].split()[0])

    spec = load_target("v3", "vcu128")
    with NativeDevice(spec, FakeBoard(tmp_path, spec).url) as card:
        before = calls()
        card.mem_write(0, bytes(1 << 20))  # 32768 beats
        assert 32 <= calls() - before < 200


@pytest.mark.parametrize("nbytes", [16, 5000, (4 << 20) + 4096])
def test_images_equal_the_simulator(nbytes: int, tmp_path: Path, board: FakeBoard, card: NativeDevice) -> None:
    image = np.random.default_rng(5).integers(0, 256, nbytes + 3, np.uint8)
    path = tmp_path / "ch1.bin"
    path.write_bytes(image.tobytes())
    at = 4096 * HBM.channels
    with NativeDevice(SPEC, threads=1) as sim:
        for device in (card, sim):
            device.mem_write(at, bytes([7]) * 20000)
            device.mem_map(at, 1, path, nbytes)
        assert card.mem_read(at, 2 * nbytes + 20000) == sim.mem_read(at, 2 * nbytes + 20000)
    assert board.channels(HBM, 4096 + nbytes)[1, 4096:].tobytes() == image[:nbytes].tobytes()


Call = Callable[[NativeDevice], object]
CALLS: list[Call] = [
    lambda d: d.mem_write(HBM.capacity - 4, b"12345"),
    lambda d: d.mem_read(HBM.capacity, 1),
    lambda d: d.mem_map(16, 0, "/nonexistent", 16),
    lambda d: d.mem_map(0, 2, "/nonexistent", 16),
    lambda d: d.mem_map(32, 0, "/nonexistent", 16),
    lambda d: d.mem_map(HBM.capacity - 8192, 0, "/nonexistent", 4097),
    lambda d: d.mem_map(0, 0, "/nonexistent", 16),
    lambda d: d.mem_map(0, 0, "/proc/self/status", 1 << 20),
    lambda d: d.csr_write(STATUS, 1),
    lambda d: d.csr_read(CONTROL),
    lambda d: d.csr_read(2),
    lambda d: d.csr_write(0xFC, 1),
    lambda d: d.csr_read(0xFFFC),
]


@pytest.mark.parametrize("call", CALLS)
def test_refused_as_by_the_simulator(call: Call, card: NativeDevice) -> None:
    with pytest.raises(DeviceError) as ours:
        call(card)
    with NativeDevice(SPEC, threads=1) as sim, pytest.raises(DeviceError) as theirs:
        call(sim)
    assert (ours.value.code, str(ours.value)) == (theirs.value.code, str(theirs.value))


def test_refused_accesses_do_not_touch_the_card(board: FakeBoard, card: NativeDevice) -> None:
    for call in CALLS:
        with pytest.raises(DeviceError):
            call(card)
    assert not any(board.path("user").read_bytes()[4:])
    assert board.memory.stat().st_blocks == 0


def test_programs_run(board: FakeBoard, card: NativeDevice) -> None:
    values = np.arange(8, dtype=np.float16)
    card.mem_write(DATA, values)
    assert run(card, SPEC, [scale(DATA, DATA + 4096), copy(DATA, DATA + 8192)]) == 3
    assert np.frombuffer(card.mem_read(DATA + 4096, 16), np.float16).tolist() == (2 * values).tolist()
    assert np.frombuffer(card.mem_read(DATA + 8192, 16), np.float16).tolist() == values.tolist()
    counters = card.counters()
    assert (counters.commands, counters.bytes_written) == (3, 32) and counters.bytes_read >= 32
    assert card.csr_read(STATUS) == 2
    assert card.run() == 0  # nothing was started since
    assert card.info() == {"engine": "xdma", "simd": "none", "threads": 0}


def test_the_core_stops_with_an_error(card: NativeDevice) -> None:
    bad = Instr("COPY", {"src": 0xFFFFFFF, "dst": 0, "rows_o": 1, "rows_i": 1, "dim": 8})
    length = len(encode(SPEC, copy(DATA, DATA + 64)))
    for _ in range(2):
        with fails("bad_address", f"at word {length}"):
            run(card, SPEC, [copy(DATA, DATA + 64), bad])
        with fails("bad_address", f"at word {length}"):
            card.run()
    card.csr_write(CONTROL, 2)
    assert card.csr_read(STATUS) == 0
    assert run(card, SPEC, [copy(DATA, DATA + 64)]) == 2


@pytest.mark.parametrize("code", [0, 13, 0xFFFFFFFF])
def test_an_error_code_that_is_none(code: int, board: FakeBoard, card: NativeDevice) -> None:
    board.broken = code
    with fails("system", "ERROR", f"got {code}"):
        run(card, SPEC, [])


def test_a_program_that_does_not_end(board: FakeBoard, card: NativeDevice) -> None:
    board.hang = True
    card.set_option("timeout_ms", 50)
    with fails("system", "run: the card did not finish within 50 ms"):
        run(card, SPEC, [])
    board.hang = False
    card.set_option("timeout_ms", 10000)
    assert run(card, SPEC, []) == 1
    assert board.resets == 1


def test_a_run_is_stopped_by_another_thread(board: FakeBoard, card: NativeDevice) -> None:
    board.hang = True
    card.set_option("timeout_ms", 60000)
    start(card, SPEC, encode(SPEC, Instr("END")))
    finished: list[int] = []
    other = threading.Thread(target=lambda: finished.append(card.run()))
    other.start()
    while board.get("STATUS") != 1:
        time.sleep(0.001)
    card.csr_write(CONTROL, 2)
    other.join(20)
    assert finished and card.csr_read(STATUS) == 0
    board.hang = False
    assert run(card, SPEC, []) == 1


def test_register_driven_targets(tmp_path: Path) -> None:
    spec = nano("v1")
    memory = spec.space("activations")
    source, target = memory.base + DATA, memory.base + DATA + 4096
    with FakeBoard(tmp_path, spec, REACH) as board, NativeDevice(spec, board.url) as card:
        card.mem_write(source, bytes(range(16)))
        for i, word in enumerate(payload(spec, copy(source, target))[0]):
            card.csr_write(register(spec, "OP", i), word)
        card.csr_write(register(spec, "LAUNCH"), spec.commands["COPY"].opcode)
        assert card.mem_read(target, 16) == bytes(range(16))
        with fails("illegal_opcode", "LAUNCH"):
            card.csr_write(register(spec, "LAUNCH"), 0x7F)
        board.broken = 9
        with fails("scalar"):
            card.csr_write(register(spec, "LAUNCH"), spec.commands["COPY"].opcode)


class TestWithoutACore:
    """Files that nothing watches."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> FakeBoard:
        return FakeBoard(tmp_path, SPEC)

    def test_a_card_that_takes_nothing(self, files: FakeBoard) -> None:
        with NativeDevice(SPEC, files.url) as card:
            card.set_option("timeout_ms", 20)
            with fails("system", "CONTROL", "did not take 0x1 within 20 ms", str(files.path("user"))):
                card.csr_write(CONTROL, 1)

    def test_a_card_that_left_the_bus(self, files: FakeBoard) -> None:
        files.path("user").write_bytes(b"\xff" * 4096)
        with NativeDevice(SPEC, files.url) as card, fails("system", "STATUS reads 0xffffffff"):
            card.run()

    def test_neither_done_nor_error(self, files: FakeBoard) -> None:
        with NativeDevice(SPEC, files.url) as card:
            watcher = threading.Thread(target=lambda: wait_and_clear(files))
            watcher.start()
            card.csr_write(CONTROL, 1)
            watcher.join()
            with fails("system", "STATUS: expected done or error, got 0x00000000"):
                card.run()

    @pytest.mark.parametrize("name", ["h2c_0", "c2h_0", "user"])
    def test_a_missing_device(self, files: FakeBoard, name: str) -> None:
        files.path(name).unlink()
        with fails("not_found", str(files.path(name)), "No such file"):
            NativeDevice(SPEC, files.url)

    def test_a_directory(self, files: FakeBoard) -> None:
        files.path("user").unlink()
        files.path("user").mkdir()
        with fails("system", str(files.path("user"))):
            NativeDevice(SPEC, files.url)

    @pytest.mark.parametrize("size", [0, 100, 4095])
    def test_too_few_registers(self, files: FakeBoard, size: int) -> None:
        with files.path("user").open("r+b") as file:
            file.truncate(size)
        with fails("system", str(files.path("user")), f"at least 4096 bytes of registers, got {size}"):
            NativeDevice(SPEC, files.url)

    def test_a_device_that_ends_early(self, files: FakeBoard) -> None:
        with files.memory.open("r+b") as file:
            file.truncate(1000)
        with NativeDevice(SPEC, files.url) as card:
            assert card.mem_read(0, 16) == bytes(16)
            with fails("system", f"{files.path('c2h_0')}: reading 16 bytes at 0x4000000", "no more bytes"):
                card.mem_read(16, 16)

    def test_a_transfer_that_fails(self, files: FakeBoard) -> None:
        files.path("h2c_0").unlink()
        files.path("h2c_0").symlink_to("/dev/full")
        words = (f"{files.path('h2c_0')}: writing 16 bytes at 0x4000000", "No space")
        with NativeDevice(SPEC, files.url) as card, fails("system", *words):
            card.mem_write(16, bytes(16))

    @pytest.mark.parametrize(
        ("name", "value", "code"),
        [("threads", 1, "not_found"), ("simd", "auto", "not_found"), ("check_hazards", 1, "not_found"),
         *(("timeout_ms", value, "bad_argument") for value in (0, -1, "", "x", "5 ", 10**12))],
    )  # fmt: skip
    def test_bad_options(self, files: FakeBoard, name: str, value: str | int, code: str) -> None:
        with NativeDevice(SPEC, files.url) as card, fails(code, "timeout_ms"):
            card.set_option(name, value)

    def test_steps_are_refused(self, files: FakeBoard) -> None:
        with NativeDevice(SPEC, files.url) as card, fails("bad_argument", "max_commands", "got 3"):
            card.run(3)


def wait_and_clear(files: FakeBoard) -> None:
    while files.get("CONTROL") == 0:
        time.sleep(0.0005)
    files.set("CONTROL", 0)
