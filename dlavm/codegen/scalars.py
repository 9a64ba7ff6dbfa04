"""Scalar registers of the autonomous stream: sym expressions become SCALAR commands, once each."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, free_vars
from dlavm.sym.expr import rebuild
from dlavm.target import TargetSpec
from dlavm.target.isa import WORD_MASK, Instr, SReg

ARG_BASE = 1  # ARG[i] arrives in register s(1 + i)
INSIDE = 1 << 30  # a depth below every open block
FUNCTIONS = {"add": "add", "mul": "mul", "floordiv": "div", "mod": "mod", "min": "min", "max": "max",
             "lt": "lt", "le": "le", "eq": "eq"}


class OutOfRegistersError(DlavmError):
    """More values are in use at once than there are scalar registers."""


class Scalars:
    """Allocates s1..s31. What was computed stays cached in its block. Values that a loop does not change are computed
    before it and keep their registers in it, as long as `reserve` registers are left to its body.

    Behind a block everything that was known before is known again, but for what had to give its register away in it.
    """

    def __init__(self, spec: TargetSpec, args: tuple[Expr, ...], emit: Callable[[Instr], None], reserve: int) -> None:
        self._fn = spec.enums["scalar_fn"]
        self._emit, self._reserve = emit, reserve
        self._bound: dict[str, int] = {arg.name: ARG_BASE + i for i, arg in enumerate(args)}
        self._depths = dict.fromkeys(self._bound, 0)  # blocks around the place where a variable is bound
        self._total = spec.limits["scalar_registers"] - ARG_BASE
        self._free = list(range(spec.limits["scalar_registers"] - 1, len(args), -1))
        self._cached: dict[Expr, int] = {}  # what may be used here
        self._outside: list[dict[Expr, int]] = []  # of each open block: what was cached around it and is not used in it
        self._kept: list[dict[Expr, int]] = []  # of each open block: what every turn finds in its register
        self._results: set[int] = set()  # handed out, in use until release()
        self._operands: set[int] = set()  # gathered for nodes that wait for their other arguments

    def value(self, expr: Expr) -> int | SReg:
        """An immediate or a register that holds the expression. Raises OutOfRegistersError."""
        if expr.op == "const":
            return expr.value & WORD_MASK
        stack = [expr]
        while stack:
            node = stack[-1]
            if self._lookup(node) is not None:
                stack.pop()
                continue
            waiting = [a for a in self._parts(node) if a.op != "const" and self._lookup(a) is None]
            if waiting:
                stack.extend(waiting)
            else:
                self._compute(node)
        register = self._lookup(expr)
        assert register is not None
        self._operands.clear()
        self._results.add(register)
        return SReg(register)

    def release(self) -> None:
        """Ends the use of registers handed out since the last release; they stay cached."""
        self._results.clear()

    def bind(self, var: Expr) -> int:
        """A register of its own for a loop or let variable."""
        register = self._allocate()
        self._bound[var.name], self._depths[var.name] = register, len(self._kept)
        return register

    def unbind(self, var: Expr) -> None:
        """Gives the register of a variable back, and those of what was computed with it."""
        self._free.append(self._bound.pop(var.name))
        for expr in [e for e in self._cached if var in free_vars(e)]:
            self._free.append(self._cached.pop(expr))

    def enter(self, exprs: Iterable[Expr], repeats: bool) -> None:
        """Begins a block that uses these expressions; what they have in common with the code around it is computed now
        if the block `repeats`. The variable of a loop is bound afterwards."""
        kept: dict[Expr, int] = {}
        for expr in self._invariants(exprs):
            in_use = len(self._bound) + len({*self._fixed(), *kept.values()})
            if self._total - in_use <= self._reserve:
                break
            if repeats or expr in self._cached:
                register = self.value(expr)
                assert isinstance(register, SReg)
                kept[expr] = register.index
        self._outside.append({e: r for e, r in self._cached.items() if e not in kept})
        self._kept.append(kept)
        self._cached = dict(kept)

    def leave(self) -> None:
        """Ends a block: what was computed in it is forgotten."""
        kept = self._kept.pop()
        self._free.extend(r for e, r in self._cached.items() if e not in kept)
        self._cached = {**self._outside.pop(), **kept}

    def _invariants(self, exprs: Iterable[Expr]) -> Iterator[Expr]:
        """The largest parts of the expressions whose variables all have values here."""
        seen: set[Expr] = set()
        stack = list(exprs)[::-1]
        while stack:
            node = stack.pop()
            if not node.args or node in seen:
                continue
            seen.add(node)
            if all(var.name in self._bound for var in free_vars(node)):
                yield node
            else:
                stack.extend(self._parts(node)[::-1])

    def _fixed(self) -> set[int]:
        """Registers that the open blocks rely on."""
        return {register for kept in self._kept for register in kept.values()}

    def _parts(self, node: Expr) -> tuple[Expr, ...]:
        """What a node is computed from. Of a sum or product that is all terms but one: what changes in an inner loop is
        added last, so that the rest can be computed outside of it."""
        if node.op not in ("add", "mul") or len(node.args) == 2:
            return node.args
        *terms, last = sorted(node.args, key=self._depth)
        return rebuild(node.op, terms), last

    def _depth(self, term: Expr) -> int:
        return max((self._depths.get(var.name, INSIDE) for var in free_vars(term)), default=0)

    def _lookup(self, node: Expr) -> int | None:
        if node.op == "var":
            if node.name not in self._bound:
                raise DlavmError(f"code generation: variable {node.name} has no value here")
            return self._bound[node.name]
        return self._cached.get(node)

    def _allocate(self) -> int:
        if not self._free:
            self._free.append(self._evicted())
        return self._free.pop()

    def _evicted(self) -> int:
        """The register of the oldest value that is in no use; of those around the block first."""
        used = self._results | self._operands | self._fixed()
        for cached in (*self._outside, self._cached):
            victim = next((e for e, r in cached.items() if r not in used), None)
            if victim is not None:
                return cached.pop(victim)
        raise OutOfRegistersError("code generation: an expression needs more scalar registers than the target has")

    def _compute(self, node: Expr) -> None:
        """Emits the commands for one node whose parts are constants or in registers."""
        operands = [a.value & WORD_MASK if a.op == "const" else self._held(a) for a in self._parts(node)]
        rd = self._allocate()
        if node.op == "select":
            condition, then, other = operands
            self._scalar("mov", rd, 0, other)
            assert isinstance(condition, SReg)
            self._scalar("mov", rd, 0, then, pred=condition.index)
        else:
            if node.op in ("add", "mul"):  # commutative: a register first, so that constants become immediates
                operands.sort(key=lambda v: not isinstance(v, SReg))
            first, second = operands
            if not isinstance(first, SReg):
                self._scalar("mov", rd, 0, first)
                first = SReg(rd)
            self._scalar(FUNCTIONS[node.op], rd, first.index, second)
        self._operands.difference_update(v.index for v in operands if isinstance(v, SReg))
        self._operands.add(rd)
        self._cached[node] = rd

    def _held(self, node: Expr) -> SReg:
        register = self._lookup(node)
        assert register is not None
        self._operands.add(register)
        return SReg(register)

    def _scalar(self, fn: str, rd: int, ra: int, b: int | SReg, pred: int = 0) -> None:
        fields: Mapping[str, int | SReg] = {"fn": self._fn[fn], "rd": rd, "ra": ra, "b": b}
        self._emit(Instr("SCALAR", fields, pred))
