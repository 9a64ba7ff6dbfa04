"""Scalar registers of the autonomous stream: sym expressions become SCALAR commands, once each."""
from __future__ import annotations

from collections.abc import Callable, Mapping

from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, free_vars
from dlavm.target import TargetSpec
from dlavm.target.isa import WORD_MASK, Instr, SReg

ARG_BASE = 1  # ARG[i] arrives in register s(1 + i)
FUNCTIONS = {"add": "add", "mul": "mul", "floordiv": "div", "mod": "mod", "min": "min", "max": "max",
             "lt": "lt", "le": "le", "eq": "eq"}


class Scalars:
    """Allocates s1..s31. What was computed stays cached within straight-line code and is forgotten at the border of a
    loop, where another path could arrive with other registers."""

    def __init__(self, spec: TargetSpec, args: tuple[Expr, ...], emit: Callable[[Instr], None]) -> None:
        self._fn = spec.enums["scalar_fn"]
        self._emit = emit
        self._bound: dict[str, int] = {arg.name: ARG_BASE + i for i, arg in enumerate(args)}
        self._free = list(range(spec.limits["scalar_registers"] - 1, len(args), -1))
        self._cached: dict[Expr, int] = {}
        self._results: set[int] = set()  # handed out, in use until release()
        self._operands: set[int] = set()  # gathered for nodes that wait for their other arguments

    def value(self, expr: Expr) -> int | SReg:
        """An immediate or a register that holds the expression. Raises DlavmError where registers run out."""
        if expr.op == "const":
            return expr.value & WORD_MASK
        stack = [expr]
        while stack:
            node = stack[-1]
            if self._lookup(node) is not None:
                stack.pop()
                continue
            waiting = [a for a in node.args if a.op != "const" and self._lookup(a) is None]
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
        self._bound[var.name] = register
        return register

    def unbind(self, var: Expr) -> None:
        """Gives the register of a variable back, and those of what was computed with it."""
        self._free.append(self._bound.pop(var.name))
        for expr in [e for e in self._cached if var in free_vars(e)]:
            self._free.append(self._cached.pop(expr))

    def border(self) -> None:
        """Entry or end of a loop body: forgets what is cached."""
        self._free.extend(self._cached.values())
        self._cached.clear()

    def _lookup(self, node: Expr) -> int | None:
        if node.op == "var":
            if node.name not in self._bound:
                raise DlavmError(f"code generation: variable {node.name} has no value here")
            return self._bound[node.name]
        return self._cached.get(node)

    def _allocate(self) -> int:
        if not self._free:
            used = self._results | self._operands
            victim = next((e for e, r in self._cached.items() if r not in used), None)
            if victim is None:
                raise DlavmError("code generation: an expression needs more scalar registers than the target has")
            self._free.append(self._cached.pop(victim))
        return self._free.pop()

    def _compute(self, node: Expr) -> None:
        """Emits the commands for one node whose arguments are constants or in registers."""
        operands = [a.value & WORD_MASK if a.op == "const" else self._held(a) for a in node.args]
        rd = self._allocate()
        if node.op == "select":
            condition, then, other = operands
            self._scalar("mov", rd, 0, other)
            assert isinstance(condition, SReg)
            self._scalar("mov", rd, 0, then, pred=condition.index)
        else:
            if node.op in ("add", "mul"):  # commutative: a register first, so that constants become immediates
                operands.sort(key=lambda v: not isinstance(v, SReg))
            first, *rest = operands
            if not isinstance(first, SReg):
                self._scalar("mov", rd, 0, first)
                first = SReg(rd)
            for operand in rest:
                self._scalar(FUNCTIONS[node.op], rd, first.index, operand)
                first = SReg(rd)
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
