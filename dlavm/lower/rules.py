"""The table of lowering rules. A rule names the capabilities it needs, `a|b` where either will do; of those the target
satisfies, the rule with the most needs wins, and a tie is an error."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlavm.graph import Node
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec

if TYPE_CHECKING:
    from dlavm.lower.context import Context

Emit = Callable[["Context", Node], None]


@dataclass(frozen=True)
class Rule:
    op: str
    needs: frozenset[str]
    emit: Emit

    def fits(self, spec: TargetSpec) -> bool:
        """Whether the target has all that the rule needs."""
        return all(any(map(spec.has, need.split("|"))) for need in self.needs)


RULES: list[Rule] = []


def rule(op: str, *needs: str) -> Callable[[Emit], Emit]:
    """Registers the decorated function as the lowering of `op` on targets that have all of `needs`."""

    def register(emit: Emit) -> Emit:
        RULES.append(Rule(op, frozenset(needs), emit))
        return emit

    return register


def select(op: str, spec: TargetSpec) -> Rule:
    """The rule for `op` on a target. Raises DlavmError where there is none, or where two tie."""
    candidates = [r for r in RULES if r.op == op and r.fits(spec)]
    if not candidates:
        wanted = [" + ".join(sorted(r.needs)) for r in RULES if r.op == op]
        reason = f"every rule needs one of: {'; '.join(wanted)}" if wanted else "no rule lowers this op"
        raise DlavmError(f"op {op} cannot be compiled for {spec.name}: {reason}")
    most = max(len(r.needs) for r in candidates)
    best = [r for r in candidates if len(r.needs) == most]
    if len(best) > 1:
        needs = " and ".join(str(sorted(r.needs)) for r in best)
        raise DlavmError(f"op {op} on {spec.name}: expected one best rule, got a tie between needs {needs}")
    return best[0]


def missing_rules(ops: list[str], spec: TargetSpec) -> list[str]:
    """Those of `ops` that no rule can lower on the target."""
    return [op for op in ops if not any(r.op == op and r.fits(spec) for r in RULES)]
