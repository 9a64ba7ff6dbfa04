"""Ctrl-C at places of our choice: bytes of a connection must not get lost between the socket and where they belong."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# A process has one SIGINT, so its state is the module's.
_depth = 0
_is_pending = False


@contextlib.contextmanager
def held_interrupts() -> Iterator[None]:
    """Within the block Ctrl-C raises KeyboardInterrupt only at `check_interrupt` and at the end. Blocks nest.

    Outside the main thread, and where Python does not handle SIGINT, nothing changes.
    """
    global _depth
    previous = signal.getsignal(signal.SIGINT)
    is_ours = threading.current_thread() is threading.main_thread() and callable(previous)
    if not is_ours or _depth:
        _depth += is_ours
        try:
            yield
        finally:
            _depth -= is_ours
        return
    _depth = 1
    signal.signal(signal.SIGINT, _hold)
    try:
        yield
        check_interrupt()
    finally:
        _depth = 0
        signal.signal(signal.SIGINT, previous)
        _forget()


def check_interrupt() -> None:
    """Raises KeyboardInterrupt if Ctrl-C came since `held_interrupts` began."""
    if _is_pending:
        _forget()
        raise KeyboardInterrupt


def _hold(number: int, frame: FrameType | None) -> None:
    global _is_pending
    _is_pending = True


def _forget() -> None:
    global _is_pending
    _is_pending = False
