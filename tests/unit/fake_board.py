"""Files that stand in for a card behind the XDMA driver, and a thread that is the card's core."""

from __future__ import annotations

import mmap
import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.target.spec import Memory, TargetSpec

BUSY, DONE, FAILED = 1, 2, 4  # STATUS
START, RESET = 1, 2  # CONTROL
PAGE = 4096


class FakeBoard:
    """`prefix` of the device files; a context manager. Only the first `reach` bytes of each memory take part in a run.

    `hang`: programs never end. `broken`: what ERROR shows after a run instead of the core's own code.
    """

    def __init__(self, folder: Path, spec: TargetSpec, reach: int = 1 << 20) -> None:
        self.prefix = folder / "card0"
        self.url = f"xdma:{self.prefix}"
        self.spec = spec
        self.reach = reach
        self.hang = False
        self.broken: int | None = None
        self.resets = 0
        self.memory = folder / "memory.bin"
        with self.memory.open("wb") as file:
            file.truncate(max(m.base + m.capacity for m in spec.board.memories.values()))
        for name in ("h2c_0", "c2h_0"):
            self.path(name).symlink_to(self.memory)
        self.path("user").write_bytes(bytes(PAGE))
        with self.path("user").open("r+b") as file:
            self._page = np.frombuffer(mmap.mmap(file.fileno(), PAGE), "<u4")
        self.set("ID", int(spec.hash[:8], 16))
        self._core = NativeDevice(spec, threads=1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> FakeBoard:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._core.close()

    def path(self, name: str) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}_{name}")

    def get(self, register: str, index: int = 0) -> int:
        return int(self._page[self.spec.registers[register].offset // 4 + index])

    def set(self, register: str, value: int, index: int = 0) -> None:
        self._page[self.spec.registers[register].offset // 4 + index] = value

    def channels(self, memory: Memory, nbytes: int) -> NDArray[np.uint8]:
        """The first `nbytes` of each channel as they lie on the card: (channels, nbytes)."""
        pitch = memory.capacity // memory.channels
        starts = (memory.base + channel * pitch for channel in range(memory.channels))
        return np.stack([np.fromfile(self.memory, np.uint8, nbytes, offset=start) for start in starts])

    def _watch(self) -> None:
        while not self._over.is_set():
            if control := self.get("CONTROL"):
                self._control(control)
            elif "LAUNCH" in self.spec.registers and (opcode := self.get("LAUNCH")):
                self._launch(opcode)
            else:
                time.sleep(0.0002)

    def _control(self, control: int) -> None:
        if control & RESET:
            self.resets += 1
            self.set("STATUS", 0)
        if control & START:
            self.set("STATUS", BUSY)
        self.set("CONTROL", 0)
        if control & START and not self.hang:
            self._run()

    def _run(self) -> None:
        for name in ("PROGRAM", "PROGRAM_WORDS", "ARG"):
            self._copy_register(name)
        self._load()
        self._core.csr_write(self.spec.registers["CONTROL"].offset, START)
        self._finish(self._core.run)

    def _launch(self, opcode: int) -> None:
        self.set("STATUS", BUSY)
        self.set("LAUNCH", 0)
        self._copy_register("OP")
        self._load()
        self._finish(lambda: self._core.csr_write(self.spec.registers["LAUNCH"].offset, opcode))

    def _finish(self, execute: object) -> None:
        status = DONE
        try:
            execute()  # type: ignore[operator]
        except DeviceError as error:
            status = FAILED
            self.set("ERROR", self.spec.enums["error"][error.code])
        self._store()
        if "ERROR_PC" in self.spec.registers:
            self.set("ERROR_PC", self._core.csr_read(self.spec.registers["ERROR_PC"].offset))
        for name in ("COMMANDS", "BYTES_READ", "BYTES_WRITTEN"):
            for index in range(2):
                self.set(name, self._core.csr_read(self.spec.registers[name].offset + 4 * index), index)
        if self.broken is not None:
            self.set("ERROR", self.broken)
            status = FAILED
        self.set("STATUS", status)

    def _copy_register(self, name: str) -> None:
        register = self.spec.registers.get(name)
        for index in range(register.count if register else 0):
            assert register is not None
            self._core.csr_write(register.offset + 4 * index, self.get(name, index))

    def _load(self) -> None:
        for memory in self.spec.board.memories.values():
            channels = self.channels(memory, self.reach // memory.channels)
            beats = channels.reshape(memory.channels, -1, memory.port_bytes)
            self._core.mem_write(memory.base, np.ascontiguousarray(beats.transpose(1, 0, 2)))

    def _store(self) -> None:
        for memory in self.spec.board.memories.values():
            linear = np.frombuffer(self._core.mem_read(memory.base, self.reach), np.uint8)
            beats = linear.reshape(-1, memory.channels, memory.port_bytes).transpose(1, 0, 2)
            with self.memory.open("r+b") as file:
                for channel, content in enumerate(beats):
                    file.seek(memory.base + channel * (memory.capacity // memory.channels))
                    file.write(np.ascontiguousarray(content))
