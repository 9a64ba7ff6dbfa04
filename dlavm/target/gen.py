"""Generates everything that repeats the instruction set: `python -m dlavm.target.gen [--check]` (`make gen`).

Writes targets/generated/ (C++ header, SystemVerilog packages, expanded targets) and doc/isa/. With --check nothing is
written and the exit code is 1 where a committed file differs from what would be generated.
"""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jinja2
import yaml

from dlavm.formats import ELEMENTS, FORMATS, Element
from dlavm.formats.table import E8M0_BIAS, E8M0_LIMIT
from dlavm.support.generate import camel, generator_main, template_environment
from dlavm.support.paths import data_root
from dlavm.target.spec import (
    ADDRESS_UNIT,
    Command,
    Field,
    TargetSpec,
    expand,
    list_targets,
    load_isa,
    load_target,
)
from dlavm.target.tables import LOG2E_BITS, unit_tables
from dlavm.target.vector import GROUPS, RANGES, STORES, load_vector


def dynamic_mask(command: Command) -> int:
    return sum(1 << f.word for f in command.fields if f.dynamic)


def packed_mask(command: Command) -> int | None:
    """Bits of payload word 0 that fields use; None where word 0 is not shared."""
    masks = [((1 << f.bits) - 1) << f.lsb for f in command.fields if not f.dynamic]
    return sum(masks) if masks else None


def raw(f: Field) -> str:
    """C++ expression of a field's bits; a field that owns its word is compared whole."""
    if f.dynamic:
        return f"words[{f.word}]"
    shifted = f"words[{f.word}] >> {f.lsb}" if f.lsb else f"words[{f.word}]"
    return f"({shifted} & 0x{(1 << f.bits) - 1:x}u)"


def ctype(f: Field) -> str:
    return camel(f.enum) if f.enum else "bool" if f.kind == "flag" else "uint32_t"


def extract(f: Field) -> str:
    """C++ expression of a field's value in its own type."""
    if f.enum:
        return f"static_cast<{ctype(f)}>({raw(f)})"
    return f"{raw(f)} != 0" if f.kind == "flag" else raw(f)


def refused(f: Field) -> str:
    """C++ condition of a value that the field does not take; empty where every value will do."""
    if f.has_gaps:
        return f"(0x{sum(1 << v for v in f.values.values()):x}u >> {raw(f)} & 1u) == 0"
    can_be_past = f.bits < 32 if f.dynamic else bool(f.values) and f.limit < (1 << f.bits) - 1
    return f"{raw(f)} > {f.limit}u" if can_be_past else ""


def refused_values(f: Field) -> list[int]:
    """Values of a packed field that mean nothing on any target; of `by_name` enums a target's mask decides."""
    if f.enum in masked_enums() or not f.values:
        return []
    return [v for v in range(1 << f.bits) if v not in f.values.values()]


def masked_enums() -> set[str]:
    """Enums of which each target has values of its own."""
    return {name for name, e in load_isa(data_root() / "targets").raw_enums.items() if e.get("by_name")}


def code_kind(element: Element) -> str:
    """What the codes are: integers of so many bits, or the name of the floats."""
    return element.name if element.float_type else f"int{element.bits}"


def environment() -> jinja2.Environment:
    env = template_environment("dlavm.target")
    env.filters.update(dynamic_mask=dynamic_mask, packed_mask=packed_mask, raw=raw, ctype=ctype, extract=extract,
                       refused=refused, code_kind=code_kind, refused_values=refused_values,
                       engine_number=lambda c: -1 if c.engine is None else engines()[c.engine],
                       enum_bits=lambda values: max(1, max(values.values()).bit_length()))
    return env


def engines() -> dict[str, int]:
    return load_isa(data_root() / "targets").enums["engine"]


def render() -> dict[str, str]:
    """Path relative to the repository -> text, of every generated file."""
    root = data_root() / "targets"
    isa = load_isa(root)
    env = environment()
    context: dict[str, Any] = {
        "unit": ADDRESS_UNIT,
        "enums": isa.enums,
        "commands": [isa.command(n) for n in sorted(isa.raw_commands, key=lambda n: isa.raw_commands[n]["opcode"])],
        "registers": [isa.register(n) for n in isa.raw_registers],
        "formats": FORMATS.values(),
        "scale_bias": E8M0_BIAS,
        "scale_limit": E8M0_LIMIT,
        "elements": {code_kind(e): e.table.tolist() for e in ELEMENTS.values()},
        "tables": {n: [int(x) for x in t] for n, t in unit_tables().items()},
        "log2e": LOG2E_BITS,
    }
    files = {f"targets/generated/dlavm_{name}": env.get_template(f"{name}.j2").render(context)
             for name in ("isa.h", "formats.h", "tables.h", "isa_pkg.sv", "formats_pkg.sv", "tables_pkg.sv")}
    vector = load_vector(root)
    for name in ("vector.h", "vector_pkg.sv"):
        files[f"targets/generated/dlavm_{name}"] = env.get_template(f"{name}.j2").render(
            programs=vector.programs, rows=vector.rows, groups=GROUPS, ranges=RANGES, stores=STORES)
    for name in list_targets():
        spec = load_target(name)
        files[f"targets/generated/{name}.expanded.yaml"] = expanded_text(spec, root)
        files[f"doc/isa/{name}.md"] = env.get_template("isa.md.j2").render(spec=spec, unit=ADDRESS_UNIT)
    return files


def expanded_text(spec: TargetSpec, root: Path) -> str:
    body = yaml.safe_dump(expand(spec.name, root), sort_keys=True, width=120)
    return f"# Generated by `make gen`: {spec.name}.yaml with its deltas applied.\n{body}"


def main(argv: list[str] | None = None) -> int:
    return generator_main("dlavm.target.gen", __doc__, render, argv)


if __name__ == "__main__":
    sys.exit(main())
