"""Scalar registers of the autonomous stream: evaluates sym expressions with SCALAR commands, reusing what is computed."""
from __future__ import annotations

from collections.abc import Callable, Mapping

from dlavm.support.errors import DlavmError
from dlavm.sym import Expr
from dlavm.target import TargetSpec
from dlavm.target.isa import WORD_MASK, Instr, SReg

ARG_BASE = 1  # ARG[i] arrives in register s(1 + i)
FUNCTIONS = {"add": "add", "mul": "mul", "floordiv": "div", "mod": "mod", "min": "min", "max": "max",
             "lt": "lt", "le": "le", "eq": "eq"}


class Scalars:
    """Allocates s1..s31. Expressions computed inside a loop body are forgotten at its end; those computed outside stay
    readable inside and are never evicted there, because the next iteration reads them again."""

    def __init__(self, spec: TargetSpec, args: tuple[Expr, ...], emit: Callable[[Instr], None]) -> None:
        self._fn = spec.enums["scalar_fn"]
        self._emit = emit
        self._bound: dict[str, int] = {arg.name: ARG_BASE + i for i, arg in enumerate(args)}
        self._free = list(range(spec.limits["scalar_registers"] - 1, len(args), -1))
        self._scopes: list[dict[Expr, int]] = [{}]
        self._locked: set[int] = set()

    def value(self, expr: Expr) -> int | SReg:
        """An immediate or a register that holds the expression. Raises DlavmError where registers run out."""
        if expr.op == "const":
            return expr.value & WORD_MASK
        stack = [expr]
        while stack:
            node = stack[-1]
            if self._lookup(node) is not None or node.op == "const":
                stack.pop()
                continue
            waiting = [a for a in node.args if a.op != "const" and self._lookup(a) is None]
            if waiting:
                stack.extend(waiting)
            else:
                self._compute(node)
        register = self._lookup(expr)
        assert register is not None
        self._locked.add(register)
        return SReg(register)

    def release(self) -> None:
        """Ends the use of registers handed out since the last release; they stay cached."""
        self._locked.clear()

    def bind(self, var: Expr) -> int:
        """A register of its own for a loop or let variable."""
        register = self._allocate()
        self._bound[var.name] = register
        return register

    def unbind(self, var: Expr) -> None:
        self._free.append(self._bound.pop(var.name))

    def enter(self) -> None:
        self._scopes.append({})

    def leave(self) -> None:
        self._free.extend(self._scopes.pop().values())

    def _lookup(self, node: Expr) -> int | None:
        if node.op == "var":
            if node.name not in self._bound:
                raise DlavmError(f"code generation: variable {node.name} has no value here")
            return self._bound[node.name]
        return next((scope[node] for scope in self._scopes if node in scope), None)

    def _allocate(self) -> int:
        if not self._free:
            innermost = self._scopes[-1]
            victim = next((e for e, r in innermost.items() if r not in self._locked), None)
            if victim is None:
                raise DlavmError("code generation: an expression needs more scalar registers than the target has")
            self._free.append(innermost.pop(victim))
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
        self._scopes[-1][node] = rd
        self._locked.add(rd)

    def _held(self, node: Expr) -> SReg:
        register = self._lookup(node)
        assert register is not None
        self._locked.add(register)
        return SReg(register)

    def _scalar(self, fn: str, rd: int, ra: int, b: int | SReg, pred: int = 0) -> None:
        fields: Mapping[str, int | SReg] = {"fn": self._fn[fn], "rd": rd, "ra": ra, "b": b}
        self._emit(Instr("SCALAR", fields, pred))
