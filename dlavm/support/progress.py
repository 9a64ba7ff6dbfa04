"""Progress of long work: a bar on a terminal's stderr, nothing in a pipe. stdout is never touched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Bar(Protocol):
    """What `progress` hands to its block."""

    def advance(self, n: int = 1) -> None:
        """Counts `n` more units of `total` as done."""


class _Silent:
    def advance(self, n: int = 1) -> None:
        pass


class _Drawn:
    def __init__(self, display: Progress, label: str, total: int | None) -> None:
        self._display = display
        self._task = display.add_task(label, total=total)

    def advance(self, n: int = 1) -> None:
        self._display.advance(self._task, n)


@contextmanager
def progress(label: str, total: int | None = None, in_bytes: bool = False) -> Iterator[Bar]:
    """Shows `label` and how much of `total` (None: unknown) is done until the block ends, then vanishes. Units that are
    bytes have a rate."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    counts = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *counts, TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as display:
        yield _Drawn(display, label, total)
