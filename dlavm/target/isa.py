"""Encoding and decoding of command streams, and their assembly text.

Stream form of a command (v2: header and payload; v3: header, indirect mask, payload):

    word 0   opcode [7:0], length in words [15:8], predicate register [20:16] (0: always), zero [31:21]
    word 1   v3: bit i set: payload word i holds the number of a scalar register, whose value stands for the word
    ...      payload words, laid out by `targets/isa`
"""
from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dlavm.support.errors import DlavmError
from dlavm.target.spec import Command, Field, TargetSpec

WORD_MASK = 0xFFFFFFFF


class EncodingError(DlavmError):
    """A command that the encoding cannot express; `code` is the name of the hardware's error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class SReg:
    """A scalar register standing for the value of a dynamic field."""

    index: int

    def __str__(self) -> str:
        return f"s{self.index}"


@dataclass(frozen=True)
class Instr:
    """One command: field values by name (absent: 0); skipped where the predicate register holds zero (0: never).

    `where` is its place in the model, which no encoding has: a comment of the assembly."""

    op: str
    fields: Mapping[str, int | SReg] = field(default_factory=dict)
    pred: int = 0
    where: str = field(default="", compare=False)


def f32_bits(x: float) -> int:
    """The 32 bits of a float rounded to float32."""
    return int(struct.unpack("<I", struct.pack("<f", x))[0])


def payload(spec: TargetSpec, instr: Instr) -> tuple[list[int], int]:
    """Payload words of a command and its indirect mask. Raises EncodingError naming op and field."""
    command = _command(spec, instr.op)
    unknown = set(instr.fields) - set(command.by_name)
    if unknown:
        raise EncodingError("field_range", f"{instr.op}: unknown field {sorted(unknown)[0]!r}")
    words, mask = [0] * command.payload_words, 0
    for f in command.fields:
        value = instr.fields.get(f.name, 0)
        if isinstance(value, SReg):
            _check_register(spec, instr.op, f, value)
            mask |= 1 << f.word
            value = value.index
        elif not f.takes(value):
            raise EncodingError("field_range", f"{instr.op}.{f.name}: expected {f.expected}, got {value!r}")
        words[f.word] |= value << f.lsb
    return words, mask


def encode(spec: TargetSpec, instr: Instr) -> list[int]:
    """The words of one command in a stream. Raises EncodingError."""
    words, mask = payload(spec, instr)
    if spec.header_words == 0:
        raise EncodingError("illegal_opcode", f"target {spec.name} has no command stream")
    if instr.pred and not _predicated(spec, _command(spec, instr.op)):
        raise EncodingError("field_range", f"{instr.op}: takes no predicate on {spec.name}, got register {instr.pred}")
    length = spec.header_words + len(words)
    header = _command(spec, instr.op).opcode | length << 8 | instr.pred << 16
    return [header, mask, *words] if spec.header_words == 2 else [header, *words]


def encode_program(spec: TargetSpec, program: Iterable[Instr]) -> list[int]:
    return [word for instr in program for word in encode(spec, instr)]


def places(spec: TargetSpec, program: Iterable[Instr]) -> dict[int, str]:
    """The `where` of each command that has one, by its word offset in the stream."""
    at, found = 0, {}
    for instr in program:
        if instr.where:
            found[at] = instr.where
        at += spec.header_words + _command(spec, instr.op).payload_words
    return found


@dataclass(frozen=True)
class Header:
    """The first word of a command, checked, and its payload, not looked at yet."""

    command: Command
    pred: int
    mask: int
    payload: list[int]
    length: int


def decode(spec: TargetSpec, words: list[int], at: int) -> tuple[Instr, int]:
    """The command at word `at` and the index behind it. Raises EncodingError with the hardware's error name."""
    header = decode_header(spec, words, at)
    fields = decode_payload(spec, header.command, header.payload, header.mask)
    return Instr(header.command.name, fields, header.pred), at + header.length


def decode_header(spec: TargetSpec, words: list[int], at: int) -> Header:
    """Opcode, length, predicate and indirect mask of the command at word `at`. Raises EncodingError."""
    if not 0 <= at < len(words):
        raise EncodingError("bad_length", f"word {at}: the stream ends without END")
    first = words[at]
    command = spec.opcodes.get(first & 0xFF)
    if command is None:
        raise EncodingError("illegal_opcode", f"word {at}: opcode 0x{first & 0xFF:02x} unknown to {spec.name}")
    length, pred = spec.header_words + command.payload_words, first >> 16 & 31
    if first >> 8 & 0xFF != length or at + length > len(words):
        found = f"header says {first >> 8 & 0xFF}, {len(words) - at} are left"
        raise EncodingError("bad_length", f"word {at}: {command.name} has {length} words, {found}")
    if first >> 21 or (pred and not _predicated(spec, command)):
        raise EncodingError("reserved_bits", f"word {at}: {command.name}: reserved header bits are set")
    if pred and pred >= spec.limits["scalar_registers"]:
        raise EncodingError("field_range", f"word {at}: {command.name}: no scalar register {pred}")
    mask = words[at + 1] if spec.header_words == 2 else 0
    if mask & ~sum(1 << f.word for f in command.fields if f.dynamic):
        raise EncodingError("reserved_bits", f"{command.name}: indirect mask 0x{mask:x} names other than dynamic words")
    return Header(command, pred, mask, words[at + spec.header_words:at + length], length)


def _predicated(spec: TargetSpec, command: Command) -> bool:
    return command.predicate and spec.has("scalars")


def decode_payload(spec: TargetSpec, command: Command, words: list[int], mask: int = 0) -> dict[str, int | SReg]:
    """Field values of payload words, every field present.

    Raises EncodingError: first for register numbers, then for reserved bits, then for field ranges.
    """
    for f in command.fields:
        if f.dynamic and mask >> f.word & 1 and words[f.word] >= spec.limits["scalar_registers"]:
            raise EncodingError("field_range", f"{command.name}.{f.name}: no scalar register {words[f.word]}")
    packed = sum(((1 << f.bits) - 1) << f.lsb for f in command.fields if not f.dynamic)
    if packed and words[0] & ~packed:
        raise EncodingError("reserved_bits", f"{command.name}: payload word 0 = 0x{words[0]:08x} has reserved bits set")
    return {f.name: _field(command, f, words[f.word], bool(f.dynamic and mask >> f.word & 1)) for f in command.fields}


def _field(command: Command, f: Field, word: int, indirect: bool) -> int | SReg:
    if indirect:
        return SReg(word)
    value = word if f.dynamic else word >> f.lsb & ((1 << f.bits) - 1)
    if not f.takes(value):
        raise EncodingError("field_range", f"{command.name}.{f.name}: expected {f.expected}, got {value}")
    return value


def decode_program(spec: TargetSpec, words: list[int]) -> list[tuple[int, Instr]]:
    """Every command of a stream with its word offset."""
    at, out = 0, []
    while at < len(words):
        instr, after = decode(spec, words, at)
        out.append((at, instr))
        at = after
    return out


def to_text(spec: TargetSpec, instr: Instr) -> str:
    """Assembly of one command: `@s3 LINEAR format=kv_k src=0x40 rows_o=s9`; fields that are zero are left out."""
    parts = [f"@s{instr.pred} {instr.op}" if instr.pred else instr.op]
    for f in _command(spec, instr.op).fields:
        value = instr.fields.get(f.name, 0)
        if value != 0:
            parts.append(f"{f.name}={_value_text(f, value)}")
    return " ".join(parts)


def from_text(spec: TargetSpec, line: str) -> Instr:
    """Inverse of `to_text`; a comment behind `#` is left out. Raises DlavmError naming the word that does not fit."""
    tokens = line.partition("#")[0].split()
    pred = 0
    if tokens and (m := re.fullmatch(r"@s(\d+)", tokens[0])):
        pred, tokens = int(m[1]), tokens[1:]
    if not tokens:
        raise DlavmError(f"assembly: expected a command, got {line!r}")
    command = _command(spec, tokens[0])
    fields: dict[str, int | SReg] = {}
    for token in tokens[1:]:
        name, _, text = token.partition("=")
        if name not in command.by_name:
            raise DlavmError(f"assembly: {command.name} has no field {name!r}")
        fields[name] = _parse_value(command.by_name[name], text, token)
    return Instr(command.name, fields, pred)


def disassemble(spec: TargetSpec, words: list[int], places: Mapping[int, str] | None = None) -> str:
    """A line a command: its word offset, its assembly, and behind `#` what `places` says of the offset."""
    comments = {at: f"  # {where}" for at, where in (places or {}).items()}
    return "".join(f"{at:6d}  {to_text(spec, instr)}{comments.get(at, '')}\n"
                   for at, instr in decode_program(spec, words))  # fmt: skip


def _value_text(f: Field, value: int | SReg) -> str:
    if isinstance(value, SReg):
        return str(value)
    if f.values:
        return next(name for name, number in f.values.items() if number == value)
    return f"0x{value:x}" if f.kind in ("addr", "stride", "f32") else str(value)


def _parse_value(f: Field, text: str, token: str) -> int | SReg:
    if f.values and text in f.values:
        return f.values[text]
    if f.dynamic and re.fullmatch(r"s\d+", text):
        return SReg(int(text[1:]))
    try:
        return int(text, 0)
    except ValueError:
        raise DlavmError(f"assembly: {f.name}: expected a number, got {token!r}") from None


def _command(spec: TargetSpec, op: str) -> Command:
    if op not in spec.commands:
        raise EncodingError("illegal_opcode", f"target {spec.name} has no command {op!r}")
    return spec.commands[op]


def _check_register(spec: TargetSpec, op: str, f: Field, value: SReg) -> None:
    if not f.dynamic or not 0 <= value.index < spec.limits["scalar_registers"]:
        raise EncodingError("field_range", f"{op}.{f.name}: cannot be taken from register {value}")
