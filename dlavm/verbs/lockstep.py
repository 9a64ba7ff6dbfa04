"""Engines fed with the same tokens, their logits and their whole memory compared after each step."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.pack.artifact import Artifact
from dlavm.runtime.engine import RTL, Waves
from dlavm.runtime.session import Session, StepResult, open_session

BLOCK_BYTES = 4 << 20
SHOWN = 20  # mismatches that a report lists
SLOW = ("reference", RTL)
WRITTEN = ("kv", "activations", "output", "input")  # roles that a step changes


@dataclass(frozen=True)
class Region:
    """Bytes of device memory that the artifact uses; `names` are the tensors that lie there."""

    address: int
    bytes: int
    names: tuple[str, ...]
    is_written: bool


def _spans(artifact: Artifact) -> list[tuple[int, int, str, bool]]:
    """Address, bytes and name of everything that the manifest places, and whether a step writes it."""
    manifest = artifact.manifest
    spans = [(t.address, t.bytes, t.name, t.role in WRITTEN) for t in manifest.tensors]
    spans += [(k.address, k.bytes, k.name, True) for k in manifest.kv]
    spans += [(b.address, b.bytes, b.file, False) for b in manifest.blobs]
    spans += [(p.address, 4 * p.words, p.file, False) for p in manifest.programs.values()]
    for entry in manifest.entries.values():
        ports = {**entry.inputs, **entry.outputs}
        spans += [(p.address, p.rows * p.stride, name, True) for name, p in ports.items()]
    return sorted(spans)


def regions(artifact: Artifact) -> list[Region]:
    """Everything that the manifest places, each byte once, in the order of addresses."""
    merged: list[Region] = []
    for address, count, name, is_written in _spans(artifact):
        last = merged[-1] if merged else None
        if last and address < last.address + last.bytes:
            end = max(last.address + last.bytes, address + count)
            merged[-1] = Region(last.address, end - last.address, (*last.names, name), last.is_written or is_written)
        elif count:
            merged.append(Region(address, count, (name,), is_written))
    return merged


class Lockstep:
    """Sessions of one artifact on several engines; the first engine's results count where one is needed.

    A context manager that closes the engines. `mismatches` counts the steps that differed, `problems` describes
    the first of them, `bytes_compared` counts memory and logits of each further engine. With `all_memory` that is every
    byte of the board's memories, else those that the artifact uses. `waves` are those of the engine rtl.
    """

    def __init__(
        self, artifact: Artifact, engines: Sequence[str], threads: int | None = None, waves: Waves | None = None,
        all_memory: bool = False,
    ) -> None:  # fmt: skip
        self.regions = regions(artifact)
        self.engines = tuple(engines)
        self.steps = 0
        self.bytes_compared = 0
        self.mismatches = 0
        self.problems: list[dict[str, Any]] = []
        self._spans = _spans(artifact)
        memories = artifact.target.board.memories.values()
        used = [(r.address, r.bytes) for r in self.regions]
        self._compared = [(m.base, m.capacity) for m in memories] if all_memory else used
        self._blocks = [np.empty(BLOCK_BYTES, np.uint8) for _ in engines]
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.sessions = [
                stack.enter_context(open_session(artifact, name, threads, waves if name == RTL else None))
                for name in engines
            ]
            self._stack = stack.pop_all()

    def __enter__(self) -> Lockstep:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def first(self) -> Session:
        return self.sessions[0]

    @property
    def fastest(self) -> Session:
        """A session that is good for long runs: on any engine but the slow ones, where there is one."""
        fast = (s for s, name in zip(self.sessions, self.engines, strict=True) if name not in SLOW)
        return next(fast, self.first)

    def clear(self) -> None:
        """Forgets all tokens and zeroes whatever a step changes, so that a run depends on its tokens alone."""
        zeros = np.zeros(BLOCK_BYTES, np.uint8)
        for session in self.sessions:
            session.reset()
            for address, count in self._block_spans(lambda r: r.is_written):
                session.device.mem_write(address, zeros[:count])

    def step(self, case: str, ids: Sequence[int], **options: Any) -> StepResult:
        """`Session.prefill` on every engine; then all logits and all memory are compared."""
        results = [session.prefill(ids, **options) for session in self.sessions]
        self.steps += 1
        found = [*self._compare_logits(results), *self._compare_memory()]
        if found:
            self.mismatches += 1
            self._report(case, found)
        return results[0]

    def fail(self, case: str, what: str) -> None:
        """Records a mismatch that was found elsewhere."""
        self.mismatches += 1
        self._report(case, [{"what": what}])

    def written_hash(self) -> str:
        """SHA-256 over what steps change in the first engine's memory: KV cache, activations, inputs, outputs."""
        return self._hash(lambda r: r.is_written)

    def kv_hash(self) -> str:
        """SHA-256 over the KV cache of the first engine, in the manifest's order."""
        return self._hash(lambda r: False, [(k.address, k.bytes) for k in self.first.artifact.manifest.kv])

    def _hash(self, wanted: Callable[[Region], bool], spans: Sequence[tuple[int, int]] = ()) -> str:
        digest = hashlib.sha256()
        for address, count in [*_blocks(spans), *self._block_spans(wanted)]:
            block = self._blocks[0][:count]
            self.first.device.mem_read_into(address, block)
            digest.update(block.data)
        return digest.hexdigest()

    def _block_spans(self, wanted: Callable[[Region], bool]) -> Iterator[tuple[int, int]]:
        return _blocks([(r.address, r.bytes) for r in self.regions if wanted(r)])

    def _report(self, case: str, found: Sequence[dict[str, Any]]) -> None:
        room = SHOWN - len(self.problems)
        self.problems += [{"step": self.steps, "case": case, **problem} for problem in found[:room]]

    def _compare_logits(self, results: Sequence[StepResult]) -> Iterator[dict[str, Any]]:
        base = results[0]
        for name, result in zip(self.engines[1:], results[1:], strict=True):
            self.bytes_compared += base.logits.nbytes
            ours, theirs = base.logits.view(np.uint16), result.logits.view(np.uint16)
            if not np.array_equal(ours, theirs):
                row, column = np.argwhere(ours != theirs)[0]
                yield {
                    "what": f"logits: row {row}, column {column}: {self.engines[0]} has {base.logits[row, column]}, "
                    f"{name} {result.logits[row, column]}"
                }

    def _compare_memory(self) -> Iterator[dict[str, Any]]:
        if len(self.sessions) == 1:
            return
        for address, count in _blocks(self._compared):
            blocks = [block[:count] for block in self._blocks]
            for session, block in zip(self.sessions, blocks, strict=True):
                session.device.mem_read_into(address, block)
            for name, block in zip(self.engines[1:], blocks[1:], strict=True):
                self.bytes_compared += count
                if not np.array_equal(blocks[0], block):
                    yield self._memory_problem(name, address, blocks[0], block)

    def _memory_problem(
        self, name: str, address: int, ours: NDArray[np.uint8], theirs: NDArray[np.uint8]
    ) -> dict[str, Any]:
        differing = np.flatnonzero(ours != theirs)
        place = address + int(differing[0])
        tensors = sorted({name for start, count, name, _ in self._spans if start <= place < start + count})
        return {
            "what": f"memory: {len(differing)} bytes of this block, the first at 0x{place:x} "
            f"({', '.join(tensors) or 'nothing of the artifact'}): {self.engines[0]} has {ours[differing[0]]}, "
            f"{name} {theirs[differing[0]]}",
            "address": place,
            "tensors": tensors,
        }


def _blocks(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for address, count in spans:
        for start in range(0, count, BLOCK_BYTES):
            yield address + start, min(BLOCK_BYTES, count - start)


def logits_hash(result: StepResult) -> str:
    """SHA-256 over the logits of a step."""
    return hashlib.sha256(result.logits.tobytes()).hexdigest()
