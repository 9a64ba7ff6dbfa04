"""What a board allows: bytes and MACs a second, and the least time that a step can take with them."""

from __future__ import annotations

from dataclasses import dataclass

from dlavm.report.steps import COLUMNS, Step, Work
from dlavm.target import TargetSpec
from dlavm.target.sizes import matrix_lanes


@dataclass(frozen=True)
class Machine:
    """Peaks of a board. `bytes_s` is what the weight memory and the ports behind it reach together."""

    memory: str
    bytes_s: float
    limited_by: str
    lanes: int
    macs_s: float

    @property
    def balance(self) -> float:
        """MACs a byte at which memory and lanes take the same time."""
        return self.macs_s / self.bytes_s

    def memory_s(self, count: float) -> float:
        """Seconds for that many bytes."""
        return count / self.bytes_s

    def lanes_s(self, macs: float) -> float:
        """Seconds for that many MACs, one a lane and cycle."""
        return macs / self.macs_s


@dataclass(frozen=True)
class Bound:
    """Least seconds of a step: from bytes moved once, from every operand of every command, from the lanes."""

    once_s: float
    operands_s: float
    lanes_s: float
    tokens: int

    @property
    def least_s(self) -> float:
        """What no schedule on this board can be faster than."""
        return max(self.once_s, self.lanes_s)

    @property
    def limit(self) -> str:
        return "bandwidth" if self.once_s >= self.lanes_s else "lanes"


def machine(spec: TargetSpec) -> Machine:
    """The peaks of the target's core on its board."""
    memory, lanes = spec.space("weights"), matrix_lanes(spec)
    limit = "the ports" if memory.bytes_s < memory.peak_gbs * 1e9 * (1 - 1e-9) else "the memory itself"
    return Machine(memory.name, memory.bytes_s, limit, lanes, lanes * spec.board.clock_mhz * 1e6)


def fast_columns(spec: TargetSpec) -> list[str]:
    """The columns of `Work` that lie in the memory of the weights."""
    memory = spec.space("weights")
    return [column for column in COLUMNS if column in spec.roles and spec.space(column) == memory]


def fast_bytes(work: Work, spec: TargetSpec) -> int:
    """Bytes of the work that the memory of the weights moves."""
    return sum(getattr(work, column) for column in fast_columns(spec))


def bound(step: Step, spec: TargetSpec) -> Bound:
    """Least times of a step."""
    board = machine(spec)
    once = sum(step.once[column] for column in fast_columns(spec))
    operands = fast_bytes(step.total, spec)
    return Bound(board.memory_s(once), board.memory_s(operands), board.lanes_s(step.total.macs), step.tokens)
