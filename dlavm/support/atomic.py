"""Writing an artifact so that a reader sees all of it or none, and hashing its files."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlavm.support.errors import DlavmError

MANIFEST_NAME = "manifest.json"


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yields an empty directory beside `path` that takes the place of `path` when the block succeeds.

    The files are on disk before the rename. When the block raises, the new directory is removed and what
    stood at `path` stays. An artifact (a directory with a manifest.json) or an empty directory is replaced;
    anything else at `path` is refused with DlavmError, before the block runs and again before the rename.
    """
    final = Path(os.path.realpath(path))
    _refuse_foreign(final)
    fresh = _sibling(final, "new")
    try:
        yield fresh
        _sync_tree(fresh)
        _refuse_foreign(final)
        _swap(fresh, final)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_foreign(final: Path) -> None:
    if not os.path.lexists(final):
        return
    if not final.is_dir():
        raise DlavmError(f"output {str(final)!r}: expected a directory to replace or a free name, got a file")
    if (final / MANIFEST_NAME).is_file():
        return
    names = sorted(entry.name for entry in final.iterdir())
    if names:
        raise DlavmError(
            f"output {str(final)!r}: expected a free name, an empty directory or one with {MANIFEST_NAME} "
            f"to replace, got a directory with {names[0]!r}; choose another place or remove it"
        )


def _sibling(final: Path, purpose: str) -> Path:
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{final.name}.{purpose}-", dir=final.parent))
    except OSError as error:
        raise DlavmError(
            f"output {str(final)!r}: expected to create a directory beside it, got {error.strerror!r}"
        ) from error
    # mkdtemp makes directories private; an artifact has the permissions of any other new directory.
    umask = os.umask(0)
    os.umask(umask)
    made.chmod(0o777 & ~umask)
    return made


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            _sync(Path(folder) / name)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(fresh: Path, final: Path) -> None:
    """Renames `fresh` to `final`. An old artifact steps aside first and comes back if the rename fails."""
    if not final.exists():
        fresh.rename(final)
        _sync(final.parent)
        return
    aside = _sibling(final, "old")
    old = aside / final.name
    final.rename(old)
    try:
        fresh.rename(final)
    except BaseException:
        old.rename(final)
        aside.rmdir()
        raise
    _sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)
