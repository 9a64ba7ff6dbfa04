"""Steps of a compiled model on a device without weights, in the way in which its target is controlled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from dlavm.compile import BATCH, Compiled
from dlavm.describe import CompiledEntry, stream_name
from dlavm.profile.subject import Subject
from dlavm.sim.device import Counters
from dlavm.sim.native import NativeDevice
from dlavm.sym import Expr, evaluate
from dlavm.target import TargetSpec
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task import Program, run

START = 1  # CONTROL
Bounds = Mapping[str, tuple[int, int]]


class Way(Protocol):
    """One entry of the program on one device."""

    def select(self) -> None:
        """Makes the device ready for steps through this entry."""

    def start(self, values: Mapping[str, int]) -> None:
        """Runs a step to its end with these arguments."""


class Stream:
    """The program lies in memory; a step begins with its arguments in registers, or in the words that they change."""

    def __init__(
        self, device: NativeDevice, spec: TargetSpec, address: int, words: Sequence[int], args: Sequence[str],
        patches: Mapping[Expr, Sequence[int]],
    ) -> None:  # fmt: skip
        self._device, self._registers, self._address = device, spec.registers, address
        self._words, self._args, self._patches = np.array(words, "<u4"), args, patches
        self._write()

    def select(self) -> None:
        self._device.csr_write(self._registers["PROGRAM"].offset, self._address // ADDRESS_UNIT)
        self._device.csr_write(self._registers["PROGRAM_WORDS"].offset, len(self._words))

    def start(self, values: Mapping[str, int]) -> None:
        for expr, offsets in self._patches.items():
            self._words[list(offsets)] = evaluate(expr, values)
        if self._patches:
            self._write()
        for place, arg in enumerate(self._args):
            self._device.csr_write(self._registers["ARG"].offset + 4 * place, values[arg])
        self._device.csr_write(self._registers["CONTROL"].offset, START)
        self._device.run()

    def _write(self) -> None:
        self._device.mem_write(self._address, self._words)


class Launches:
    """The host writes every command into registers."""

    def __init__(self, device: NativeDevice, spec: TargetSpec, program: Program) -> None:
        self._device, self._spec, self._program = device, spec, program

    def select(self) -> None:
        """Nothing: every command is written anew."""

    def start(self, values: Mapping[str, int]) -> None:
        self._device.csr_write(self._spec.registers["CONTROL"].offset, START)  # counters begin anew
        run(self._program, self._device, self._spec, values, {})


class Steps:
    """Ways into one model for one sequence, those for fewer tokens first, with the bounds of their arguments."""

    def __init__(self, device: NativeDevice, ways: Sequence[tuple[Bounds, Way]]) -> None:
        self.device, self._ways = device, ways
        self._selected: Way | None = None

    def step(self, tokens: int, depth: int, head_rows: int = 1) -> Counters:
        """Runs a step of the first sequence by the way for the fewest tokens that takes it."""
        values = {"token": tokens, "kv_len": depth, "head_rows": head_rows, "kv_base": 0}
        way = next(way for bounds, way in self._ways if _admits(bounds, values))
        if way is not self._selected:
            way.select()
        self._selected = way
        way.start(values)
        return self.device.counters()


def of_subject(device: NativeDevice, subject: Subject) -> Steps:
    """Steps of what is profiled."""
    return Steps(device, [({}, Stream(device, subject.spec, subject.address, subject.words, subject.args, {}))])


def of_compiled(device: NativeDevice, compiled: Compiled) -> Steps:
    """Steps of a compiled model, through all of its entries but that for several sequences."""
    entries = sorted(((name, e) for name, e in compiled.entries.items() if name != BATCH), key=_tokens)
    return Steps(device, [(entry.bounds, _way(device, compiled, name)) for name, entry in entries])


def _way(device: NativeDevice, compiled: Compiled, name: str) -> Way:
    spec, code = compiled.spec, compiled.entries[name].code
    if code.program is not None:
        return Launches(device, spec, code.program)
    args = [] if code.patches else [arg.name for arg in compiled.program.args]
    return Stream(device, spec, compiled.memory.bases[stream_name(name)], code.words, args, code.patches)


def pieces(tokens: int, depth: int, chunk: int) -> list[tuple[int, int, int]]:
    """The steps of a prompt: tokens of each, those in the cache before, rows of logits."""
    return [(min(chunk, tokens - at), depth + at, int(at + chunk >= tokens)) for at in range(0, tokens, chunk)]


def rates(spec: TargetSpec, counters: Sequence[Counters], tokens: int) -> dict[str, float]:
    """What steps of so many tokens took at the board's clock; `memory_share`: of the peak, of all bytes."""
    cycles, moved = sum(c.cycles for c in counters), sum(c.bytes_read + c.bytes_written for c in counters)
    seconds = cycles / (spec.board.clock_mhz * 1e6)
    return {"cycles": cycles, "ms": 1000 * seconds, "tok_s": tokens / seconds, "bytes": moved,
            "memory_share": moved / seconds / (1e9 * spec.space("weights").peak_gbs)}  # fmt: skip


def _tokens(item: tuple[str, CompiledEntry]) -> int:
    return item[1].bounds.get("token", (1, 1))[1]


def _admits(bounds: Bounds, values: Mapping[str, int]) -> bool:
    return all(low <= values[name] <= high for name, (low, high) in bounds.items())
