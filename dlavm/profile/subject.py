"""What is timed: the program of a step and what is known of its memory, from an artifact or from a compiled model."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dlavm.compile import Compiled
from dlavm.describe import ENTRY, stream_name, tensors
from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import TensorInfo
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.target.sizes import sizes


@dataclass(frozen=True)
class Subject:
    """`words` of the program at byte `address`; `args`: its arguments in the order of the ARG registers; `listing`:
    its assembly, with the places of commands in the model as comments."""

    name: str
    spec: TargetSpec
    words: list[int]
    address: int
    args: tuple[str, ...]
    listing: str
    tensors: tuple[TensorInfo, ...]
    ctx: int
    chunk: int

    @property
    def beat_bytes(self) -> int:
        """Of the core's AXI ports."""
        return sizes(self.spec).port_bytes

    @cached_property
    def _sorted(self) -> tuple[list[int], list[TensorInfo]]:
        found = sorted(self.tensors, key=lambda t: t.address)
        return [t.address for t in found], found

    def tensor(self, address: int) -> TensorInfo | None:
        """What lies at a byte address; of buffers that share it, the one that begins last."""
        starts, found = self._sorted
        for at in range(bisect_right(starts, address) - 1, max(-1, bisect_right(starts, address) - 9), -1):
            if address < found[at].address + found[at].bytes:
                return found[at]
        return None

    def check(self, tokens: int, depth: int) -> None:
        """Raises DlavmError unless a step of so many tokens at that depth is one of the program's."""
        if not 1 <= tokens <= self.chunk:
            raise DlavmError(f"profile: expected a step of 1..{self.chunk} tokens, got {tokens}")
        if depth + tokens > self.ctx:
            raise DlavmError(f"profile: expected depth and tokens within the context of {self.ctx} positions, "
                             f"got {depth + tokens}")


def check_target(spec: TargetSpec, what: str) -> None:
    """Raises DlavmError for a target that the timed simulator does not have."""
    if not spec.has("stream", "scalars"):
        raise DlavmError(f"{what}: expected a target with a stream and scalars, got {spec.name}")


def of_artifact(artifact: Artifact) -> Subject:
    """Raises DlavmError for an artifact of a target that the timed simulator does not have."""
    check_target(artifact.target, "profile")
    manifest = artifact.manifest
    program, model = manifest.programs[ENTRY], manifest.model
    words = np.frombuffer(artifact.file(program.file).read_bytes(), "<u4").tolist()
    return Subject(manifest.name, artifact.target, words, program.address, manifest.entries[ENTRY].args,
                   artifact.file("asm.txt").read_text(encoding="utf-8"), manifest.tensors, model.ctx, model.chunk)


def of_compiled(compiled: Compiled, name: str, ctx: int, chunk: int) -> Subject:
    """`ctx`, `chunk`: those that it was compiled for."""
    check_target(compiled.spec, "profile")
    return Subject(name, compiled.spec, compiled.words, compiled.memory.bases[stream_name(ENTRY)],
                   tuple(arg.name for arg in compiled.program.args), compiled.texts()["asm.txt"],
                   tensors(compiled.graph, compiled.lowered, compiled.program, compiled.memory), ctx, chunk)
