"""What the instruction stream is made of: commands and words by kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec


@dataclass(frozen=True)
class KindCount:
    """Commands of one opcode in the stream, and their words, headers included."""

    name: str
    engine: str
    commands: int
    words: int


def histogram(spec: TargetSpec, words: Sequence[int]) -> list[KindCount]:
    """Every kind that occurs, most words first. Raises DlavmError for a stream that does not decode."""
    commands: dict[int, int] = {}
    lengths: dict[int, int] = {}
    at = 0
    while at < len(words):
        opcode, length = words[at] & 0xFF, words[at] >> 8 & 0xFF
        if opcode not in spec.opcodes or length == 0 or at + length > len(words):
            raise DlavmError(f"report: word {at}: expected the header of a {spec.name} command, got 0x{words[at]:08x}")
        commands[opcode] = commands.get(opcode, 0) + 1
        lengths[opcode] = lengths.get(opcode, 0) + length
        at += length
    kinds = [KindCount(spec.opcodes[o].name, spec.opcodes[o].engine or "front end", commands[o], lengths[o])
             for o in commands]  # fmt: skip
    return sorted(kinds, key=lambda k: (-k.words, k.name))
