"""What of the instruction set streams exercise, and streams that exercise all of it.

An item is (command, what): the command itself, `field=value` for every value of a packed field, `field in a register`
for every dynamic field, `predicate` where the command takes one.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from dlavm.formats import FORMATS
from dlavm.target import TargetSpec
from dlavm.target.isa import Instr, SReg, decode_program, encode, encode_program
from dlavm.target.layout import KV_FORMATS
from dlavm.target.spec import ADDRESS_UNIT, Field
from tests.ops import programs
from tests.ops.programs import CACHE, PROGRAM, READ, REGION, TABLE, USED, WEIGHTS, WRITE, Case, Rng, random_case

Item = tuple[str, str]
MOST_PROGRAMS = 400
# Bytes of E8M0: the ends of what an append writes and of what weights may have, and what lies behind them.
EXPONENTS = np.array([0, 1, 86, 87, 88, 102, 103, 104, 127, 141, 142, 143, 166, 167, 168, 254, 255], np.uint8)


def values(spec: TargetSpec, field: Field) -> list[int]:
    """What a packed field may hold: the values of its enum, both states of a flag, or every number."""
    if field.values:
        return sorted(field.values.values())
    slots = {"act_slot": spec.limits["act_slots"], "sem": spec.limits["semaphores"]}
    return list(range(slots.get(field.name, 1 << field.bits)))


def all_items(spec: TargetSpec) -> set[Item]:
    """Every item of a target."""
    items: set[Item] = set()
    for command in spec.commands.values():
        items.add((command.name, ""))
        for field in command.fields:
            if field.dynamic:
                items.add((command.name, f"{field.name} in a register"))
            else:
                items |= {(command.name, f"{field.name}={value}") for value in values(spec, field)}
        if command.predicate and spec.has("scalars"):
            items.add((command.name, "predicate"))
    return items


def items_of(spec: TargetSpec, words: list[int]) -> set[Item]:
    """The items of a stream."""
    items: set[Item] = set()
    for _, instr in decode_program(spec, words):
        items.add((instr.op, ""))
        if instr.pred:
            items.add((instr.op, "predicate"))
        for name, value in instr.fields.items():
            if isinstance(value, SReg):
                items.add((instr.op, f"{name} in a register"))
            elif not spec.commands[instr.op].by_name[name].dynamic:
                items.add((instr.op, f"{name}={value}"))
    return items


def covering_cases(spec: TargetSpec) -> Iterator[tuple[str, Case]]:
    """Programs with names, which together have every item: directed ones, and random ones that add to them."""
    missing = all_items(spec)
    for name, case in directed_cases(spec):
        missing -= items_of(spec, case.words)
        yield name, case
    for seed in range(9000, 9000 + MOST_PROGRAMS):
        case = random_case(spec, seed, commands=10)
        found = items_of(spec, case.words) & missing
        if found:
            missing -= found
            yield f"seed {seed}", case


def directed_cases(spec: TargetSpec) -> Iterator[tuple[str, Case]]:
    """What random programs do not have: tiles along K, predicates, control flow, semaphores, odd exponents."""
    rng = np.random.default_rng(1)
    yield "tiles along K", case_of(spec, rng, _tiles(spec, rng))
    yield "predicates", case_of(spec, rng, _predicates(spec, rng))
    yield "registers", case_of(spec, rng, _registers(spec))
    yield "semaphores", case_of(spec, rng, _semaphores(spec))
    yield "control flow", case_of(spec, rng, *_flow(spec))
    yield "addresses in registers", case_of(spec, rng, _indirect(spec, rng))
    for form in [name for name, f in FORMATS.items() if f.scale == "e8m0" and name in spec.enums["weight_format"]]:
        yield f"exponents of {form}", _exponents(spec, rng, form)
    for form in (KV_FORMATS["mxint8"].keys, KV_FORMATS["mxint8"].values):
        yield f"exponents of {form}", _exponents(spec, rng, form)


def case_of(spec: TargetSpec, rng: Rng, program: Iterable[Instr], behind: Iterable[Instr] = ()) -> Case:
    """A program on random memory, with `behind` after its END."""
    case = random_case(spec, int(rng.integers(1 << 30)), commands=0)
    tables = [Instr("LOAD_TABLE", {"act_slot": slot, "table": (TABLE + slot * 16384) // ADDRESS_UNIT})
              for slot in range(spec.limits["act_slots"])]
    words = encode_program(spec, [*tables, *program, Instr("FENCE"), Instr("END"), *behind])
    memory = case.memory.copy()
    memory[PROGRAM:USED] = 0
    memory[PROGRAM:PROGRAM + 4 * len(words)] = np.array(words, dtype=np.uint32).view(np.uint8)
    return Case(memory, words)


def _move(spec: TargetSpec, register: int, value: int) -> Instr:
    return Instr("SCALAR", {"fn": spec.enums["scalar_fn"]["mov"], "rd": register, "b": value})


def _mark(place: int, length: int | SReg = 8) -> Instr:
    """Copies a row of the source to place `place`, so that what ran can be seen."""
    return Instr("COPY", {"src": (READ + 64 * place) // ADDRESS_UNIT, "dst": (WRITE + 64 * place) // ADDRESS_UNIT,
                          "rows_o": 1, "rows_i": 1, "dim": length})


def _linear(spec: TargetSpec, rng: Rng, form: str) -> dict[str, int]:
    """LINEAR of one batch over packed weights, small enough to keep its accumulators."""
    while True:
        fields = programs._packed(spec, rng, 2, 2, FORMATS[form])
        if fields["batch"] == 1 and 4 * fields["n"] <= spec.board.accumulators:
            return fields | {"format": spec.enums["weight_format"][form], "rows_o": 2, "rows_i": 2}


def _tiles(spec: TargetSpec, rng: Rng) -> Iterator[Instr]:
    """Accumulators left, taken and left, taken, in several formats."""
    for form in ("int4g128", "int8g32z", "mxfp6"):
        if form in spec.enums["weight_format"]:
            fields = _linear(spec, rng, form)
            for taken, left in ((0, 1), (1, 1), (1, 0)):
                yield Instr("LINEAR", {**fields, "acc_in": taken, "acc_out": left})
            yield Instr("FENCE")


def _predicates(spec: TargetSpec, rng: Rng) -> Iterator[Instr]:
    """Every command with a predicate that lets it run, and with one that does not."""
    yield _move(spec, 9, 1)
    yield _move(spec, 10, 0)
    for make in dict.fromkeys(programs.MAKERS):
        for pred in (9, 10):
            yield Instr(make.__name__.upper(), make(spec, rng), pred)
            yield Instr("FENCE", {}, pred)
            yield Instr("FENCE")
    for slot, pred in enumerate((9, 10)):
        yield Instr("SCALAR", {"fn": spec.enums["scalar_fn"]["mov"], "rd": 11, "b": 3 + slot}, pred)
        yield _mark(2 + slot, SReg(11))
        yield Instr("LOAD_TABLE", {"act_slot": 0, "table": (TABLE + 16384 * (1 + slot)) // ADDRESS_UNIT}, pred)
        yield Instr("SIGNAL", {"engine": 3, "sem": 7}, pred)
        yield Instr("WAIT", {"engine": 2, "sem": 7}, pred)
    yield Instr("END", {}, 10)
    yield _mark(1)


def _registers(spec: TargetSpec) -> Iterator[Instr]:
    """Every register written and read, by every function; the results decide how much is copied."""
    functions = spec.enums["scalar_fn"]
    count = spec.limits["scalar_registers"]
    for register in range(count):
        yield _move(spec, register, 3 * register + 1)
    for register in range(count):
        other = SReg((register + 5) % count)
        yield Instr("SCALAR", {"fn": functions["add"], "rd": register, "ra": register, "b": other})
    for name, number in functions.items():
        operand = READ // ADDRESS_UNIT if name == "load" else 5
        yield Instr("SCALAR", {"fn": functions["mov"], "rd": 11, "b": operand})
        yield Instr("SCALAR", {"fn": number, "rd": 12, "ra": 11, "b": 3})
        yield Instr("SCALAR", {"fn": functions["mod"], "rd": 12, "ra": 12, "b": 29})
        yield _mark(number, SReg(12))
    for register in range(count):
        yield Instr("SCALAR", {"fn": functions["mod"], "rd": 12, "ra": register, "b": 29})
        yield _mark(100 + register, SReg(12))


def _semaphores(spec: TargetSpec) -> Iterator[Instr]:
    """Every semaphore, signalled and waited for by every engine."""
    engines = sorted(spec.enums["engine"].values())
    for sem in range(spec.limits["semaphores"]):
        for place, signalling in enumerate(engines):
            yield Instr("SIGNAL", {"engine": signalling, "sem": sem})
            yield Instr("WAIT", {"engine": engines[(place + sem) % len(engines)], "sem": sem})
        yield _mark(sem)


def _flow(spec: TargetSpec) -> tuple[list[Instr], list[Instr]]:
    """Loops over every register, counts and targets in registers, calls and returns with predicates."""
    body = [_mark(1, SReg(12)), Instr("ENDLOOP")]
    length = len(encode_program(spec, body))
    registers = [r for r in range(spec.limits["scalar_registers"]) if r != 12]
    program = [_move(spec, 12, 5), _move(spec, 13, 2)]
    for register in registers:
        program += [Instr("LOOP", {"rd": register, "count": SReg(13) if register % 2 else 2, "body": length}), *body]
    program += [Instr("LOOP", {"rd": 12, "count": 2, "body": length}, 13), *body, _move(spec, 9, 1), _move(spec, 10, 0)]
    part = [_mark(40), Instr("RET", {}, 10), _mark(41), Instr("RET", {}, 9), _mark(42), Instr("RET")]
    tables = spec.limits["act_slots"] * len(encode(spec, Instr("LOAD_TABLE", {"act_slot": 0, "table": 0})))
    calls = [_move(spec, 14, 0), Instr("CALL", {"target": 0}, 9), Instr("CALL", {"target": 0}, 10),
             Instr("CALL", {"target": SReg(14)}), Instr("LOOP", {"rd": 1, "count": 2, "body": SReg(15)}), *body]
    tail = [Instr("FENCE"), Instr("END")]
    head = [*program, _move(spec, 15, length)]
    target = tables + len(encode_program(spec, [*head, *calls, *tail]))
    calls = [_move(spec, 14, target), *(Instr("CALL", {"target": target}, pred) for pred in (9, 10)), *calls[3:]]
    return [*head, *calls], part


def _indirect(spec: TargetSpec, rng: Rng) -> Iterator[Instr]:
    """Every dynamic field of every engine command from a register, some at a time."""
    for make in dict.fromkeys(programs.MAKERS):
        op = make.__name__.upper()
        fields = make(spec, rng)
        dynamic = [f.name for f in spec.commands[op].fields if f.dynamic]
        for first in range(0, len(dynamic), 12):
            names = dynamic[first:first + 12]
            yield from (_move(spec, 9 + i, fields.get(name, 0)) for i, name in enumerate(names))
            yield Instr(op, {**fields, **{name: SReg(9 + i) for i, name in enumerate(names)}})
            yield Instr("FENCE")
    yield _move(spec, 9, TABLE // ADDRESS_UNIT)
    yield Instr("LOAD_TABLE", {"act_slot": 1, "table": SReg(9)})


def _exponents(spec: TargetSpec, rng: Rng, form: str) -> Case:
    """LINEAR over weights or a cache all of whose bytes, the exponents too, are at the edges of E8M0."""
    def fields() -> dict[str, int]:
        if form in FORMATS:
            return _linear(spec, rng, form)
        while True:
            found = programs.linear(spec, rng)
            if found["format"] == spec.enums["weight_format"][form]:
                return found

    made = [Instr("LINEAR", {**fields(), "use_scale": 0, "use_act": 0, "use_bias": 0}) for _ in range(3)]
    case = case_of(spec, rng, [part for instr in made for part in (instr, Instr("FENCE"))])
    region = WEIGHTS if form in FORMATS else CACHE
    case.memory[region:region + REGION] = rng.choice(EXPONENTS, REGION)
    return case


def table(spec: TargetSpec, covered: set[Item]) -> str:
    """What of each command is covered, in Markdown: values of packed fields, fields from registers, predicates."""
    rows = ["| command | values of its fields | fields in registers | predicate |", "|---|---|---:|---|"]

    def share(items: list[Item]) -> str:
        return f"{len(covered.intersection(items))} of {len(items)}"

    for command in sorted(spec.commands.values(), key=lambda c: c.opcode):
        packed = [f for f in command.fields if not f.dynamic]
        parts = [f"{f.name} " + share([(command.name, f"{f.name}={v}") for v in values(spec, f)]) for f in packed]
        dynamic = [(command.name, f"{f.name} in a register") for f in command.fields if f.dynamic]
        predicate = (command.name, "predicate")
        state = "none" if predicate not in all_items(spec) else "yes" if predicate in covered else "no"
        name = command.name if (command.name, "") in covered else f"{command.name} (never)"
        rows.append(f"| {name} | {', '.join(parts) or '-'} | {share(dynamic) if dynamic else '-'} | {state} |")
    return "\n".join(rows) + "\n"
