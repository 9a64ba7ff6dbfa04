"""A small artifact and a device that stands in for an engine: next tokens come from a function of the tokens so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlavm.pack.artifact import Artifact, ArtifactWriter
from dlavm.pack.manifest import (
    Blob,
    Entry,
    Image,
    KvRegion,
    Manifest,
    MemoryUse,
    ModelInfo,
    Port,
    Program,
    Sequences,
    TensorInfo,
)
from dlavm.sim.device import Counters, DeviceError
from dlavm.target.spec import TargetSpec, load_target

VOCAB, CTX, CHUNK = 300, 64, 16
IDS, LOGITS, NEXT, PROGRAM, TABLES, KV = 0x100, 0x40000, 0x8000, 0x9000, 0xA000, 0x20000
WEIGHTS, WEIGHTS_OFFSET = bytes(range(256)) * 4, 0x80000
CACHED = 0x3C00  # 1.0
STREAM = b"\x01\x02\x03\x04" * 8


def spec() -> TargetSpec:
    return load_target("v3", "nano")


def manifest(vocab: int = VOCAB, ctx: int = CTX, chunk: int = CHUNK, eos: tuple[int, ...] = (1,)) -> Manifest:
    base = spec().space("weights").base + WEIGHTS_OFFSET
    head_bytes = -(-ctx // 32) * 2048
    kv_bytes = 2 * head_bytes
    entry = Entry(
        "step", ("token", "kv_len", "head_rows", "kv_base"),
        {"token": (1, chunk), "kv_len": (0, ctx - 1), "head_rows": (0, chunk), "kv_base": (0, kv_bytes // 16)},
        {"ids": Port(IDS, "u32", chunk)},
        {"logits": Port(LOGITS, "f16", chunk, vocab, 2 * vocab + 8), "next": Port(NEXT, "u32", chunk)},
    )  # fmt: skip
    return Manifest(
        name="tiny", target="v3", board="nano", target_hash=spec().hash, quant="int4g128",
        model=ModelInfo("llama", vocab, 64, 2, 4, 2, 16, ctx, chunk, 0, eos, {"rope_theta": 10000.0}),
        tensors=(TensorInfo("w", "weights", base, len(WEIGHTS), "int4g128", (8, 128)),),
        images=tuple(Image(f"weights/ch{c:02d}.bin", c, base, len(WEIGHTS)) for c in range(2)),
        blobs=(Blob("tables.bin", TABLES, 64), Blob("program/step.bin", PROGRAM, 32)),
        programs={"step": Program("scalars", "program/step.bin", PROGRAM, 8)},
        entries={"step": entry},
        kv=(KvRegion("kv", KV, 2, head_bytes, 2048),),
        sequences=Sequences(2, kv_bytes),
        memory=MemoryUse(1024, kv_bytes, 512, 512, 32, 0x8000000),
    )  # fmt: skip


def write(
    path: Path, chosen: Manifest | None = None, tokenizer: Path | None = None, stream: bytes = STREAM
) -> Artifact:
    """An artifact at `path` (logits rows lie 8 bytes apart); `tokenizer` is a checkpoint directory."""
    with ArtifactWriter(path) as writer:
        for image in manifest().images:
            writer.add_file(image.file, lambda file: file.write(WEIGHTS))
        writer.add_file("tables.bin", bytes(64))
        writer.add_file("program/step.bin", stream)
        if tokenizer is not None:
            writer.add_tokenizer(tokenizer)
        writer.finish(chosen or manifest())
    return Artifact.open(path)


def follow(ids: Sequence[int]) -> int:
    """A next token that depends on every token before."""
    return int(sum((place + 1) * token for place, token in enumerate(ids)) * 7 % VOCAB)


def logits_for(chosen: int, vocab: int = VOCAB) -> np.ndarray[Any, np.dtype[np.float16]]:
    """5 at `chosen`, a slope below 1 elsewhere."""
    logits = (np.arange(vocab) / vocab).astype(np.float16)
    logits[chosen] = 5
    return logits


class FakeDevice:
    """Runs any program as: append the ids to the cache, logits 5 at the next token, a slope below 1 elsewhere.

    The cache is the first head's rows of KV memory: the id and a mark, as the bits of fp16 numbers.
    """

    def __init__(self, artifact: Artifact, next_of: Callable[[Sequence[int]], int] = follow) -> None:
        self.model = artifact.manifest.model
        self.registers = artifact.target.registers
        self.memory = np.zeros(1 << 20, np.uint8)
        self.csr = {self.registers["ID"].offset: int(artifact.target.hash[:8], 16)}
        self.next_of = next_of
        self.cache: list[int] = []
        self.steps: list[int] = []
        self.mapped: list[tuple[int, int, str, int]] = []
        self.interrupt_at = -1
        self.fail_at = -1
        self.closed = False

    def mem_read(self, address: int, count: int) -> bytes:
        return self.memory[address : address + count].tobytes()

    def mem_read_into(self, address: int, out: np.ndarray[Any, Any]) -> None:
        out.reshape(-1).view(np.uint8)[...] = self.memory[address : address + out.nbytes]

    def mem_write(self, address: int, data: Any) -> None:
        raw = np.frombuffer(data, np.uint8)
        if address + raw.size > self.memory.size:
            raise DeviceError("bad_address", f"0x{address:x} lies outside memory")
        self.memory[address : address + raw.size] = raw

    def mem_map(self, address: int, channel: int, path: str | Path, nbytes: int) -> None:
        self.mapped.append((address, channel, Path(path).name, nbytes))

    def csr_read(self, offset: int) -> int:
        return self.csr.get(offset, 0)

    def csr_write(self, offset: int, value: int) -> None:
        self.csr[offset] = value

    def run(self, max_commands: int | None = None) -> int:
        if len(self.steps) == self.interrupt_at:
            self.interrupt_at = -1
            raise KeyboardInterrupt
        if len(self.steps) == self.fail_at:
            raise DeviceError("illegal_opcode", "word 3: opcode 0xff")
        assert self.csr.pop(self.registers["CONTROL"].offset) == 1
        token, kv_len, head_rows, kv_base = (self.csr[self.registers["ARG"].offset + 4 * i] for i in range(4))
        self.steps.append(token)
        fresh = self.memory[IDS : IDS + 4 * token].view(np.uint32).tolist()
        places = [KV + 16 * kv_base + place // 32 * 2048 + place % 32 * 64 for place in range(kv_len + token)]
        for place, value in zip(places[kv_len:], fresh, strict=True):
            self.mem_write(place, np.uint16([value, CACHED]).tobytes())
        rows = [self.memory[place : place + 4].view(np.uint16).tolist() for place in places]
        assert all(mark == CACHED for _, mark in rows)
        self.cache = [value for value, _ in rows]
        for row in range(head_rows):
            seen = self.cache[: len(self.cache) - head_rows + row + 1]
            self._write_row(row, self.next_of(seen))
        return 1

    def _write_row(self, row: int, chosen: int) -> None:
        vocab = self.model.vocab_size
        logits = logits_for(chosen, vocab)
        self.mem_write(LOGITS + row * (2 * vocab + 8), logits.tobytes())
        self.mem_write(NEXT + 4 * row, np.uint32(chosen).tobytes())

    def counters(self) -> Counters:
        return Counters(cycles=10, commands=1, bytes_read=1000, bytes_written=100)

    def info(self) -> dict[str, Any]:
        return {"engine": "fake"}

    def close(self) -> None:
        self.closed = True
