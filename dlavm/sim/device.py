"""The Device protocol: what every engine (simulators, RTL, boards) offers to the runtime."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from dlavm.support.errors import DlavmError


@dataclass(frozen=True)
class Counters:
    """Hardware counters of the last run; cycles are zero on functional engines."""

    cycles: int
    commands: int
    bytes_read: int
    bytes_written: int


class DeviceError(DlavmError):
    """The core stopped, or refused an access; `code` is a name of the ISA's error enum."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Device(Protocol):
    """Linear byte addresses; registers by byte offset (targets/isa/registers.yaml)."""

    def mem_read(self, address: int, count: int) -> bytes: ...

    def mem_read_into(self, address: int, out: Any) -> None:
        """Reads out.nbytes bytes into a contiguous numpy array."""

    def mem_write(self, address: int, data: Any) -> None:
        """Writes a bytes-like object."""

    def mem_map(self, address: int, channel: int, path: str | Path, nbytes: int) -> None:
        """Makes a file the content of one memory channel from `address` on."""

    def csr_read(self, offset: int) -> int: ...

    def csr_write(self, offset: int, value: int) -> None: ...

    def run(self, max_commands: int | None = None) -> int:
        """Runs until idle or `max_commands`; returns the commands executed. Raises DeviceError where the core stops."""

    def counters(self) -> Counters: ...

    def info(self) -> dict[str, Any]: ...

    def set_option(self, name: str, value: str | int) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Device: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...
