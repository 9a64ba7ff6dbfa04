"""Runs task programs: as the list of commands that they amount to, and on a register-driven device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, evaluate
from dlavm.target.isa import Instr, payload
from dlavm.target.spec import ADDRESS_UNIT, TargetSpec
from dlavm.task.ir import (
    Await,
    Call,
    Copy,
    For,
    If,
    Launch,
    Let,
    Load,
    Program,
    RegRead,
    RegWrite,
    Signal,
    Stmt,
    Wait,
    variable_of,
    walk_body,
)

BUSY, FAILED = 1, 4  # bits of STATUS
MAX_POLLS = 1_000_000
MAX_CALLS = 64


class Device(Protocol):
    """What `run` needs of an engine: registers by byte offset, memory by byte address, and time to work."""

    def csr_read(self, offset: int) -> int: ...
    def csr_write(self, offset: int, value: int) -> None: ...
    def mem_read(self, address: int, count: int) -> bytes: ...
    def mem_write(self, address: int, data: bytes) -> None: ...
    def run(self) -> object: ...


@dataclass
class _Frame:
    body: tuple[Stmt, ...]
    loop: tuple[str, int, int] | None = None  # variable, its value, trips
    at: int = 0
    restore: dict[str, int] | None = None  # of a call: what the function's own variables hide


def execute(program: Program, values: dict[str, int]) -> Iterator[Stmt]:
    """The statements that act (neither Let, For, If nor Call) in the order of execution.

    `values` holds arguments and bases (`@x`: units of 16 bytes) and always those of the variables in sight; RegRead
    and Load must be answered by setting its variable there before the next statement is asked for.
    """
    frames = [_Frame(program.body)]
    while frames:
        frame = frames[-1]
        if frame.at == len(frame.body):
            if not _next_trip(frame, values):
                values |= frames.pop().restore or {}
            continue
        stmt = frame.body[frame.at]
        frame.at += 1
        match stmt:
            case Let(var=var, value=value):
                values[var.name] = value_of(value, values)
            case For(var=var, count=count, body=body):
                trips = value_of(count, values)
                if trips > 0:
                    values[var.name] = 0
                    frames.append(_Frame(body, (var.name, 0, trips)))
            case If(cond=cond, body=body):
                if value_of(cond, values):
                    frames.append(_Frame(body))
            case Call(name=name):
                frames.append(_call(program, name, frames, values))
            case _:
                yield stmt


def _next_trip(frame: _Frame, values: dict[str, int]) -> bool:
    if frame.loop is None:
        return False
    name, value, trips = frame.loop
    if value + 1 == trips:
        return False
    frame.loop, frame.at = (name, value + 1, trips), 0
    values[name] = value + 1
    return True


def _call(program: Program, name: str, frames: list[_Frame], values: Mapping[str, int]) -> _Frame:
    if name not in program.function:
        raise DlavmError(f"call: expected one of the functions {sorted(program.function)!r}, got {name!r}")
    if sum(frame.restore is not None for frame in frames) >= MAX_CALLS:
        raise DlavmError(f"call of {name}: expected at most {MAX_CALLS} nested calls, got one more")
    body = program.function[name].body
    own = {var.name for _, stmt in walk_body(body) if (var := variable_of(stmt)) is not None}
    return _Frame(body, restore={n: values[n] for n in own if n in values})


def value_of(expr: Expr, values: Mapping[str, int]) -> int:
    """The value of an expression. Raises DlavmError for a variable that is missing or out of its bounds."""
    return expr.value if expr.is_const else evaluate(expr, values)


def initial_values(program: Program, args: Mapping[str, int], bases: Mapping[str, int]) -> dict[str, int]:
    """Arguments, and buffer bases in bytes, as the values that `execute` starts from. Names beyond those are ignored.

    Raises DlavmError for an argument that is missing, out of bounds or against an assumption, and for a base that is
    not a multiple of 16.
    """
    values = {arg.name: evaluate(arg, args) for arg in program.args}
    for condition in program.assumptions:
        if not value_of(condition, values):
            raise DlavmError(f"arguments of {program.name}: expected {condition}, got {values!r}")
    for name, base in bases.items():
        if base % ADDRESS_UNIT:
            raise DlavmError(f"buffer {name}: base expected a multiple of {ADDRESS_UNIT} bytes, got {base!r}")
        values["@" + name] = base // ADDRESS_UNIT
    return values


def trace(
    program: Program, args: Mapping[str, int], bases: Mapping[str, int], memory: Callable[[int], int] | None = None
) -> Iterator[Instr]:
    """The engine commands in order, every field a number. `bases`: byte address of each buffer, by name; `memory`: the
    32-bit word at a byte address, for what the program loads.

    Raises DlavmError as `initial_values` does, for a RegRead, whose value only a device knows, and for a Load without
    `memory`.
    """
    values = initial_values(program, args, bases)
    for stmt in execute(program, values):
        if isinstance(stmt, Launch):
            yield instruction(stmt, values)
        elif isinstance(stmt, RegRead):
            raise DlavmError(f"trace of {program.name}: expected no register read, got {stmt.register!r}")
        elif isinstance(stmt, Load):
            if memory is None:
                raise DlavmError(f"trace of {program.name}: expected no load from memory, got {stmt.var.name!r}")
            values[stmt.var.name] = memory(
                value_of(stmt.base, values) * ADDRESS_UNIT + 4 * value_of(stmt.index, values))


def instruction(stmt: Launch, values: Mapping[str, int]) -> Instr:
    """A launch with numbers for its fields."""
    return Instr(stmt.op, {name: value_of(v, values) for name, v in stmt.fields.items()})


def run(
    program: Program, device: Device, spec: TargetSpec, args: Mapping[str, int], bases: Mapping[str, int]
) -> int:
    """Runs a program on a register-driven device (capability `mmio`); returns the number of commands.

    Raises DlavmError for a target without mmio, a field out of range, and a command that stops the device.
    """
    if not spec.has("mmio"):
        raise DlavmError(f"run of {program.name}: expected a target with mmio, got {spec.name!r}")
    values = initial_values(program, args, bases)
    launched = 0
    for stmt in execute(program, values):
        match stmt:
            case Launch():
                _launch(stmt, device, spec, values)
                launched += 1
            case Await():
                _poll(device, spec, "await")
            case RegWrite(register=register, index=index, value=value):
                device.csr_write(_offset(spec, register, value_of(index, values)), value_of(value, values))
            case RegRead(var=var, register=register, index=index):
                values[var.name] = device.csr_read(_offset(spec, register, value_of(index, values)))
            case Load(var=var, base=base, index=index):
                address = value_of(base, values) * ADDRESS_UNIT + 4 * value_of(index, values)
                values[var.name] = int.from_bytes(device.mem_read(address, 4), "little")
            case Copy(dst=dst, src=src, bytes=size):
                data = device.mem_read(value_of(src, values) * ADDRESS_UNIT, value_of(size, values))
                device.mem_write(value_of(dst, values) * ADDRESS_UNIT, data)
            case Signal() | Wait():
                raise DlavmError(f"run of {program.name}: {spec.name} has no semaphores, got {stmt!r}")
    return launched


def _launch(stmt: Launch, device: Device, spec: TargetSpec, values: Mapping[str, int]) -> None:
    words, _ = payload(spec, instruction(stmt, values))
    for i, word in enumerate(words):
        device.csr_write(_offset(spec, "OP", i), word)
    device.csr_write(_offset(spec, "LAUNCH", 0), spec.commands[stmt.op].opcode)
    _poll(device, spec, f"{stmt.op} at {stmt.where!r}" if stmt.where else stmt.op)


def _poll(device: Device, spec: TargetSpec, what: str) -> None:
    for _ in range(MAX_POLLS):
        device.run()
        status = device.csr_read(_offset(spec, "STATUS", 0))
        if status & FAILED:
            code = device.csr_read(_offset(spec, "ERROR", 0))
            name = next((n for n, v in spec.enums["error"].items() if v == code), str(code))
            raise DlavmError(f"{what}: expected the device to finish, got error {name!r}")
        if not status & BUSY:
            return
    raise DlavmError(f"{what}: expected the device to finish, got busy after {MAX_POLLS} polls")


def _offset(spec: TargetSpec, name: str, index: int) -> int:
    register = spec.registers.get(name)
    if register is None or not 0 <= index < register.count:
        raise DlavmError(f"register: expected one of {sorted(spec.registers)!r} within its count, got {name}[{index}]")
    return register.offset + 4 * index
