"""The commands of a record with what a person knows them by: the place in the model, the layer, the tensor; and with
their bytes and MACs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dlavm.profile.record import Command, Record, Wait
from dlavm.profile.subject import Subject
from dlavm.report.steps import group_of
from dlavm.schedule.traffic import RULES, kind, macs, operands
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.target.isa import decode_payload
from dlavm.target.spec import ADDRESS_UNIT

CONSTANTS = ("wgt", "gamma", "table", "cache")  # the operand that names a command, where there is one
_LINE = re.compile(r"\s*(\d+)  (?:@s\d+ )?(\w+)([^#]*?)(?:  # (.*))?")
_LAYER = re.compile(r"\b(?:layers?|blocks?)[ ._]?(\d+)")


@dataclass(frozen=True)
class Line:
    """A command of the assembly. `body`: words of a LOOP's body."""

    op: str
    where: str
    body: int = 0


@dataclass(frozen=True)
class Op:
    """A command that ran. `place`: where in the model, its layer included; `tensor`: the constant or cache that it
    works with; `fast_bytes`: those of `bytes` that lie in the memory of the weights."""

    command: Command
    kind: str
    place: str
    layer: str
    tensor: str
    bytes: int
    fast_bytes: int
    macs: int

    @property
    def group(self) -> str:
        """The place with the number of its layer left out."""
        return group_of(self.place)


def read_listing(text: str) -> dict[int, Line]:
    """The commands of an assembly by word. Raises DlavmError for a line that is none."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise DlavmError(f"assembly: line {number}: expected a word offset and a command, got {line[:80]!r}")
        body = re.search(r"\bbody=(\d+)", match[3])
        found[int(match[1])] = Line(match[2], match[4] or "", int(body[1]) if body else 0)
    return found


def ops_of(record: Record, subject: Subject) -> list[Op]:
    """The commands in the order of the program. Raises DlavmError where record and program do not belong together."""
    listing, spec = read_listing(subject.listing), subject.spec
    turns = outermost_turns(record.waits, listing, spec)
    made: list[Op] = []
    layer, turn = "", -1
    for command in sorted(record.commands, key=lambda c: c.number):
        line = listing.get(command.word)
        if line is None or line.op not in RULES:
            raise DlavmError(f"profile: word {command.word}: expected a command of the program, got {line}")
        now = turns.get(command.number, -1)
        layer, turn = (layer if now == turn else ""), now
        op = _op(command, line, subject, layer or (str(now) if now >= 0 else ""))
        layer = op.layer
        made.append(op)
    return made


def outermost_turns(waits: Iterable[Wait], listing: Mapping[int, Line], spec: TargetSpec) -> dict[int, int]:
    """For the numbers of commands in a loop, the turn of the outermost one; from the front end's way."""
    found: dict[int, int] = {}
    loop: tuple[int, int] | None = None  # its first word and the one behind it
    turn, last = -1, -1
    for wait in waits:
        if wait.track != "front" or wait.detail == last:
            continue
        last = wait.detail
        if loop and not loop[0] <= wait.word < loop[1]:
            loop = None
        if loop:
            turn += wait.word == loop[0]
            found[wait.detail] = turn
        line = listing.get(wait.word)
        if not loop and line and line.op == "LOOP":
            begin = wait.word + spec.header_words + spec.commands["LOOP"].payload_words
            loop, turn = (begin, begin + line.body), -1
    return found


def _op(command: Command, line: Line, subject: Subject, layer: str) -> Op:
    spec = subject.spec
    decoded = decode_payload(spec, spec.commands[line.op], list(command.words))
    values = {name: int(str(value)) for name, value in decoded.items()}
    moved = fast = 0
    tensor = ""
    weights = spec.space("weights")
    for operand in operands(line.op, values, spec):
        address = values.get(operand.name, 0) * ADDRESS_UNIT
        moved += operand.bytes
        fast += operand.bytes * (weights.base <= address < weights.base + weights.capacity)
        if operand.name in CONSTANTS and not tensor and (found := subject.tensor(address)):
            tensor = found.name
    own = _LAYER.search(line.where) or ("*" in line.where and _LAYER.search(tensor))
    layer = own[1] if own else layer if "*" in line.where else ""
    place = (line.where or line.op).replace("*", layer or "*")
    return Op(command, kind(line.op, values, spec), place, layer, tensor, moved, fast, macs(line.op, values))
