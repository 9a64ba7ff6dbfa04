"""The engine `xdma:` and what its driver may do to a transfer: cut it short, break it off, refuse where it lies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("g++") is None or not sys.platform.startswith("linux"),
                                reason="needs g++ and Linux")

# Runs in a process of its own with the double before the C library: FOLDER, then what it is to do.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from dlavm.sim.native import NativeDevice
from dlavm.target.spec import load_target
from tests.unit.fake_board import FakeBoard

folder, name = Path(sys.argv[1]), sys.argv[2]
spec, rng = load_target("v3", name), np.random.default_rng(7)
board = FakeBoard(folder, spec)
image = rng.integers(0, 256, (1 << 20) + 5000, np.uint8)
(folder / "image").write_bytes(image.tobytes())
with NativeDevice(spec, board.url) as card, NativeDevice(spec, threads=1) as sim:
    for memory in spec.board.memories.values():
        row = memory.channels * memory.port_bytes
        for device in (card, sim):
            device.mem_map(memory.base + 4096 * row, memory.channels - 1, folder / "image", image.size)
        for _ in range(12):
            at, count = memory.base + int(rng.integers(0, 50000)), int(rng.integers(1, 20000))
            data = rng.integers(0, 256, count + 64, np.uint8)
            data = data[int(rng.integers(0, 64)):][:count]  # begins anywhere in host memory
            for device in (card, sim):
                device.mem_write(at, data)
            out = np.empty(count + 64, np.uint8)[int(rng.integers(0, 64)):][:count]
            card.mem_read_into(at, out)
            assert out.tobytes() == sim.mem_read(at, count) == data.tobytes()
        at, count = memory.base + 4096 * row - 100, 3 << 20
        assert card.mem_read(at, count) == sim.mem_read(at, count)
print("equal")
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The double, built."""
    library = tmp_path_factory.mktemp("driver") / "libdriver.so"
    source = repository / "tests" / "native" / "xdma_driver.cpp"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, source]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


def run(driver: Path, folder: Path, behaviour: str, repository: Path, board: str = "nano") -> tuple[str, str]:
    """What the program says, and the last line of its error."""
    environment = {**os.environ, "LD_PRELOAD": str(driver), "FAKE_XDMA": behaviour}
    command = [sys.executable, "-c", PROGRAM, str(folder), board]
    done = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, timeout=600)
    return done.stdout.strip(), done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("behaviour", ["", "short=1000", "interrupt=2", "align=64", "align=16",
                                       "short=777,interrupt=3,align=64"])
def test_every_byte_arrives(behaviour: str, driver: Path, tmp_path: Path, repository: Path) -> None:
    assert run(driver, tmp_path, behaviour, repository) == ("equal", "")


def test_one_wide_channel(driver: Path, tmp_path: Path, repository: Path) -> None:
    """kv260: transfers go straight from and to the caller's memory, wherever it lies."""
    assert run(driver, tmp_path, "align=64,short=5001", repository, "kv260") == ("equal", "")


@pytest.mark.parametrize(("behaviour", "message"), [
    ("error=512", "the driver gave the transfer up, the kernel log says why"),
    ("error=5", "Input/output error"),
    ("error=22", "Invalid argument"),
    ("align=4096", "Invalid argument"),
    ("refuse=13", "card0_h2c_0: Permission denied"),
    ("refuse=16", "card0_h2c_0: Device or resource busy"),
])
def test_what_fails_is_said(behaviour: str, message: str, driver: Path, tmp_path: Path, repository: Path) -> None:
    out, error = run(driver, tmp_path, behaviour, repository)
    assert out == "" and message in error and "card0_h2c_0" in error
