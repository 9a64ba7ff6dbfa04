"""A working directory that outlives the process that made it, so that long work goes on where it stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlavm.support.atomic import locked, sibling
from dlavm.support.errors import DlavmError

KEY = "key"


@contextmanager
def kept_directory(path: Path | str, purpose: str, key: str) -> Iterator[Path]:
    """Yields the directory `.NAME.PURPOSE` beside `path`, for work that `key` describes.

    What a killed or interrupted process left there is found again by the next one with the same key; what was left
    under another key is removed. When the block ends, or raises an Exception, the directory goes. While another
    process holds it, the block gets one of its own that nobody finds again.
    Raises DlavmError where no directory can be made.
    """
    final = Path(os.path.realpath(path))
    place = final.parent / f".{final.name}.{purpose}"
    lock = _taken(place, key)
    if lock is None:
        with sibling(final, purpose) as private:
            try:
                yield private
            finally:
                shutil.rmtree(private, ignore_errors=True)
        return
    try:
        yield place
    except Exception:
        shutil.rmtree(place, ignore_errors=True)
        raise
    else:
        shutil.rmtree(place, ignore_errors=True)
    finally:  # of an interrupted block the directory stays
        os.close(lock)


def stamp(path: Path) -> str:
    """Says what stands in a directory, or in that of a file: another text where a file may have changed. Of a path
    that is not there, the path."""
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        return str(path)
    found = [(entry.name, entry.stat()) for entry in sorted(folder.iterdir()) if entry.is_file()]
    return "\n".join([str(path.resolve()), *(f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in found)])


def _taken(place: Path, key: str) -> int | None:
    """The lock of the directory, which has this key from now on; None if another process has it."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = locked(place)
        if lock is None:
            return None
        stated = place / KEY
        if not stated.is_file() or stated.read_text(encoding="utf-8") != key:
            _empty(place)
            stated.write_text(key, encoding="utf-8")
        return lock
    except OSError as error:
        raise DlavmError(
            f"output {str(place)!r}: expected to create a directory there, got {error.strerror!r}"
        ) from error


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
