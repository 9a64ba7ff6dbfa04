"""Steps of a compiled model on a device without weights, in the way in which its target is controlled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from dlavm.compile import BATCH, Compiled
from dlavm.describe import CompiledEntry, stream_name
from dlavm.profile.subject import step_values
from dlavm.sim.device import Counters
from dlavm.sim.native import NativeDevice
from dlavm.sym import evaluate
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task import run

START = 1  # CONTROL


class Way(Protocol):
    """One entry of the program on one device."""

    def select(self) -> None:
        """Makes the device ready for steps through this entry."""

    def start(self, values: Mapping[str, int]) -> None:
        """Runs a step to its end with these arguments."""


class Stream:
    """The program lies in memory; a step begins with its arguments in registers, or in the words that they change."""

    def __init__(self, device: NativeDevice, compiled: Compiled, name: str) -> None:
        self._device, self._compiled = device, compiled
        self._code = compiled.entries[name].code
        self._words = np.array(self._code.words, "<u4")
        self._address = compiled.memory.bases[stream_name(name)]
        self._write()

    def select(self) -> None:
        registers = self._compiled.spec.registers
        self._device.csr_write(registers["PROGRAM"].offset, self._address // ADDRESS_UNIT)
        self._device.csr_write(registers["PROGRAM_WORDS"].offset, len(self._words))

    def start(self, values: Mapping[str, int]) -> None:
        registers = self._compiled.spec.registers
        if self._code.patches:
            for expr, offsets in self._code.patches.items():
                self._words[list(offsets)] = evaluate(expr, values)
            self._write()
        else:
            for place, arg in enumerate(self._compiled.program.args):
                self._device.csr_write(registers["ARG"].offset + 4 * place, values[arg.name])
        self._device.csr_write(registers["CONTROL"].offset, START)
        self._device.run()

    def _write(self) -> None:
        self._device.mem_write(self._address, self._words)


class Launches:
    """The host writes every command into registers."""

    def __init__(self, device: NativeDevice, compiled: Compiled, name: str) -> None:
        program = compiled.entries[name].code.program
        assert program is not None
        self._device, self._spec, self._program = device, compiled.spec, program

    def select(self) -> None:
        """Nothing: every command is written anew."""

    def start(self, values: Mapping[str, int]) -> None:
        self._device.csr_write(self._spec.registers["CONTROL"].offset, START)  # counters begin anew
        run(self._program, self._device, self._spec, values, {})


WAYS: Mapping[str, Callable[[NativeDevice, Compiled, str], Way]] = {
    "scalars": Stream, "patches": Stream, "registers": Launches,
}  # fmt: skip


class Steps:
    """All entries of a compiled model for one sequence."""

    def __init__(self, device: NativeDevice, compiled: Compiled) -> None:
        self.device = device
        self._selected: Way | None = None
        self._entries = [(entry.bounds, WAYS[entry.code.control](device, compiled, name))
                         for name, entry in sorted(compiled.entries.items(), key=_tokens) if name != BATCH]  # fmt: skip

    def step(self, tokens: int, depth: int, head_rows: int = 1) -> Counters:
        """Runs a step through the entry for the fewest tokens that takes it."""
        values = step_values(tokens, depth, head_rows)
        way = next(way for bounds, way in self._entries if _admits(bounds, values))
        if way is not self._selected:
            way.select()
        self._selected = way
        way.start(values)
        return self.device.counters()


def _tokens(item: tuple[str, CompiledEntry]) -> int:
    return item[1].bounds.get("token", (1, 1))[1]


def _admits(bounds: Mapping[str, tuple[int, int]], values: Mapping[str, int]) -> bool:
    return all(low <= values[name] <= high for name, (low, high) in bounds.items())
