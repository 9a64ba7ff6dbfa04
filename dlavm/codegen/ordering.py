"""Semaphores between the decoupled engines.

Discipline: commands form one chain. Whenever a command runs on another engine than the one before it, the earlier
engine signals and the later one waits; a LINEAR that reads the KV cache also makes `load` wait, unless it already has
since the last append. Weights never change, so `load` runs ahead of everything with them.
"""
from __future__ import annotations

from collections.abc import Callable

from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.target.isa import Instr
from dlavm.target.layout import KV_PRODUCTS


class EngineOrder:
    def __init__(self, spec: TargetSpec, emit: Callable[[Instr], None]) -> None:
        """Raises DlavmError for a target with too few semaphores."""
        self._engines = spec.enums["engine"]
        pairs = len(self._engines) ** 2
        if spec.limits["semaphores"] < pairs:
            raise DlavmError(f"target {spec.name}: limits.semaphores expected at least {pairs}, one for every two "
                             f"engines, got {spec.limits['semaphores']}")
        self._kv_formats = {number for name, number in spec.enums["weight_format"].items() if name in KV_PRODUCTS}
        self._emit = emit
        self._current: str | None = None
        self._load_waits = True  # load has not yet seen the latest append

    def before(self, op: str, engine: str, weight_format: int) -> None:
        """Orders a command about to be emitted."""
        if op == "LOAD_TABLE":  # waits for every engine by itself
            self.fence()
            return
        if op == "LINEAR" and weight_format in self._kv_formats and self._load_waits:
            if self._current is not None:
                self._edge(self._current, "load")
            self._load_waits = False
        self.switch(engine)
        if op == "KV_APPEND":
            self._load_waits = True

    def fence(self) -> None:
        """Behind a FENCE every engine knows everything."""
        self._current, self._load_waits = None, False

    def switch(self, engine: str) -> None:
        """Makes `engine` the last link of the chain."""
        if self._current is not None and self._current != engine:
            self._edge(self._current, engine)
        self._current = engine

    def loop_border(self, first_engine: str) -> None:
        """State at the entry of a loop body and at its end: the same, whichever iteration comes next."""
        self.switch(first_engine)
        self._load_waits = True

    def _edge(self, source: str, sink: str) -> None:
        semaphore = self._engines[source] * len(self._engines) + self._engines[sink]
        self._emit(Instr("SIGNAL", {"engine": self._engines[source], "sem": semaphore}))
        self._emit(Instr("WAIT", {"engine": self._engines[sink], "sem": semaphore}))
