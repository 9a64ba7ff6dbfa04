"""Graph ops to task IR: one rule an op, chosen by capability (`lower`)."""
from dlavm.lower.context import BATCH_INPUTS, Content, Lowered, Rows
from dlavm.lower.driver import lower, lowering_problems
from dlavm.lower.rules import RULES, missing_rules

__all__ = ["BATCH_INPUTS", "RULES", "Content", "Lowered", "Rows", "lower", "lowering_problems", "missing_rules"]
