"""How long a command takes, roughly: enough to say which of two orders is better, not how long either is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dlavm.formats import BLOCK
from dlavm.schedule.traffic import operands
from dlavm.sym import Expr, evaluate, free_vars
from dlavm.target import TargetSpec
from dlavm.target.layout import ceildiv
from dlavm.target.sizes import matrix_lanes, vector_lanes
from dlavm.task import For, If, Launch, Stmt

START_CYCLES = 150  # of a command in which it neither fetches nor computes: before its first operand, behind its last
ROW_CYCLES = 100  # of the vector engine, between the rows of a reduction
REDUCTIONS = ("NORM", "SOFTMAX", "TOPK", "ARGMAX")
PASSES = {"NORM": 2, "SOFTMAX": 3}  # of the vector engine over its elements; 1 of the others
TOKENS_PER_MULTIPLIER = 2  # share a weight on its way through the lanes


def _least(var: Expr) -> int:
    return var.lo


TYPICAL: Mapping[str, Callable[[Expr], int]] = {
    "head_rows": lambda var: min(1, var.hi),
    "kv_len": lambda var: var.hi // 2,
}


class Cost:
    """Cycles of the core, in a step of one token behind half of the context; other variables have their least values,
    buffers no addresses."""

    def __init__(self, spec: TargetSpec) -> None:
        self._spec = spec

    def __call__(self, stmt: Stmt) -> int:
        """Of a command, or of a block: its commands one after the other, in its first turn, for as many turns."""
        if isinstance(stmt, For):
            return max(1, self._value(stmt.count) * sum(map(self, stmt.body)))
        if isinstance(stmt, If):
            return max(1, sum(map(self, stmt.body)))
        return self.launch(stmt) if isinstance(stmt, Launch) else 1

    def launch(self, stmt: Launch) -> int:
        fields = {name: self._value(value) for name, value in stmt.fields.items()}
        return START_CYCLES + max(self._memory(stmt.op, fields), self._lanes(stmt.op, fields))

    def _value(self, expr: Expr) -> int:
        if expr.is_const:
            return expr.value
        return evaluate(expr, {v.name: TYPICAL.get(v.name, _least)(v) for v in free_vars(expr)})

    def _memory(self, op: str, fields: Mapping[str, int]) -> int:
        moved = sum(operand.bytes for operand in operands(op, fields, self._spec))
        return round(moved / self._spec.space("weights").bytes_s * self._spec.board.clock_mhz * 1e6)

    def _lanes(self, op: str, fields: Mapping[str, int]) -> int:
        rows = fields.get("rows_o", 1) * fields.get("rows_i", 1) * fields.get("batch", 1)
        if op == "LINEAR":
            pairs = ceildiv(fields.get("rows_o", 0) * fields.get("rows_i", 0), TOKENS_PER_MULTIPLIER)
            tokens = pairs * TOKENS_PER_MULTIPLIER * fields.get("batch", 1)
            return tokens * fields.get("n", 0) * ceildiv(fields.get("k", 0), BLOCK) * BLOCK // matrix_lanes(self._spec)
        if self._spec.commands[op].engine != "vector":
            return 0
        length = fields.get("width") or fields.get("n") or fields.get("dim", 0)
        strips = rows * ceildiv(length, vector_lanes(self._spec)) * PASSES.get(op, 1)
        return strips + rows * ROW_CYCLES * (op in REDUCTIONS)


