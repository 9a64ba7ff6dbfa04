"""The channel files while weights are packed into them, and which weights they have."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from dlavm.pack.losses import Loss
from dlavm.support.errors import DlavmError

DONE = "done.jsonl"
SYNC_AT = 256 << 20  # bytes that a machine that stops may cost


@dataclass(frozen=True)
class Done:
    """A constant of which all bytes are written, and what became of its tensors."""

    size: int
    losses: tuple[Loss, ...] = ()


class Images:
    """`count` files of `size` bytes in a folder; a context manager that closes them.

    `done` has every constant that an earlier process finished and the disk holds. Raises DlavmError where
    the disk does not take what is written.
    """

    def __init__(self, folder: Path, count: int, size: int) -> None:
        self.paths = [folder / f"ch{channel:02d}.bin" for channel in range(count)]
        self._journal = folder / DONE
        self._size = size
        self.done = self._finished_before()
        self._stack = ExitStack()
        self._files: list[FileIO] = []
        self._pending: dict[str, Done] = {}

    def __enter__(self) -> Images:
        try:
            for path in self.paths:
                flags = os.O_RDWR | os.O_CREAT | (0 if self.done else os.O_TRUNC)
                file = self._stack.enter_context(FileIO(os.open(path, flags, 0o666), "r+"))
                file.truncate(self._size)
                self._files.append(file)
            self._journal.write_text("".join(map(_line, self.done.items())), encoding="utf-8")
        except OSError as error:
            self._stack.close()
            raise self._failed(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, start: int, channels: NDArray[np.uint8]) -> None:
        """Bytes [count, n] at an offset of each file."""
        try:
            for file, data in zip(self._files, channels, strict=True):
                view = np.ascontiguousarray(data).data
                file.seek(start)
                while view:
                    view = view[file.write(view):]
        except OSError as error:
            raise self._failed(error) from None

    def finished(self, name: str, done: Done) -> None:
        """All bytes of a constant are written."""
        self._pending[name] = done
        if sum(one.size for one in self._pending.values()) >= SYNC_AT:
            self.flush()

    def flush(self) -> None:
        """What is written is on disk, and noted."""
        try:
            for file in self._files:
                os.fdatasync(file.fileno())
            with self._journal.open("a", encoding="utf-8") as journal:
                journal.writelines(map(_line, self._pending.items()))
        except OSError as error:
            raise self._failed(error) from None
        self._pending = {}

    def _finished_before(self) -> dict[str, Done]:
        """What the journal notes, if every file is there and whole; a line that was cut off is no line."""
        whole = all(path.is_file() and path.stat().st_size == self._size for path in self.paths)
        if not whole or not self._journal.is_file():
            return {}
        lines = self._journal.read_text(encoding="utf-8").split("\n")[:-1]
        entries = [json.loads(line) for line in lines]
        return {name: Done(size, tuple(Loss(*loss) for loss in losses)) for name, size, losses in entries}

    def _failed(self, error: OSError) -> DlavmError:
        return DlavmError(f"weights {str(self._journal.parent)!r}: expected to write them, got {error.strerror!r}")


def _line(entry: tuple[str, Done]) -> str:
    name, done = entry
    return json.dumps([name, done.size, [astuple(loss) for loss in done.losses]]) + "\n"
