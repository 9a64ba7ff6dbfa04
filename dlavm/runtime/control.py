"""Starting a step on a device: by scalar registers, by patching a stream, by running a register program."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np

from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import Entry, Program
from dlavm.runtime.engine import select_program
from dlavm.sim.device import Device
from dlavm.support.errors import DlavmError
from dlavm.sym import Var, evaluate, parse
from dlavm.task import parse_program
from dlavm.task import run as run_program

START = 1  # CONTROL
_selected: WeakKeyDictionary[Device, str] = WeakKeyDictionary()  # several sessions may share a device


class Control(Protocol):
    """One way into a model on one device."""

    def select(self) -> None:
        """Makes the device ready for steps through this entry, which another one may have been used on last."""

    def start(self, values: Mapping[str, int]) -> None:
        """Runs a step to its end with these arguments. Raises DeviceError where the device stops."""


class Scalars:
    """Arguments go into the registers ARG, in the order of the entry."""

    def __init__(self, device: Device, artifact: Artifact, entry: Entry) -> None:
        self._device, self._artifact, self._entry = device, artifact, entry

    def select(self) -> None:
        _select(self._device, self._artifact, self._entry.program)

    def start(self, values: Mapping[str, int]) -> None:
        registers = self._artifact.target.registers
        for place, arg in enumerate(self._entry.args):
            self._device.csr_write(registers["ARG"].offset + 4 * place, values[arg])
        _run(self._device, self._artifact)


class Patches:
    """The values of expressions over the arguments go into words of the stream."""

    def __init__(self, device: Device, artifact: Artifact, entry: Entry) -> None:
        self._device, self._artifact, self._name = device, artifact, entry.program
        program = artifact.manifest.programs[entry.program]
        self._address = program.address
        self._words = np.fromfile(artifact.file(program.file), "<u4")
        variables = {arg: Var(arg, *pair) for arg, pair in entry.bounds.items() if pair[0] < pair[1]}
        rows = _patch_rows(artifact, program)
        self._patches = [(parse(text, variables), np.array(offsets)) for text, offsets in rows]

    def select(self) -> None:
        _select(self._device, self._artifact, self._name)

    def start(self, values: Mapping[str, int]) -> None:
        for expr, offsets in self._patches:
            self._words[offsets] = evaluate(expr, values)
        self._device.mem_write(self._address, self._words)
        _run(self._device, self._artifact)


class Registers:
    """The host writes every command into registers and waits for its end."""

    def __init__(self, device: Device, artifact: Artifact, entry: Entry) -> None:
        self._device, self._artifact = device, artifact
        file = artifact.file(artifact.manifest.programs[entry.program].file)
        self._program = parse_program(file.read_text(encoding="utf-8"))

    def select(self) -> None:
        """Nothing: every command is written anew."""

    def start(self, values: Mapping[str, int]) -> None:
        self._device.csr_write(self._artifact.target.registers["CONTROL"].offset, START)  # counters begin anew
        run_program(self._program, self._device, self._artifact.target, values, {})


CONTROLS: Mapping[str, Callable[[Device, Artifact, Entry], Control]] = {
    "scalars": Scalars, "patches": Patches, "registers": Registers,
}  # fmt: skip


def open_control(device: Device, artifact: Artifact, entry: Entry) -> Control:
    """The control of an entry of the artifact. Raises DlavmError for files that are not what the manifest says."""
    return CONTROLS[artifact.manifest.programs[entry.program].control](device, artifact, entry)


def _select(device: Device, artifact: Artifact, name: str) -> None:
    """Points the device at a program, unless it is already."""
    if _selected.get(device) != name:
        select_program(device, artifact, name)
        _selected[device] = name


def _run(device: Device, artifact: Artifact) -> None:
    try:
        device.csr_write(artifact.target.registers["CONTROL"].offset, START)
        device.run()
    except BaseException:
        _selected.pop(device, None)  # it may have been reset, its registers too
        raise


def _patch_rows(artifact: Artifact, program: Program) -> list[tuple[str, list[int]]]:
    path = artifact.file(program.patches)
    try:
        rows = [(str(text), [int(offset) for offset in offsets]) for text, offsets in json.loads(path.read_bytes())]
    except (ValueError, TypeError) as error:
        raise DlavmError(f"{path}: expected pairs of an expression and word offsets, got {error}") from None
    last = max((max(offsets) for _, offsets in rows if offsets), default=0)
    if last >= program.words or min((min(offsets) for _, offsets in rows if offsets), default=0) < 0:
        raise DlavmError(f"{path}: expected offsets in 0..{program.words - 1}, got {last}")
    return rows
