"""Autonomous stream (capabilities `scalars`, `loops`): task statements become commands, loops stay loops."""
from __future__ import annotations

from collections.abc import Mapping

from dlavm.codegen.ordering import ordered
from dlavm.codegen.scalars import OutOfRegistersError, Scalars
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, Var, free_vars, select, substitute, wrap
from dlavm.target import TargetSpec
from dlavm.target.isa import Instr, SReg, encode_program
from dlavm.task import Await, For, If, Launch, Let, Load, Program, Signal, Stmt, Wait, walk_body
from dlavm.task.ir import exprs_of

RESERVES = (12, 32)  # registers left to the body of a loop; with all of them nothing is computed before it


def generate(program: Program, spec: TargetSpec, bases: Mapping[str, int]) -> list[int]:
    """The words of the stream: those of `commands`."""
    return encode_program(spec, commands(program, spec, bases))


def commands(program: Program, spec: TargetSpec, bases: Mapping[str, int]) -> list[Instr]:
    """The commands of the stream, with their places in the model. `bases`: byte address of every buffer. Raises
    DlavmError for a statement or target that has no stream form."""
    if not spec.has("stream", "scalars", "loops"):
        raise DlavmError(f"target {spec.name} has no autonomous stream (needs capabilities scalars and loops)")
    program = ordered(program, spec, bases)
    *first, last = RESERVES
    for reserve in first:
        try:
            return _Generator(program, spec, bases, reserve).run()
        except OutOfRegistersError:
            continue  # keep less across loops
    return _Generator(program, spec, bases, last).run()


class _Generator:
    def __init__(self, program: Program, spec: TargetSpec, bases: Mapping[str, int], reserve: int) -> None:
        self._program, self._spec = program, spec
        self._addresses = {b.base: wrap(bases[b.name] // 16) for b in program.buffers}
        self._out: list[Instr] = []
        self._scalars = Scalars(spec, program.args, self._emit, reserve)

    def run(self) -> list[Instr]:
        # A work list instead of recursion: `None` closes the loop on top of the stack, a variable is needed no more.
        work: list[Stmt | Expr | None] = list(reversed(_with_ends(self._program.body)))
        loops: list[tuple[Instr, list[Instr], Expr]] = []
        while work:
            stmt = work.pop()
            if stmt is None:
                self._close(*loops.pop())
            elif isinstance(stmt, Expr):
                self._scalars.unbind(stmt)
            elif isinstance(stmt, For | If):
                loops.append(self._open(stmt, len(loops)))
                work.append(None)
                work.extend(reversed(_with_ends(stmt.body)))
            else:
                self._simple(stmt)
            self._scalars.release()
        self._emit(Instr("END"))
        return self._out

    def _emit(self, instr: Instr) -> None:
        self._out.append(instr)

    def _resolve(self, expr: Expr) -> Expr:
        used = {v: self._addresses[v] for v in free_vars(expr) if v in self._addresses}
        return substitute(expr, used) if used else expr

    def _simple(self, stmt: Stmt) -> None:
        if isinstance(stmt, Launch):
            self._launch(stmt)
        elif isinstance(stmt, Let):
            value = self._scalars.value(self._resolve(stmt.value))
            register = self._scalars.bind(stmt.var)
            self._emit(Instr("SCALAR", {"fn": self._spec.enums["scalar_fn"]["mov"], "rd": register, "b": value}))
        elif isinstance(stmt, Load):
            self._load(stmt)
        elif isinstance(stmt, Await):
            self._emit(Instr("FENCE"))
        elif isinstance(stmt, Signal | Wait):
            engine = self._spec.enums["engine"][stmt.engine]
            self._emit(Instr(type(stmt).__name__.upper(), {"engine": engine, "sem": stmt.sem}))
        else:
            raise DlavmError(f"code generation: {type(stmt).__name__} has no form in the stream of {self._spec.name}")

    def _load(self, stmt: Load) -> None:
        base, index = (self._scalars.value(self._resolve(expr)) for expr in (stmt.base, stmt.index))
        register = self._scalars.bind(stmt.var)
        fn = self._spec.enums["scalar_fn"]
        if not isinstance(base, SReg):
            self._emit(Instr("SCALAR", {"fn": fn["mov"], "rd": register, "b": base}))
            base = SReg(register)
        self._emit(Instr("SCALAR", {"fn": fn["load"], "rd": register, "ra": base.index, "b": index}))

    def _launch(self, launch: Launch) -> None:
        fields = {name: self._scalars.value(self._resolve(wrap(v))) for name, v in launch.fields.items()}
        self._emit(Instr(launch.op, {n: v for n, v in fields.items() if v != 0}, where=launch.where))

    def _open(self, stmt: For | If, depth: int) -> tuple[Instr, list[Instr], Expr]:
        """Starts the body of a loop; an If is a loop of zero or one turns."""
        count = self._scalars.value(self._resolve(stmt.count if isinstance(stmt, For) else _once(stmt.cond)))
        var = stmt.var if isinstance(stmt, For) else Var(f"if_{depth}", 0, 1)
        inside = (self._resolve(expr) for _, inner in walk_body(stmt.body) for _, expr in exprs_of(inner))
        self._scalars.enter((expr for expr in inside if not expr.is_const), isinstance(stmt, For))
        register = self._scalars.bind(var)
        outer, self._out = self._out, []
        where = f"for {var.name}" if isinstance(stmt, For) else "if"
        return Instr("LOOP", {"rd": register, "count": count}, where=where), outer, var

    def _close(self, loop: Instr, outer: list[Instr], var: Expr) -> None:
        self._emit(Instr("ENDLOOP"))
        body, self._out = self._out, outer
        length = len(encode_program(self._spec, body))
        self._emit(Instr("LOOP", {**loop.fields, "body": length}, where=loop.where))
        self._out.extend(body)
        self._scalars.leave()
        self._scalars.unbind(var)


def _once(cond: Expr) -> Expr:
    """1 where the condition holds, else 0."""
    return cond if cond.lo >= 0 and cond.hi <= 1 else select(cond, 1, 0)


def _with_ends(body: tuple[Stmt, ...]) -> list[Stmt | Expr]:
    """The statements of a body and, behind the last that uses it, each variable that the body itself defines."""
    last: dict[Expr, int] = {}
    for place, stmt in enumerate(body):
        if isinstance(stmt, Let | Load):
            last[stmt.var] = place
        for _, inner in walk_body((stmt,)):
            used = (var for _, expr in exprs_of(inner) if not expr.is_const for var in free_vars(expr))
            last.update((var, place) for var in used if var in last)
    ends: dict[int, list[Expr]] = {}
    for var, place in last.items():
        ends.setdefault(place, []).append(var)
    return [item for place, stmt in enumerate(body) for item in (stmt, *ends.get(place, ()))]
