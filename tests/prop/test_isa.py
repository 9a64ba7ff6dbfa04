"""Encoding: every field at and past its limits, random commands, random words, assembly text."""
from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlavm.support.errors import DlavmError
from dlavm.target import Command, Field, TargetSpec, load_target
from dlavm.target.isa import (
    EncodingError,
    Instr,
    SReg,
    decode,
    decode_payload,
    decode_program,
    disassemble,
    encode,
    encode_program,
    from_text,
    payload,
    to_text,
)

V1, V2, V3 = (load_target(t, "nano") for t in ("v1", "v2", "v3"))
EVERY_FIELD = [(s, c, f) for s in (V1, V2, V3) for c in s.commands.values() for f in c.fields]


def round_trip(spec: TargetSpec, instr: Instr) -> None:
    if spec.header_words == 0:
        words, _ = payload(spec, instr)
        again = Instr(instr.op, decode_payload(spec, spec.commands[instr.op], words))
        assert payload(spec, again)[0] == words
    else:
        words = encode(spec, instr)
        again, after = decode(spec, words, 0)
        assert after == len(words) and encode(spec, again) == words
    assert {n: v for n, v in again.fields.items() if v != 0} == {n: v for n, v in instr.fields.items() if v != 0}
    assert from_text(spec, to_text(spec, again)) == Instr(
        again.op, {n: v for n, v in again.fields.items() if v != 0}, again.pred)


@pytest.mark.parametrize(("spec", "command", "field"), EVERY_FIELD,
                         ids=[f"{s.name}-{c.name}-{f.name}" for s, c, f in EVERY_FIELD])
def test_field_limits(spec: TargetSpec, command: Command, field: Field) -> None:
    for value in (0, 1, field.limit - 1, field.limit):
        if field.takes(value):
            round_trip(spec, Instr(command.name, {field.name: value}))
    for value in (-1, field.limit + 1, 1 << 40):
        expected = re.escape(f"{command.name}.{field.name}: expected {field.expected}, got")
        with pytest.raises(EncodingError, match=expected):
            payload(spec, Instr(command.name, {field.name: value}))


@pytest.mark.parametrize(("spec", "command", "field"), [x for x in EVERY_FIELD if x[0] is V3],
                         ids=[f"{c.name}-{f.name}" for s, c, f in EVERY_FIELD if s is V3])
def test_scalar_registers_as_fields(spec: TargetSpec, command: Command, field: Field) -> None:
    if not field.dynamic:
        with pytest.raises(EncodingError, match="cannot be taken from register"):
            encode(spec, Instr(command.name, {field.name: SReg(3)}))
        return
    for register in (0, 31):
        words = encode(spec, Instr(command.name, {field.name: SReg(register)}, pred=31))
        assert decode(spec, words, 0)[0].fields[field.name] == SReg(register)
    with pytest.raises(EncodingError):
        encode(spec, Instr(command.name, {field.name: SReg(32)}))


@st.composite
def instructions(draw: st.DrawFn, spec: TargetSpec) -> Instr:
    command = spec.commands[draw(st.sampled_from(sorted(spec.commands)))]
    fields: dict[str, int | SReg] = {}
    for f in command.fields:
        choices = [st.sampled_from(sorted(f.values.values())) if f.has_gaps else st.integers(0, f.limit)]
        if f.dynamic and spec.has("scalars"):
            choices.append(st.builds(SReg, st.integers(0, 31)))
        fields[f.name] = draw(st.one_of(choices))
    return Instr(command.name, fields, draw(st.integers(0, 31)) if spec.has("scalars") and command.predicate else 0)


@given(st.lists(instructions(V3), max_size=6))
def test_programs_round_trip(program: list[Instr]) -> None:
    words = encode_program(V3, program)
    assert [instr for _, instr in decode_program(V3, words)] == program
    lines = disassemble(V3, words).splitlines()
    assert encode_program(V3, [from_text(V3, line.split(None, 1)[1]) for line in lines]) == words


@given(instructions(V2))
def test_v2_round_trip(instr: Instr) -> None:
    round_trip(V2, instr)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_random_words_decode_or_fail_cleanly(words: list[int]) -> None:
    try:
        program = decode_program(V3, words)
    except EncodingError as error:
        code = error.code
    else:
        assert encode_program(V3, [i for _, i in program]) == words
        return
    assert code in V3.enums["error"]


@pytest.mark.parametrize(("spec", "names"), [
    (V1, "int8g128 int4g32 mxfp4 fp8g128"), (V2, "mxfp4 mxfp6 mxfp8 mxint8 fp8g128"),
])
def test_formats_of_later_generations_are_refused(spec: TargetSpec, names: str) -> None:
    """Encoding and decoding take the values that the expanded target has, and say which these are."""
    for name in names.split():
        number = V3.enums["weight_format"][name]
        for refused in (lambda n=number: payload(spec, Instr("LINEAR", {"format": n})),
                        lambda n=number: decode_payload(spec, spec.commands["LINEAR"], [n] + [0] * 40)):
            with pytest.raises(EncodingError, match="LINEAR.format: expected one of int4g128, kv_k, kv_v,") as error:
                refused()
            assert error.value.code == "field_range"


def test_numbers_without_a_meaning_are_refused() -> None:
    unused = set(range(32)) - set(V3.enums["weight_format"].values())
    assert {5, 6, 7, 24, 31} <= unused
    for number in unused:
        with pytest.raises(EncodingError, match="LINEAR.format"):
            decode_payload(V3, V3.commands["LINEAR"], [number] + [0] * 40)


def test_what_a_target_lacks() -> None:
    with pytest.raises(EncodingError, match="target v2 has no command 'GATHER'"):
        encode(V2, Instr("GATHER"))
    with pytest.raises(EncodingError, match="target v1 has no command stream"):
        encode(V1, Instr("NORM"))
    with pytest.raises(EncodingError, match="takes no predicate on v2"):
        encode(V2, Instr("NORM", {}, pred=1))


@pytest.mark.parametrize(("line", "message"), [
    ("", "expected a command"), ("FROB x=1", "no command 'FROB'"), ("NORM frob=1", "has no field 'frob'"),
    ("NORM dim=many", "expected a number"), ("@s1", "expected a command"),
])
def test_bad_assembly(line: str, message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        from_text(V3, line)


def test_truncated_stream() -> None:
    words = encode(V3, Instr("NORM", {"dim": 5}))
    for cut in range(1, len(words)):
        with pytest.raises(EncodingError) as e:
            decode_program(V3, words[:cut])
        assert e.value.code == "bad_length"
