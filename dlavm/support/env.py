"""Every debug variable, in one table. No other module reads a `DLAVM_*` variable.

Values are read when asked for, so that a test can set one. An empty value counts as unset.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from dlavm.support.errors import DlavmError

T = TypeVar("T")

SIMD_LEVELS = ("auto", "portable", "avx2", "avx512", "avx512vnni")


@dataclass(frozen=True)
class Variable(Generic[T]):
    """A debug variable: its name, how its text is read, its value when unset, and what it does."""

    name: str
    parse: Callable[[str], T]
    default: T
    expects: str
    help: str

    def get(self) -> T:
        """The value now. Raises DlavmError if the text is not of the kind that `expects` names."""
        text = os.environ.get(self.name, "").strip()
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError:
            raise DlavmError(f"variable {self.name}: expected {self.expects}, got {text!r}") from None


def _flag(text: str) -> bool:
    return {"1": True, "0": False}[_one_of("0", "1")(text)]


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return parse


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _path_unless_off(text: str) -> Path | None:
    return None if text == "off" else Path(text)


def _state_home() -> Path:
    """The user's directory for what programs keep between runs (XDG Base Directory Specification)."""
    stated = os.environ.get("XDG_STATE_HOME", "")
    return Path(stated) if os.path.isabs(stated) else Path("~/.local/state")


DEBUG = Variable("DLAVM_DEBUG", _flag, False, "0 or 1", "show the traceback of an error")
VERIFY = Variable("DLAVM_VERIFY", _flag, False, "0 or 1", "run the verifiers before and after every pass")
DUMP: Variable[Path | None] = Variable(
    "DLAVM_DUMP", Path, None, "a directory", "write the text of every stage there"
)
THREADS = Variable(
    "DLAVM_THREADS", _count, _cores(), "a count of at least 1", "threads of the native engines and the packer"
)
SIMD = Variable(
    "DLAVM_SIMD", _one_of(*SIMD_LEVELS), "auto", "one of " + ", ".join(SIMD_LEVELS),
    "highest SIMD level that the native engines use; the bits are the same on each",
)  # fmt: skip
HISTORY: Variable[Path | None] = Variable(
    "DLAVM_HISTORY", _path_unless_off, _state_home() / "dlavm" / "chat_history", "a file or off",
    "where chat keeps what was typed, from run to run",
)  # fmt: skip

VARIABLES: tuple[Variable[bool] | Variable[Path | None] | Variable[int] | Variable[str], ...] = (
    DEBUG,
    VERIFY,
    DUMP,
    THREADS,
    SIMD,
    HISTORY,
)
