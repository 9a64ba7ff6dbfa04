"""The task IR: what the host or the command stream does, statement by statement. Frozen; traversal is a loop.

Every number may be a dlavm.sym expression over the program's arguments, loop variables, `Let` variables and buffer
bases. The base of buffer x is the variable `@x`, in units of 16 bytes as in the commands; it stays symbolic until the
memory plan gives it a value.

Scopes: a variable is visible behind its statement to the end of that body. A function sees the program's arguments
and buffers, nothing of its caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, IntoExpr, Symbol, free_vars, wrap

ROLES = ("weights", "tables", "kv", "activations", "program", "input", "output")
WORD_MAX = 2**32 - 1
BUFFER_NAME = PROGRAM_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"


def base_of(name: str) -> Expr:
    """The address of buffer `name` in units of 16 bytes, as a variable."""
    return Symbol("@" + name, 0, WORD_MAX)


@dataclass(frozen=True)
class Buffer:
    """Storage of one tensor: `bytes` is its size for the largest arguments.

    `shape_text` is the type for people, such as `f16[token, 256]`; a bare `token, 256` is completed with `dtype`.

    A buffer may have `copies`, one for each turn of a loop, `stride` bytes apart. Buffers of a role with the same
    copies and stride form records: the stride is the size of a record.
    """

    name: str
    role: str
    bytes: int
    shape_text: str = ""
    dtype: str = "f16"
    copies: int = 1
    stride: int = 0

    def __post_init__(self) -> None:
        if self.copies < 1 or (self.copies > 1 and self.stride < self.bytes):
            raise DlavmError(f"buffer {self.name}: expected copies at least {self.bytes} bytes apart, got "
                             f"{self.copies} every {self.stride}")
        if not re.fullmatch(BUFFER_NAME, self.name):
            raise DlavmError(f"buffer name: expected letters, digits and any of _.-, got {self.name!r}")
        if self.role not in ROLES:
            raise DlavmError(f"buffer {self.name}: role expected one of {ROLES!r}, got {self.role!r}")
        if self.bytes < 0:
            raise DlavmError(f"buffer {self.name}: bytes expected at least 0, got {self.bytes!r}")
        if "\n" in self.shape_text:
            raise DlavmError(f"buffer {self.name}: shape_text expected one line, got {self.shape_text!r}")
        whole = re.fullmatch(r"(\w+)\[.*\]", self.shape_text)
        if whole:
            object.__setattr__(self, "dtype", whole[1])
        elif self.shape_text:
            object.__setattr__(self, "shape_text", f"{self.dtype}[{self.shape_text}]")

    @property
    def base(self) -> Expr:
        """The first address, in units of 16 bytes (dlavm.target.spec.ADDRESS_UNIT)."""
        return base_of(self.name)


@dataclass(frozen=True)
class Let:
    """Names a value for the rest of the body."""

    var: Expr
    value: Expr

    def __post_init__(self) -> None:
        _wrap(self, "value")


@dataclass(frozen=True)
class For:
    """Runs the body with var = 0 .. count-1; not at all where count <= 0."""

    var: Expr
    count: Expr
    body: tuple[Stmt, ...]

    def __post_init__(self) -> None:
        _wrap(self, "count")
        object.__setattr__(self, "body", tuple(self.body))


@dataclass(frozen=True)
class If:
    """Runs the body where cond is not zero."""

    cond: Expr
    body: tuple[Stmt, ...]

    def __post_init__(self) -> None:
        _wrap(self, "cond")
        object.__setattr__(self, "body", tuple(self.body))


@dataclass(frozen=True)
class Launch:
    """Starts one engine command. Fields left out are zero; `where` is the place in the model, for messages."""

    op: str
    fields: Mapping[str, Expr] = field(hash=False)
    where: str = ""

    def __init__(self, op: str, fields: Mapping[str, IntoExpr], where: str = "") -> None:
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "fields", MappingProxyType({name: wrap(v) for name, v in fields.items()}))
        object.__setattr__(self, "where", " ".join(where.split()))  # one line, so that it fits behind a '#'


@dataclass(frozen=True)
class Await:
    """Waits until an engine is idle; None: all of them (FENCE)."""

    engine: str | None = None


@dataclass(frozen=True)
class Signal:
    """Adds one to a semaphore when every earlier command of the engine has completed."""

    engine: str
    sem: int


@dataclass(frozen=True)
class Wait:
    """Holds the engine until the semaphore is above zero, then takes one from it."""

    engine: str
    sem: int


@dataclass(frozen=True)
class RegWrite:
    """Writes a control register, element `index` of an array."""

    register: str
    index: Expr
    value: Expr

    def __post_init__(self) -> None:
        _wrap(self, "index", "value")


@dataclass(frozen=True)
class RegRead:
    """Names the value of a control register for the rest of the body."""

    var: Expr
    register: str
    index: Expr

    def __post_init__(self) -> None:
        _wrap(self, "index")


@dataclass(frozen=True)
class Load:
    """Names the 32-bit word `index` of device memory from `base` (units of 16 bytes) on, for the rest of the body."""

    var: Expr
    base: Expr
    index: Expr

    def __post_init__(self) -> None:
        _wrap(self, "base", "index")


@dataclass(frozen=True)
class Copy:
    """The host copies `bytes` bytes between two device addresses in units of 16 bytes."""

    dst: Expr
    src: Expr
    bytes: Expr

    def __post_init__(self) -> None:
        _wrap(self, "dst", "src", "bytes")


@dataclass(frozen=True)
class Call:
    """Runs a function of the program."""

    name: str


Stmt = Let | For | If | Launch | Await | Signal | Wait | RegWrite | RegRead | Load | Copy | Call


@dataclass(frozen=True)
class Function:
    name: str
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class Program:
    """Statements over arguments (variables with bounds) and buffers.

    `assumptions` are conditions (le, lt, eq) that hold for every legal choice of arguments, such as
    kv_len + token <= ctx: proofs use them, and the interpreter refuses arguments that break them.
    """

    name: str
    args: tuple[Expr, ...]
    buffers: tuple[Buffer, ...]
    body: tuple[Stmt, ...]
    functions: tuple[Function, ...] = ()
    assumptions: tuple[Expr, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *(f.name for f in self.functions)):
            if not re.fullmatch(PROGRAM_NAME, name):
                raise DlavmError(f"program or function name: expected letters, digits and any of _.-, got {name!r}")

    @cached_property
    def buffer(self) -> Mapping[str, Buffer]:
        """Buffers by name."""
        return {b.name: b for b in self.buffers}

    @cached_property
    def function(self) -> Mapping[str, Function]:
        """Functions by name."""
        return {f.name: f for f in self.functions}

    @cached_property
    def pointers(self) -> Mapping[Expr, frozenset[str]]:
        """The buffers that a `Let` variable may point into, of all variables that carry a buffer's base.

        Two variables of one name and bounds count as one, which only makes the sets larger.
        """
        found: dict[Expr, frozenset[str]] = {}
        for _, stmt in walk(self):
            if isinstance(stmt, Let) and (names := buffers_in((stmt.value,), found)):
                found[stmt.var] = found.get(stmt.var, frozenset()) | names
        return found


Path = tuple[int, ...]


def walk(program: Program) -> Iterator[tuple[Path, Stmt]]:
    """Every statement in program order, a statement before its body; first the program's, then the functions'.

    path[0] is 0 for the program's own body and i + 1 for function i; the others are indices into the nested bodies,
    so that len(path) - 2 is the depth of nesting. Calls are not followed.
    """
    bodies = (program.body, *(f.body for f in program.functions))
    for root, body in enumerate(bodies):
        yield from walk_body(body, (root,))


def walk_body(body: tuple[Stmt, ...], prefix: Path = ()) -> Iterator[tuple[Path, Stmt]]:
    """Every statement of a body in order with its path behind `prefix`."""
    stack = [(prefix + (i,), stmt) for i, stmt in reversed(list(enumerate(body)))]
    while stack:
        path, stmt = stack.pop()
        yield path, stmt
        inner = body_of(stmt)
        stack.extend((path + (i,), child) for i, child in reversed(list(enumerate(inner))))


def body_of(stmt: Stmt) -> tuple[Stmt, ...]:
    """The nested statements: empty for all but For and If."""
    return stmt.body if isinstance(stmt, For | If) else ()


def exprs_of(stmt: Stmt) -> tuple[tuple[str, Expr], ...]:
    """The expressions that a statement itself reads, by name; those of its body not included."""
    match stmt:
        case Let(value=value):
            return (("value", value),)
        case For(count=count):
            return (("count", count),)
        case If(cond=cond):
            return (("cond", cond),)
        case Launch(fields=fields):
            return tuple(fields.items())
        case RegWrite(index=index, value=value):
            return ("index", index), ("value", value)
        case RegRead(index=index):
            return (("index", index),)
        case Load(base=base, index=index):
            return ("base", base), ("index", index)
        case Copy(dst=dst, src=src, bytes=size):
            return ("dst", dst), ("src", src), ("bytes", size)
    return ()


def map_exprs(stmt: Stmt, change: Callable[[Expr], Expr]) -> Stmt:
    """The statement with `change` applied to every expression in it, those of its body included."""
    match stmt:
        case For(var=var, count=count, body=body):
            return For(var, change(count), tuple(map_exprs(inner, change) for inner in body))
        case If(cond=cond, body=body):
            return If(change(cond), tuple(map_exprs(inner, change) for inner in body))
        case Launch(op=op, fields=fields, where=where):
            return Launch(op, {name: change(value) for name, value in fields.items()}, where)
    values = {name: change(value) for name, value in exprs_of(stmt)}
    return replace(stmt, **values) if values else stmt  # type: ignore[arg-type]


def variable_of(stmt: Stmt) -> Expr | None:
    """The variable that a statement defines, None if it does not."""
    return stmt.var if isinstance(stmt, Let | For | RegRead | Load) else None


def loop_bounds(count: Expr) -> tuple[int, int]:
    """Default bounds of a loop's variable: never a single value, which would be a constant."""
    return 0, max(1, count.hi - 1)


def value_bounds(value: Expr) -> tuple[int, int]:
    """Default bounds of a `Let` variable, never a single value either."""
    return value.lo, max(value.lo + 1, value.hi)


def touched(stmt: Stmt, program: Program) -> frozenset[str]:
    """Names of the buffers whose bases the statement's own expressions contain, also through `Let` variables."""
    return buffers_in(tuple(expr for _, expr in exprs_of(stmt)), program.pointers)


def buffers_in(exprs: tuple[Expr, ...], pointers: Mapping[Expr, frozenset[str]]) -> frozenset[str]:
    """Names of the buffers whose bases the expressions contain, also through `pointers`."""
    names: set[str] = set()
    for var in free_vars(*(e for e in exprs if not e.is_const)):
        if var.name.startswith("@"):
            names.add(var.name[1:])
        names |= pointers.get(var, frozenset())
    return frozenset(names)


def _wrap(stmt: object, *names: str) -> None:
    for name in names:
        object.__setattr__(stmt, name, wrap(getattr(stmt, name)))
