"""A sequence of tokens on a device: steps of up to `chunk` tokens through the KV cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import ITEM_BYTES, Entry, Port, Table
from dlavm.runtime.control import Control, open_control
from dlavm.runtime.engine import Waves, open_engine
from dlavm.runtime.state import StateLayout
from dlavm.sim.device import Counters, Device, DeviceError
from dlavm.support.errors import DlavmError
from dlavm.target.spec import ADDRESS_UNIT

ENTRY = "step"
ARGS = ("token", "kv_len", "head_rows", "kv_base")
FIXED = {"token": 1, "kv_len": 0, "head_rows": 0, "kv_base": 0}  # what can have one value is no argument
DTYPES: dict[str, np.dtype[Any]] = {"f16": np.dtype("<f2"), "u32": np.dtype("<u4")}


@dataclass(frozen=True)
class StepResult:
    """What the device computed: logits (head_rows, vocab_size) fp16, their argmax (head_rows,) u32, counters."""

    logits: NDArray[np.float16]
    next_ids: NDArray[np.uint32]
    counters: Counters


class Session:
    """One sequence on a device that holds the artifact. A context manager that closes the device.

    `sequence` is the KV cache that it uses, one of `manifest.sequences.count`. Raises DlavmError for one past the last.
    """

    def __init__(self, artifact: Artifact, device: Device, sequence: int = 0) -> None:
        count = artifact.manifest.sequences.count
        if not 0 <= sequence < count:
            raise DlavmError(f"session: sequence: expected 0..{count - 1}, got {sequence!r}")
        self.artifact = artifact
        self.device = device
        self.model = artifact.manifest.model
        self._entry = _step_entry(artifact)
        self._controls = _controls(artifact, device)
        self._controls[-1][1].select()
        self._tables = {name: _table(artifact, table, self._entry.inputs[name])
                        for name, table in self._entry.tables.items()}  # fmt: skip
        self._ids: list[int] = []
        self.sequence = sequence
        self._state = StateLayout(artifact.manifest)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the device; the session is of no use afterwards."""
        self.device.close()

    @property
    def kv_len(self) -> int:
        """Tokens in the KV cache."""
        return len(self._ids)

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens whose keys and values are in the cache."""
        return tuple(self._ids)

    @property
    def room(self) -> int:
        """Tokens that still fit the context."""
        return self.model.ctx - self.kv_len

    def reset(self) -> None:
        """Forgets every token."""
        self._ids.clear()

    def rewind(self, n: int) -> None:
        """Forgets the last `n` tokens. Raises DlavmError if there are fewer."""
        if not 0 <= n <= self.kv_len:
            raise DlavmError(f"session: rewind: expected 0..{self.kv_len} tokens, got {n!r}")
        del self._ids[self.kv_len - n :]

    def state_bytes(self, kv_len: int) -> int:
        """Length of a saved cache of `kv_len` tokens."""
        return self._state.size(kv_len)

    def save_state(self) -> bytes:
        """The cache as bytes, the same for the same tokens."""
        return self._state.read(self.device, self.sequence, self.kv_len)

    def load_state(self, ids: Sequence[int], state: bytes) -> None:
        """Makes the cache that of `ids`, as `save_state` gave it.

        Raises DlavmError for ids or a state that this model cannot have; the session is then as it was.
        """
        plain = self._check_ids(ids, self.model.ctx, "state")
        self._state.write(self.device, self.sequence, len(plain), state)
        self._ids = plain

    def check_prompt(self, ids: Sequence[int]) -> list[int]:
        """The ids as a list, or DlavmError: none at all, an id out of range, or more than the context has room for."""
        plain = self._check_ids(ids, self.room, "prompt")
        if not plain:
            raise DlavmError("session: prompt: expected at least one token, got none")
        return plain

    def _check_ids(self, ids: Sequence[int], room: int, what: str) -> list[int]:
        plain = [int(token) for token in ids]
        largest = self.model.vocab_size - 1
        for place, token in enumerate(plain):
            if not 0 <= token <= largest:
                raise DlavmError(f"session: {what}: token {place}: expected an id in 0..{largest}, got {token}")
        if len(plain) > room:
            raise DlavmError(f"session: {what}: expected at most {room} tokens (context {self.model.ctx}, in the "
                             f"cache {self.model.ctx - room}), got {len(plain)}")
        return plain

    def step(self, ids: Sequence[int], head_rows: int) -> StepResult:
        """Runs 1..chunk tokens after those in the cache; logits of the last `head_rows` of them.

        Raises DlavmError for ids out of range, for more tokens than a step takes or the context holds, and for
        what the device refuses; the cache is then as it was.
        """
        ids = self.check_prompt(ids)
        if len(ids) > self.model.chunk:
            raise DlavmError(f"session: step: expected 1..{self.model.chunk} tokens, got {len(ids)}")
        self._check_rows(ids, head_rows)
        kv_base = self.sequence * self.artifact.manifest.sequences.stride // ADDRESS_UNIT
        values = {"token": len(ids), "kv_len": self.kv_len, "head_rows": head_rows, "kv_base": kv_base}
        control = next(control for entry, control in self._controls if _admits(entry, values))
        try:
            result = self.run_entry(control, ids, values)
        except DeviceError as error:
            where = f"session: step of {len(ids)} tokens at {self.kv_len}"
            raise DlavmError(f"{where}: the device stopped: {error.code}: {error}") from error
        self.fed(ids)
        return result

    def run_entry(self, control: Control, ids: Sequence[int], values: Mapping[str, int]) -> StepResult:
        """A step through an entry of the artifact with these arguments; what is cached is the caller's business."""
        self._write_input(np.asarray(ids, "<u4"))
        control.select()
        control.start(values)
        logits = self._read(self._entry.outputs["logits"], values["head_rows"])
        return StepResult(logits, self._next_ids(logits), self.device.counters())

    def fed(self, ids: Sequence[int]) -> None:
        """Notes tokens that a step put into the cache."""
        self._ids.extend(ids)

    def prefill(
        self, ids: Sequence[int], head_rows: int = 1, chunks: Sequence[int] | None = None, logits_all: bool = False
    ) -> StepResult:
        """Runs a prompt of any length, cut into steps; logits of its last `head_rows` tokens (all: `logits_all`).

        `chunks` are the lengths of the steps (None: as long as possible); the bits do not depend on them. Counters
        are summed. Raises DlavmError before anything runs if the prompt does not fit the context or `chunks`.
        """
        ids = self.check_prompt(ids)
        head_rows = len(ids) if logits_all else head_rows
        self._check_rows(ids, head_rows)
        parts: list[StepResult] = []
        first_row = len(ids) - head_rows
        start = 0
        for length in self._cut(len(ids), chunks):
            end = start + length
            parts.append(self.step(ids[start:end], max(0, end - max(start, first_row))))
            start = end
        return _join(parts)

    def _cut(self, total: int, chunks: Sequence[int] | None) -> Sequence[int]:
        chunk = self.model.chunk
        if chunks is None:
            return [min(chunk, total - start) for start in range(0, total, chunk)]
        if sum(chunks) != total or not all(1 <= n <= chunk for n in chunks):
            raise DlavmError(f"session: chunks: expected 1..{chunk} each and the sum {total}, got {list(chunks)!r}")
        return chunks

    def _check_rows(self, ids: Sequence[int], head_rows: int) -> None:
        if not 0 <= head_rows <= len(ids):
            raise DlavmError(f"session: head_rows: expected 0..{len(ids)}, got {head_rows!r}")

    def _write_input(self, ids: NDArray[np.uint32]) -> None:
        """The ids, or the rows of a table that they choose."""
        port = self._entry.inputs["ids"]
        if "ids" not in self._tables:
            self.device.mem_write(port.address, ids.tobytes())
            return
        rows = np.zeros((len(ids), port.stride // ITEM_BYTES[port.dtype]), DTYPES[port.dtype])
        rows[:, : port.columns] = self._tables["ids"][ids]
        self.device.mem_write(port.address, rows)

    def _next_ids(self, logits: NDArray[np.float16]) -> NDArray[np.uint32]:
        """The device's argmax, or the same rule (lowest index) on the host for a target that has none."""
        port = self._entry.outputs.get("next")
        if port is None:
            return np.argmax(logits, axis=1).astype(np.uint32)
        return self._read(port, len(logits))[:, 0]

    def _read(self, port: Port, rows: int) -> NDArray[Any]:
        """The first `rows` rows of an output, dense: (rows, columns)."""
        raw = np.empty((rows, port.stride), np.uint8)
        if rows:
            self.device.mem_read_into(port.address, raw)
        dense = np.ascontiguousarray(raw[:, : port.columns * ITEM_BYTES[port.dtype]])
        return dense.view(DTYPES[port.dtype])


def open_session(
    artifact: Artifact, engine: str = "sim", threads: int | None = None, waves: Waves | None = None
) -> Session:
    """A session on a fresh engine. Raises DlavmError as `open_engine` and `Session` do."""
    device = open_engine(engine, artifact, threads, waves)
    try:
        return Session(artifact, device)
    except BaseException:
        device.close()
        raise


def _join(parts: Sequence[StepResult]) -> StepResult:
    total = Counters(
        cycles=sum(part.counters.cycles for part in parts),
        commands=sum(part.counters.commands for part in parts),
        bytes_read=sum(part.counters.bytes_read for part in parts),
        bytes_written=sum(part.counters.bytes_written for part in parts),
    )
    logits = np.concatenate([part.logits for part in parts])
    return StepResult(logits, np.concatenate([part.next_ids for part in parts]), total)


def _admits(entry: Entry, values: Mapping[str, int]) -> bool:
    return all(low <= values[name] <= high for name, (low, high) in entry.bounds.items())


def _controls(artifact: Artifact, device: Device) -> list[tuple[Entry, Control]]:
    """Every way into the model for one sequence, those for fewer tokens first."""
    single = [entry for entry in artifact.manifest.entries.values() if entry.is_single]
    entries = sorted(single, key=lambda e: (e.most_tokens, e.program))
    return [(entry, open_control(device, artifact, entry)) for entry in entries]


def _table(artifact: Artifact, table: Table, port: Port) -> NDArray[np.float16]:
    """Rows (rows, columns), mapped."""
    path = artifact.file(table.file)
    return np.memmap(path, DTYPES[port.dtype], "r", shape=(table.rows, port.columns))


def _step_entry(artifact: Artifact) -> Entry:
    """The entry that a session drives, or DlavmError that names what it lacks."""
    manifest, where = artifact.manifest, f"artifact {str(artifact.path)!r}: entry {ENTRY!r}"
    entry = manifest.entries.get(ENTRY)
    if entry is None:
        raise DlavmError(f"{where}: expected such an entry, got {', '.join(manifest.entries) or 'none'}")
    unknown = set(entry.args) - set(ARGS)
    if unknown:
        raise DlavmError(f"{where}: args: expected some of {', '.join(ARGS)}, got {min(unknown)!r}")
    ranges = {"token": manifest.model.chunk, "kv_len": manifest.model.ctx - 1, "head_rows": manifest.model.chunk,
              "kv_base": (manifest.sequences.count - 1) * manifest.sequences.stride // ADDRESS_UNIT}
    for name, reach in ranges.items():
        high = entry.bounds[name][1] if name in entry.bounds else FIXED[name]
        if high < reach:
            raise DlavmError(f"{where}: bounds.{name}: expected to reach {reach}, got {high}")
    source = ("f16", manifest.model.hidden_size) if "ids" in entry.tables else ("u32", 1)
    for name, ports, dtype, columns in (("ids", entry.inputs, *source),
                                        ("logits", entry.outputs, "f16", manifest.model.vocab_size)):
        port = ports.get(name)
        if port is None or (port.dtype, port.columns) != (dtype, columns) or port.rows < manifest.model.chunk:
            raise DlavmError(f"{where}: {name}: expected {manifest.model.chunk} rows of {columns} {dtype}, got {port}")
    return entry
