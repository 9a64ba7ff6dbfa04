"""ReferenceDevice: the front end of the reference (registers, stream, scalars, loops) over its engines.

It fetches and decodes the instruction stream from its own memory, like every other engine. Ordering between engines is
not checked here: commands run one after the other, semaphores only count (the C++ simulator keeps the shadow check).
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dlavm.sim.device import Counters, DeviceError
from dlavm.sim.reference.matrix import MatrixEngine
from dlavm.sim.reference.memory import AddressError, FlatMemory
from dlavm.sim.reference.numerics import F32
from dlavm.sim.reference.store import StoreEngine
from dlavm.sim.reference.vector import VectorEngine
from dlavm.support.errors import DlavmError
from dlavm.target.isa import EncodingError, Instr, SReg, decode_header, decode_payload
from dlavm.target.spec import ADDRESS_UNIT, TargetSpec
from dlavm.target.tables import SEGMENTS

WORD = 0xFFFFFFFF
START, RESET = 1, 2
DONE, ERROR = 2, 4
MAX_COMMAND_WORDS = 40
NUMBERED = {"rd": "scalar_registers", "ra": "scalar_registers", "sem": "semaphores"}  # fields of the front end


class StoppedError(Exception):
    """A command stopped the core; `code` is the error's name."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class ReferenceDevice:
    def __init__(self, spec: TargetSpec) -> None:
        """Raises DlavmError for a target with a command that has no meaning here."""
        self._spec = spec
        self._pc = 0
        self._memory = FlatMemory(spec)
        self._matrix = MatrixEngine(spec, self._memory)
        self._vector = VectorEngine(spec, self._memory)
        self._store = StoreEngine(spec, self._memory)
        self._engine_ops: dict[str, Callable[[dict[str, int]], str]] = {
            "LINEAR": lambda f: self._matrix.linear(f, self._tables),
            "NORM": self._vector.norm, "SOFTMAX": self._vector.softmax, "ROPE": self._vector.rope,
            "ACT": lambda f: self._vector.act(f, self._tables), "ELTWISE": self._vector.eltwise,
            "ARGMAX": self._vector.argmax, "PERMUTE": self._vector.permute, "TOPK": self._vector.topk,
            "KV_APPEND": self._store.kv_append, "GATHER": self._store.gather, "COPY": self._store.copy,
            "LOAD_TABLE": self._load_table,
        }
        lacking = [c.name for c in spec.commands.values() if c.engine and c.name not in self._engine_ops]
        if lacking:
            raise DlavmError(f"reference: expected a meaning of every command of {spec.name}, got none of {lacking[0]}")
        self._registers = {r.offset + 4 * i: 0 for r in spec.registers.values() for i in range(r.count)}
        self._tables = self._empty_tables()
        self._fn = {v: k for k, v in spec.enums["scalar_fn"].items()}
        self._set("ID", int(spec.hash[:8], 16))
        self._reset()

    # -- Device protocol -------------------------------------------------------------------------------------------

    def mem_read(self, address: int, count: int) -> bytes:
        return self._memory.bytes(address, count).tobytes()

    def mem_read_into(self, address: int, out: np.ndarray[Any, Any]) -> None:
        out.reshape(-1).view(np.uint8)[...] = self._memory.bytes(address, out.nbytes)

    def mem_write(self, address: int, data: Any) -> None:
        raw = np.frombuffer(data, dtype=np.uint8)
        self._memory.bytes(address, raw.size)[...] = raw

    def mem_map(self, address: int, channel: int, path: str | Path, nbytes: int) -> None:
        self._memory.map_channel(address, channel, Path(path), nbytes)

    def csr_read(self, offset: int) -> int:
        if offset not in self._registers:
            raise DeviceError("bad_address", f"register 0x{offset:x} does not exist on {self._spec.name}")
        return self._registers[offset]

    def csr_write(self, offset: int, value: int) -> None:
        if offset not in self._registers:
            raise DeviceError("bad_address", f"register 0x{offset:x} does not exist on {self._spec.name}")
        registers = self._spec.registers
        if offset == registers["CONTROL"].offset:
            self._control(value)
        elif "LAUNCH" in registers and offset == registers["LAUNCH"].offset:
            self._launch(value)
        else:
            self._registers[offset] = value & WORD

    def run(self, max_commands: int | None = None) -> int:
        """Executes up to `max_commands` commands, or until END; raises DeviceError where the core stops."""
        executed = 0
        while self._running and (max_commands is None or executed < max_commands):
            at = self._pc
            try:
                self._step()
            except StoppedError as stop:
                self._pc = at
                raise self._stop(stop.code, str(stop)) from None
            executed += 1
        return executed

    def counters(self) -> Counters:
        """Commands of the last run; the reference counts neither cycles nor bytes."""
        return Counters(cycles=0, commands=self._commands, bytes_read=0, bytes_written=0)

    def info(self) -> dict[str, Any]:
        return {"engine": "reference", "simd": "numpy", "threads": 1}

    def set_option(self, name: str, value: str | int) -> None:
        """The reference has no options: one thread, one path."""

    def close(self) -> None:
        self._running = False

    def __enter__(self) -> ReferenceDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- front end -------------------------------------------------------------------------------------------------

    def _set(self, name: str, value: int, index: int = 0) -> None:
        register = self._spec.registers.get(name)
        if register:
            self._registers[register.offset + 4 * index] = value & WORD

    def _get(self, name: str, index: int = 0) -> int:
        return self._registers[self._spec.registers[name].offset + 4 * index]

    def _empty_tables(self) -> list[F32]:
        return [np.zeros((SEGMENTS, 2), dtype=np.float32) for _ in range(self._spec.limits["act_slots"])]

    def _reset(self) -> None:
        self._running, self._pc, self._commands = False, 0, 0
        self._scalars = [0] * max(1, self._spec.limits["scalar_registers"])
        self._semaphores = [0] * self._spec.limits["semaphores"]
        self._loops: list[tuple[int, int, int, int]] = []  # body start, register, count, index
        self._calls: list[int] = []
        self._set("STATUS", 0)
        self._set("ERROR", 0)

    def _control(self, value: int) -> None:
        if value & RESET:
            self._reset()
            self._matrix.reset()
            self._tables = self._empty_tables()
            identity = self._spec.registers["ID"].offset
            self._registers.update({offset: 0 for offset in self._registers if offset != identity})
        if value & START:
            self._reset()
            if "ARG" in self._spec.registers:
                self._scalars[1:9] = [self._get("ARG", i) for i in range(8)]
            # Without a stream there is nothing to run; the counters begin anew all the same.
            self._running = "PROGRAM" in self._spec.registers
            self._set("STATUS", 1 if self._running else DONE)

    def _launch(self, opcode: int) -> None:
        command = self._spec.opcodes.get(opcode)
        if command is None:
            raise self._stop("illegal_opcode", f"LAUNCH: opcode 0x{opcode:x} unknown to {self._spec.name}")
        self._commands += 1
        self._set("ERROR", 0)
        words = [self._get("OP", i) for i in range(command.payload_words)]
        try:
            fields = decode_payload(self._spec, command, words)
            self._execute(Instr(command.name, fields), 0)
            self._set("STATUS", DONE)
        except EncodingError as e:
            raise self._stop(e.code, str(e)) from None
        except StoppedError as stop:
            raise self._stop(stop.code, str(stop)) from None

    def _stop(self, code: str, text: str) -> DeviceError:
        self._running = False
        self._set("STATUS", ERROR)
        self._set("ERROR", self._spec.enums["error"][code])
        self._set("ERROR_PC", self._pc)
        return DeviceError(code, text)

    def _step(self) -> None:
        try:
            header = decode_header(self._spec, self._stream_words(), 0)
            self._commands += 1
            at, self._pc = self._pc, self._pc + header.length
            skipped = header.pred != 0 and self._scalars[header.pred] == 0
            if skipped and header.command.name != "LOOP":
                return
            fields = decode_payload(self._spec, header.command, header.payload, header.mask)
            instr = Instr(header.command.name, fields, header.pred)
        except EncodingError as e:
            raise StoppedError(e.code, f"word {self._pc}: {e}") from None
        except AddressError as e:
            raise StoppedError("bad_address", f"word {self._pc}: {e}") from None
        if skipped:
            self._pc += self._value(instr, "body")
        else:
            self._execute(instr, at)

    def _stream_words(self) -> list[int]:
        """The words from the program counter on, as many as a command can have."""
        count = min(MAX_COMMAND_WORDS, self._get("PROGRAM_WORDS") - self._pc)
        address = self._get("PROGRAM") * ADDRESS_UNIT + 4 * self._pc
        words: list[int] = self._memory.bytes(address, 4 * count).view(np.uint32).tolist() if count > 0 else []
        return words

    def _value(self, instr: Instr, name: str) -> int:
        value = instr.fields[name]
        return self._scalars[value.index] if isinstance(value, SReg) else value

    def _execute(self, instr: Instr, at: int) -> None:
        if instr.op in self._engine_ops:
            self._execute_engine(instr, at)
            return
        fields = {n: self._value(instr, n) for n in instr.fields}
        for name, limit in NUMBERED.items():
            if fields.get(name, 0) >= max(1, self._spec.limits[limit]):
                raise StoppedError("field_range", f"word {at}: {instr.op}.{name}: {fields[name]} is not there")
        getattr(self, "_do_" + instr.op.lower())(fields, at)

    def _execute_engine(self, instr: Instr, at: int) -> None:
        fields = {}
        for f in self._spec.commands[instr.op].fields:
            fields[f.name] = self._value(instr, f.name)
            if fields[f.name] > f.limit:
                raise StoppedError("field_range", f"word {at}: {instr.op}.{f.name}: expected 0..{f.limit}, "
                                          f"got {fields[f.name]}")
        try:
            problem = self._engine_ops[instr.op](fields)
        except AddressError as e:
            raise StoppedError("bad_address", f"word {at}: {instr.op}: {e}") from None
        if problem:
            raise StoppedError(problem, f"word {at}: {instr.op}: {problem}")

    def _load_table(self, f: dict[str, int]) -> str:
        self._tables[f["act_slot"]] = self._store.load_table(f)
        return ""

    def _do_end(self, _f: dict[str, int], at: int) -> None:
        if self._loops or self._calls:
            raise StoppedError("stack", f"word {at}: END inside a loop or a call")
        self._running = False
        self._set("STATUS", DONE)

    def _do_fence(self, _f: dict[str, int], _at: int) -> None:
        """Commands run one after the other here."""

    def _do_signal(self, f: dict[str, int], _at: int) -> None:
        self._semaphores[f["sem"]] += 1

    def _do_wait(self, f: dict[str, int], at: int) -> None:
        if self._semaphores[f["sem"]] == 0:
            raise StoppedError("deadlock", f"word {at}: WAIT on semaphore {f['sem']}, which no SIGNAL has raised")
        self._semaphores[f["sem"]] -= 1

    def _do_scalar(self, f: dict[str, int], at: int) -> None:
        fn = self._fn.get(f["fn"], "")
        if fn == "load":
            result: int | None = self._word(self._scalars[f["ra"]], f["b"], at)
        else:
            result = scalar(fn, self._scalars[f["ra"]], f["b"])
        if result is None:
            raise StoppedError("scalar", f"word {at}: SCALAR: division by zero or bad shift")
        if f["rd"]:
            self._scalars[f["rd"]] = result & WORD

    def _word(self, base: int, index: int, at: int) -> int:
        """Word `index` from address `base` on."""
        address = base * ADDRESS_UNIT + 4 * index
        try:
            return int(self._memory.bytes(address, 4).view(np.uint32)[0])
        except AddressError as e:
            raise StoppedError("bad_address", f"word {at}: SCALAR load: {e}") from None

    def _do_loop(self, f: dict[str, int], at: int) -> None:
        count = signed(f["count"])
        if count <= 0:
            self._pc += f["body"]
            return
        if len(self._loops) >= self._spec.limits["loop_depth"]:
            raise StoppedError("stack", f"word {at}: LOOP nested deeper than {self._spec.limits['loop_depth']}")
        self._loops.append((self._pc, f["rd"], count, 0))
        if f["rd"]:
            self._scalars[f["rd"]] = 0

    def _do_endloop(self, _f: dict[str, int], at: int) -> None:
        if not self._loops:
            raise StoppedError("stack", f"word {at}: ENDLOOP without LOOP")
        start, register, count, index = self._loops.pop()
        if index + 1 < count:
            self._loops.append((start, register, count, index + 1))
            if register:
                self._scalars[register] = index + 1
            self._pc = start

    def _do_call(self, f: dict[str, int], at: int) -> None:
        if len(self._calls) >= self._spec.limits["call_depth"]:
            raise StoppedError("stack", f"word {at}: CALL nested deeper than {self._spec.limits['call_depth']}")
        self._calls.append(self._pc)
        self._pc = f["target"]

    def _do_ret(self, _f: dict[str, int], at: int) -> None:
        if not self._calls:
            raise StoppedError("stack", f"word {at}: RET without CALL")
        self._pc = self._calls.pop()


def signed(word: int) -> int:
    return word - (1 << 32) if word & 0x80000000 else word


def scalar(fn: str, a: int, b: int) -> int | None:
    """SCALAR on 32-bit words; None for a division by zero or a shift past 31."""
    sa, sb = signed(a), signed(b)
    if (fn in ("div", "mod") and b == 0) or (fn in ("shl", "shr") and not 0 <= sb <= 31):
        return None
    table: dict[str, Callable[[], int]] = {
        "mov": lambda: b, "add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b,
        "div": lambda: sa // sb, "mod": lambda: sa % sb, "min": lambda: min(sa, sb), "max": lambda: max(sa, sb),
        "shl": lambda: a << b, "shr": lambda: sa >> sb, "lt": lambda: int(sa < sb), "le": lambda: int(sa <= sb),
        "eq": lambda: int(sa == sb),
    }
    return table[fn]()
