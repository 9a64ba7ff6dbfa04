"""Writing an artifact so that a reader sees all of it or none, and hashing its files."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
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
    What a killed process left of an earlier attempt is removed; concurrent writers do not disturb each other.
    """
    final = Path(os.path.realpath(path))
    if final.parent.is_dir():
        with _turn(final.parent):  # in the midst of another writer's two renames nothing, or half, stands there
            refuse_foreign(final)
            _clear_stale(final)
    with sibling(final, "new") as fresh:
        try:
            yield fresh
            _sync_tree(fresh)
            with _turn(final.parent):
                refuse_foreign(final)
                _swap(fresh, final)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


def sha256_text(text: str) -> str:
    """The SHA-256 of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_foreign(final: Path) -> None:
    """Raises DlavmError for what `atomic_directory` would not replace."""
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


def _clear_stale(final: Path) -> None:
    """Removes what a killed process left beside `final`: its name says which process, and that must be gone.

    A lock guards against a live process whose number means nothing here, as from within a container. An old
    artifact that had stepped aside comes back if its place is empty.
    """
    pattern = re.compile(re.escape(f".{final.name}.") + r"(new|old|packing)-(\d+)-[a-z0-9_]+")
    names = os.listdir(final.parent) if final.parent.is_dir() else []
    for found in filter(None, map(pattern.fullmatch, sorted(names))):
        stale = final.parent / found[0]
        lock = None if _alive(int(found[2])) else locked(stale)
        if lock is None:
            continue
        with contextlib.suppress(OSError):  # then it stays: better than a lost artifact
            if found[1] == "old" and (stale / final.name).is_dir() and not final.exists():
                (stale / final.name).rename(final)
            shutil.rmtree(stale, ignore_errors=True)
        os.close(lock)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def locked(directory: Path) -> int | None:
    """A descriptor that holds the directory until it is closed or the process dies; None if another one does."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


@contextmanager
def _turn(parent: Path) -> Iterator[None]:
    """One writer at a time puts its directory in place; where the file system knows no locks, they race."""
    descriptor = os.open(parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def sibling(final: Path, purpose: str) -> Iterator[Path]:
    """A new directory beside `final`, held while the block runs."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = None
        while lock is None:  # again if another process took it for stale before it was held
            made = Path(tempfile.mkdtemp(prefix=f".{final.name}.{purpose}-{os.getpid()}-", dir=final.parent))
            lock = locked(made)
    except OSError as error:
        raise DlavmError(
            f"output {str(final)!r}: expected to create a directory beside it, got {error.strerror!r}"
        ) from error
    try:
        # mkdtemp makes directories private; an artifact has the permissions of any other new directory.
        umask = os.umask(0)
        os.umask(umask)
        made.chmod(0o777 & ~umask)
        yield made
    finally:
        os.close(lock)


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
    with sibling(final, "old") as aside:
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
