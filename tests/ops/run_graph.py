"""Runs a graph without an artifact: compiled, written into the memory of a device, stepped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.compile import Compiled, Options, compile_graph, constants
from dlavm.describe import ENTRY, stream_name
from dlavm.frontend import Model
from dlavm.frontend.model import ALL
from dlavm.graph import Graph
from dlavm.pack.emit import Constant, pieces
from dlavm.pack.weights import to_half
from dlavm.sim.device import Device
from dlavm.sym import evaluate
from dlavm.target import TargetSpec
from dlavm.target.layout import row_bytes
from dlavm.target.spec import Memory
from dlavm.task import run

Params = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Step:
    """New tokens after `kv_len` cached ones, of which the last `head_rows` want logits."""

    ids: tuple[int, ...]
    kv_len: int
    head_rows: int


class ArrayWeights:
    """Arrays as a checkpoint."""

    place = "arrays"

    def __init__(self, arrays: Params) -> None:
        self._arrays = arrays

    def names(self) -> list[str]:
        return sorted(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._arrays[name].shape

    def dtype(self, name: str) -> str:
        return "F16"

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        return self._arrays[name][rows]

    def grid(self, name: str, rows: slice = ALL) -> None:
        return None

    def note(self, name: str) -> str:
        return ""

    def nearest(self, name: str) -> str:
        return ""


class GraphRun:
    """A graph on a device. `run` gives the bytes of every output and of every cache behind a step."""

    def __init__(
        self, graph: Graph, spec: TargetSpec, params: Params, engine: type, options: Options | None = None
    ) -> None:
        self._graph, self._spec, self._params = graph, spec, params
        self._compiled: Compiled = compile_graph(graph, spec, options or Options())
        self._device: Device = engine(spec)
        for constant in constants(self._compiled, Model("arrays", lambda ctx, chunk: graph, ArrayWeights(params))):
            self._write(constant)
        # Something to see, also in a cache that the graph only reads.
        rng = np.random.default_rng(2)
        for name, layout in self._compiled.lowered.kv.items():
            content = rng.standard_normal(layout.bytes // 2).astype(np.float16)
            self._device.mem_write(self._compiled.memory.bases[name], content.tobytes())

    def _write(self, constant: Constant) -> None:
        region = next(r for r in self._compiled.memory.regions if r.base <= constant.address < r.base + r.bytes)
        memory = self._spec.board.memory(region.space)
        for start, channels in pieces(constant, memory):
            address = constant.address + start * memory.channels
            self._device.mem_write(address, linear(channels, memory).tobytes())

    def run(self, step: Step) -> dict[str, bytes]:
        self._write_inputs(step)
        args = {"token": len(step.ids), "kv_len": step.kv_len, "head_rows": step.head_rows, "kv_base": 0}
        self._start(args)
        return {**self._outputs(args), **self._caches()}

    def close(self) -> None:
        self._device.close()

    def _write_inputs(self, step: Step) -> None:
        for source in self._compiled.lowered.inputs.values():
            address = self._compiled.memory.bases[source.buffer]
            if source.table:
                table = next(p for p in self._graph.params if p.name == source.table)
                rows = to_half(self._params[table.source])[list(step.ids)]
                padded = np.zeros((len(rows), row_bytes(rows.shape[1]) // 2), np.float16)
                padded[:, : rows.shape[1]] = rows
                self._device.mem_write(address, padded.tobytes())
            else:
                self._device.mem_write(address, np.array(step.ids, "<u4").tobytes())

    def _start(self, args: Mapping[str, int]) -> None:
        entry = self._compiled.entries[ENTRY]
        registers = {name: register.offset for name, register in self._spec.registers.items()}
        if entry.code.program:
            run(entry.code.program, self._device, self._spec, args, {})
            return
        words = list(entry.code.words)
        for expr, offsets in entry.code.patches.items():
            for offset in offsets:
                words[offset] = evaluate(expr, args)
        address = self._compiled.memory.bases[stream_name(ENTRY)]
        room = next(r for r in self._compiled.memory.regions if r.role == "program")
        assert address + 4 * len(words) <= room.base + room.bytes
        self._device.mem_write(address, np.array(words, "<u4").tobytes())
        self._device.csr_write(registers["PROGRAM"], address // 16)
        self._device.csr_write(registers["PROGRAM_WORDS"], len(words))
        if not entry.code.patches:
            for i, arg in enumerate(self._compiled.program.args):
                self._device.csr_write(registers["ARG"] + 4 * i, args[arg.name])
        self._device.csr_write(registers["CONTROL"], 1)
        self._device.run()

    def _outputs(self, args: Mapping[str, int]) -> dict[str, bytes]:
        found = {}
        for label, rows in self._compiled.lowered.outputs.items():
            size = row_bytes(rows.dim) * evaluate(rows.outer, args) if rows.outer_stride else 4
            found[label] = self._device.mem_read(self._compiled.memory.bases[self._graph.outputs[label].name], size)
        return found

    def _caches(self) -> dict[str, bytes]:
        layouts = self._compiled.lowered.kv
        return {name: self._device.mem_read(self._compiled.memory.bases[name], layouts[name].bytes) for name in layouts}


def linear(channels: NDArray[np.uint8], memory: Memory) -> NDArray[np.uint8]:
    """[channels, bytes of a channel] -> the bytes in the order of addresses."""
    return channels.reshape(memory.channels, -1, memory.port_bytes).transpose(1, 0, 2).reshape(-1)


def outcome(
    graph: Graph, spec: TargetSpec, params: Params, steps: Sequence[Step], engine: type, options: Options | None = None
) -> list[dict[str, bytes]]:
    """What a run of all steps leaves behind, step by step."""
    made = GraphRun(graph, spec, params, engine, options)
    try:
        return [made.run(step) for step in steps]
    finally:
        made.close()
