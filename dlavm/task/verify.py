"""Checks a task program against a target: every value of every field, for all legal arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, free_vars, substitute
from dlavm.target.spec import ADDRESS_UNIT, Field, TargetSpec
from dlavm.task.facts import Facts, linear
from dlavm.task.ir import (
    WORD_MAX,
    Await,
    Call,
    For,
    Launch,
    Let,
    Load,
    Program,
    RegRead,
    RegWrite,
    Signal,
    Stmt,
    Wait,
    exprs_of,
    loop_bounds,
    variable_of,
)
from dlavm.task.scope import Scope, walk_scoped

SHOWN = 20  # problems that the message of `verify` lists


def verify(program: Program, spec: TargetSpec) -> None:
    """Raises DlavmError that lists what `problems` finds."""
    found = problems(program, spec)
    if found:
        more = [f"... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise DlavmError("\n  ".join([f"task program {program.name}: {len(found)} problems", *found[:SHOWN], *more]))


def problems(program: Program, spec: TargetSpec) -> list[str]:
    """One line for each defect: names, scopes, commands, registers, nesting, and fields that overflow.

    A field overflows where the bounds of its expression, with all that the loops and conditions around it imply, leave
    the field's range. Addresses count from the start of their buffer.
    """
    found = [*_name_problems(program), *_call_problems(program, spec)]
    pointers: dict[Expr, Expr] = {}
    for path, stmt, scope in walk_scoped(program):
        place = _place(program, path, stmt)
        found += [f"{place}: {text}" for text in _scope_problems(stmt, scope, program)]
        if scope.facts.empty:
            continue  # never reached
        found += [f"{place}: {text}" for text in _statement_problems(stmt, scope, spec, pointers)]
        if isinstance(stmt, Launch):
            texts = _launch_problems(stmt, scope.facts, program, spec, pointers)
            found += [f"{stmt.op}{text}{_at(stmt)}" for text in texts]
    return found


def _place(program: Program, path: tuple[int, ...], stmt: Stmt) -> str:
    root = program.functions[path[0] - 1].name if path[0] else program.name
    return f"{root}, statement {'.'.join(map(str, path[1:]))} ({type(stmt).__name__.lower()})"


def _at(stmt: Launch) -> str:
    return f" at {stmt.where!r}" if stmt.where else ""


# -- names and scopes ----------------------------------------------------------------------------------------------


def _name_problems(program: Program) -> Iterator[str]:
    groups: dict[str, Iterable[str]] = {
        "argument": (arg.name for arg in program.args),
        "buffer": (b.name for b in program.buffers),
        "function": (f.name for f in program.functions),
    }
    for what, names in groups.items():
        seen: set[str] = set()
        for name in names:
            if name in seen:
                yield f"{what}: expected distinct names, got {name!r} twice"
            seen.add(name)
    for arg in program.args:
        if arg.op != "var":
            yield f"argument: expected a variable, got {str(arg)!r}"
    for condition in program.assumptions:
        for var in free_vars(condition):
            if var not in program.args:
                yield f"assumption {condition}: expected arguments only, got {var.name!r}"


def _scope_problems(stmt: Stmt, scope: Scope, program: Program) -> Iterator[str]:
    for what, expr in exprs_of(stmt):
        for var in free_vars(expr) if not expr.is_const else ():
            if var.name.startswith("@"):
                if var.name[1:] not in program.buffer:
                    yield f"{what}: expected a declared buffer, got {var.name[1:]!r}"
            elif var.name not in scope.visible:
                yield f"{what}: expected a variable that is defined here, got {var.name!r}"
            elif scope.visible[var.name] is not var:
                known = scope.visible[var.name].bounds()
                yield f"{what}: expected {var.name} with its bounds {known!r}, got {var.bounds()!r}"
    var_ = variable_of(stmt)
    if var_ is None:
        return
    if var_.op != "var":
        yield f"expected a variable, got {str(var_)!r} (a loop of one trip or a constant needs none)"
    elif var_.name in scope.visible:
        yield f"expected a name that is not visible yet, got {var_.name!r}"


def _call_problems(program: Program, spec: TargetSpec) -> Iterator[str]:
    """Calls of unknown functions, recursion, and loops or calls nested deeper than the target's limits."""
    names = [program.name, *(f.name for f in program.functions)]
    calls: list[list[tuple[int, int]]] = [[] for _ in names]  # of each body: (callee, loops around the call)
    loops = [0] * len(names)
    for path, stmt, scope in walk_scoped(program):
        if isinstance(stmt, For):
            loops[path[0]] = max(loops[path[0]], scope.loops + 1)
        if isinstance(stmt, Call) and stmt.name not in program.function:
            yield f"call: expected one of the functions {sorted(program.function)!r}, got {stmt.name!r}"
        elif isinstance(stmt, Call):
            calls[path[0]].append((1 + [f.name for f in program.functions].index(stmt.name), scope.loops))
    # Callees first: a body is done when its callees are; what remains calls itself.
    done: dict[int, tuple[int, int]] = {}
    while ready := [i for i in range(len(names)) if i not in done and all(c in done for c, _ in calls[i])]:
        for i in ready:
            depth = max([loops[i], *(around + done[callee][0] for callee, around in calls[i])])
            done[i] = depth, max([0, *(1 + done[callee][1] for callee, _ in calls[i])])
    for i in range(len(names)):
        if i not in done:
            yield f"{names[i]}: expected no recursion, got calls that lead back"
    depth, called = done.get(0, (0, 0))
    if spec.has("loops") and depth > spec.limits["loop_depth"]:
        yield f"{program.name}: expected loops nested at most {spec.limits['loop_depth']} deep, got {depth}"
    if spec.has("loops") and called > spec.limits["call_depth"]:
        yield f"{program.name}: expected calls nested at most {spec.limits['call_depth']} deep, got {called}"


# -- statements ----------------------------------------------------------------------------------------------------


def _statement_problems(stmt: Stmt, scope: Scope, spec: TargetSpec, pointers: dict[Expr, Expr]) -> Iterator[str]:
    match stmt:
        case Let(var=var, value=value):
            pointers.pop(var, None)
            if _bases(_resolve(value, pointers)):
                pointers[var] = _resolve(value, pointers)
            else:
                yield from _fits(var, scope.facts.bounds(value))
        case For(var=var, count=count):
            lo, hi = loop_bounds(count)
            yield from _fits(var, (lo, min(hi, max(lo, scope.facts.bounds(count)[1] - 1))))
        case RegWrite(register=register, index=index, value=value):
            yield from _register_problems(spec, register, scope.facts.bounds(index), "ro")
            lo, hi = scope.facts.bounds(value)
            if not _bases(value) and (lo < 0 or hi > WORD_MAX):
                yield f"value: expected 0..{WORD_MAX}, got [{lo}, {hi}]"
        case Load(base=base, index=index):
            if not spec.has("scalars") and not spec.has("mmio"):
                yield f"target {spec.name} reads no memory into variables (expected scalars or mmio)"
            if scope.facts.bounds(index)[0] < 0:
                yield f"index: expected at least 0, got {scope.facts.bounds(index)[0]}"
            yield from (f"base: {text}" for text in _offset_problems(_resolve(base, pointers), scope.facts))
        case RegRead(register=register, index=index):
            yield from _register_problems(spec, register, scope.facts.bounds(index), "wo")
        case Signal(engine=engine, sem=sem) | Wait(engine=engine, sem=sem):
            if type(stmt).__name__.upper() not in spec.commands:
                yield f"target {spec.name} has no semaphores"
            elif not 0 <= sem < spec.limits["semaphores"]:
                yield f"semaphore: expected 0..{spec.limits['semaphores'] - 1}, got {sem!r}"
            yield from _engine_problems(engine, spec)
        case Await(engine=str(engine)):
            yield from _engine_problems(engine, spec)


def _offset_problems(address: Expr, facts: Facts) -> Iterator[str]:
    for base in _bases(address):
        address = _without(address, base)
    lo, hi = facts.bounds(address)
    if lo < 0 or hi > WORD_MAX:
        yield f"expected 0..{WORD_MAX}, got [{lo}, {hi}]"


def _fits(var: Expr, bounds: tuple[int, int]) -> Iterator[str]:
    if bounds[0] < var.lo or bounds[1] > var.hi:
        yield f"{var}: expected values in its bounds [{var.lo}, {var.hi}], got [{bounds[0]}, {bounds[1]}]"


def _engine_problems(engine: str, spec: TargetSpec) -> Iterator[str]:
    if engine not in spec.enums["engine"]:
        yield f"engine: expected one of {sorted(spec.enums['engine'])!r}, got {engine!r}"


def _register_problems(spec: TargetSpec, name: str, index: tuple[int, int], refused: str) -> Iterator[str]:
    register = spec.registers.get(name)
    if register is None:
        yield f"register: expected one of {sorted(spec.registers)!r}, got {name!r}"
        return
    if register.access == refused:
        use = "written" if refused == "ro" else "read"
        yield f"register {name}: expected one that can be {use}, got access {refused!r}"
    if index[0] < 0 or index[1] >= register.count:
        yield f"register {name}: index expected 0..{register.count - 1}, got [{index[0]}, {index[1]}]"


# -- launches ------------------------------------------------------------------------------------------------------


def _launch_problems(
    stmt: Launch, facts: Facts, program: Program, spec: TargetSpec, pointers: dict[Expr, Expr]
) -> Iterator[str]:
    command = spec.commands.get(stmt.op)
    if command is None or command.engine is None:
        engine_commands = sorted(n for n, c in spec.commands.items() if c.engine)
        yield f": expected a command of an engine of {spec.name}, one of {engine_commands!r}, got {stmt.op!r}"
        return
    for name, value in stmt.fields.items():
        if name not in command.by_name:
            yield f".{name}: expected one of the fields {sorted(command.by_name)!r}, got {name!r}"
            continue
        f = command.by_name[name]
        if not f.dynamic and not value.is_const and not spec.has("mmio"):
            yield f".{name}: expected a constant (a field of {f.bits} bits cannot be patched), got {str(value)!r}"
        yield from (f".{name}: {text}" for text in _field_problems(f, _resolve(value, pointers), facts, program))


def _field_problems(f: Field, value: Expr, facts: Facts, program: Program) -> Iterator[str]:
    bases = _bases(value)
    if bases and f.kind not in ("addr", "word"):
        yield f"expected a {f.kind} without an address, got {str(value)!r}"
        return
    offset = value
    for base in bases:
        offset = _without(offset, base)
    lo, hi = facts.bounds(offset)
    what = f"@{bases[0].name[1:]} + " if bases else ""
    if lo < 0 or hi > f.limit:
        names = ", ".join(v.name for v in free_vars(value) if not v.name.startswith("@"))
        every = f" for every value of {names}" if names else ""
        yield f"expected 0..{f.limit}{every}, got {what}[{lo}, {hi}] from {str(value)!r}"
    elif f.values and value.is_const and value.value not in f.values.values():
        yield f"expected one of {dict(f.values)!r}, got {value.value!r}"
    elif len(bases) == 1 and bases[0].name[1:] in program.buffer:
        size = program.buffer[bases[0].name[1:]].bytes
        if lo > 0 and lo * ADDRESS_UNIT >= size:
            yield f"expected an address in {bases[0].name[1:]!r} of {size} bytes, got byte {lo * ADDRESS_UNIT} or later"


def _bases(expr: Expr) -> list[Expr]:
    return [v for v in free_vars(expr) if v.name.startswith("@")] if not expr.is_const else []


def _without(expr: Expr, base: Expr) -> Expr:
    """The offset from a buffer's base; where the base is not simply added, its value is taken as zero."""
    if linear(expr)[1].get(base) == 1 and base not in free_vars(expr - base):
        return expr - base
    return substitute(expr, {base: 0})


def _resolve(expr: Expr, pointers: dict[Expr, Expr]) -> Expr:
    """The expression with `Let` variables that hold addresses replaced by their values."""
    used = {var: pointers[var] for var in free_vars(expr) if var in pointers} if not expr.is_const else {}
    return substitute(expr, used) if used else expr
