"""The directory of DLAVM_DUMP, where every stage of a compilation leaves its text."""

from __future__ import annotations

from collections.abc import Callable

from dlavm.support import env
from dlavm.support.errors import DlavmError


def write_stage(name: str, text: Callable[[], str]) -> None:
    """Writes the file `name` there; does nothing, and makes no text, where the variable is not set.

    Raises DlavmError for a file that cannot be written.
    """
    directory = env.DUMP.get()
    if directory is None:
        return
    content = text()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise DlavmError(f"variable {env.DUMP.name}: {directory / name}: expected a file that can be written, got "
                         f"{error.strerror!r}") from None  # fmt: skip
