"""Memory: when buffers live, where they lie, and an independent check of both."""

from dlavm.memory.layout import (
    MemoryMap,
    Region,
    alignments,
    assign,
    check_addresses,
    check_capacity,
    displaced,
    settled,
)
from dlavm.memory.liveness import Interval, liveness
from dlavm.memory.plan import Plan, plan
from dlavm.memory.validate import lower_bound, validate

__all__ = [
    "Interval",
    "MemoryMap",
    "Plan",
    "Region",
    "alignments",
    "assign",
    "check_addresses",
    "check_capacity",
    "displaced",
    "liveness",
    "lower_bound",
    "plan",
    "settled",
    "validate",
]
