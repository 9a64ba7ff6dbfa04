"""What is compiled once for each state of its sources and kept in the user's cache directory until nobody has asked for
it for a while."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNUSED_DAYS = 30  # after which an entry leaves the cache


def kept(digest: str, name: str, make: Callable[[Path], Path]) -> Path:
    """The file `name` of the entry `digest`, an absolute path. Where it is missing, `make` returns a file that it made
    in the empty directory it is given, of which the entry gets a copy; of several processes that want it, one makes it.
    """
    cache = directory()
    target = cache / digest / name
    if target.is_file() and not os.access(cache, os.W_OK):  # of somebody else, who removes what is old
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock", fcntl.LOCK_SH):  # nothing is removed as long as anybody is here
        target.parent.mkdir(exist_ok=True)
        with locked(target.parent / "lock", fcntl.LOCK_EX):
            found = target.is_file()
            if not found:
                _make_into(target, make)
            target.touch()
    if not found:
        _prune(cache)
    return target


def directory() -> Path:
    """XDG Base Directory Specification."""
    stated = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(stated) if os.path.isabs(stated) else Path("~/.cache").expanduser()) / "dlavm" / "rtl"


@contextmanager
def locked(path: Path, kind: int) -> Iterator[None]:
    """Holds a lock (fcntl.LOCK_SH or LOCK_EX) on a file, which is made where it is missing. Raises BlockingIOError with
    LOCK_NB where others have the lock."""
    with path.open("a") as lock:
        fcntl.flock(lock, kind)
        yield


def _make_into(target: Path, make: Callable[[Path], Path]) -> None:
    with tempfile.TemporaryDirectory(prefix="dlavm-rtl-") as name:
        made = make(Path(name))
        # Renamed within one directory, so that others see all of it or nothing.
        partial = target.with_suffix(".partial")
        shutil.copyfile(made, partial)
        partial.replace(target)


def _prune(cache: Path) -> None:
    """Removes what nobody has asked for in UNUSED_DAYS, unless something is being made: then the next time does."""
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    with suppress(BlockingIOError), locked(cache / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
        for entry in [path for path in cache.iterdir() if path.is_dir()]:
            if max(path.stat().st_mtime for path in (entry, *entry.iterdir())) < oldest:
                shutil.rmtree(entry, ignore_errors=True)
