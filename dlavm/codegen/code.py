"""What a step is driven with, by how the target is controlled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dlavm.codegen import flat, registers, stream
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr
from dlavm.target import TargetSpec
from dlavm.target.isa import encode_program, places
from dlavm.task import Program


@dataclass(frozen=True)
class Code:
    """`control`, and what it needs:

    * scalars: an autonomous stream of `words`; arguments go into scalar registers.
    * patches: a flat stream; before a step the host writes the value of each expression of `patches` over the
      arguments to the words at its offsets.
    * registers: no stream; the host runs `program`, which writes registers.

    `places`: where in the model commands of the stream stand, by word offset.
    """

    control: str
    words: list[int] = field(default_factory=list)
    patches: Mapping[Expr, tuple[int, ...]] = field(default_factory=dict)
    program: Program | None = None
    places: Mapping[int, str] = field(default_factory=dict)


Generator = Callable[[Program, TargetSpec, Mapping[str, int]], Code]


def _scalars(program: Program, spec: TargetSpec, bases: Mapping[str, int]) -> Code:
    made = stream.commands(program, spec, bases)
    return Code("scalars", encode_program(spec, made), places=places(spec, made))


def _patches(program: Program, spec: TargetSpec, bases: Mapping[str, int]) -> Code:
    words, patches, where = flat.generate(program, spec, bases)
    return Code("patches", words, patches, places=where)


def _registers(program: Program, spec: TargetSpec, bases: Mapping[str, int]) -> Code:
    return Code("registers", program=registers.generate(program, spec, bases))


# By capabilities; of those that a target has, the one with the most.
GENERATORS: Mapping[tuple[str, ...], Generator] = {
    ("mmio",): _registers,
    ("stream",): _patches,
    ("stream", "scalars", "loops"): _scalars,
}


def generate(program: Program, spec: TargetSpec, bases: Mapping[str, int]) -> Code:
    """The code of a program. `bases`: byte address of every buffer. Raises DlavmError for a target that nothing can
    drive, and for what its control cannot express."""
    fitting = [needs for needs in GENERATORS if spec.has(*needs)]
    if not fitting:
        ways = "; ".join(" + ".join(needs) for needs in GENERATORS)
        raise DlavmError(f"target {spec.name}: expected the capabilities of one way to control it ({ways}), got "
                         f"{', '.join(sorted(spec.capabilities))}")
    return GENERATORS[max(fitting, key=len)](program, spec, bases)
