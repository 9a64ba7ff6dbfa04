"""Generates what repeats the wire protocols: `python -m dlavm.wire.gen [--check]` (`make gen`).

Writes the C++ headers clib/include/dlavm/*_protocol.hpp and doc/protocol.md. With --check nothing is written and the
exit code is 1 where a committed file differs from what would be generated.
"""

from __future__ import annotations

import sys
import textwrap

from dlavm.support.generate import camel, generator_main, template_environment
from dlavm.wire import CHAT, DEVICE
from dlavm.wire.protocol import Field, Protocol

COLUMNS = 110  # of the C++, as .clang-format has it

CPP_TYPES = {
    "u8": "std::uint8_t",
    "u16": "std::uint16_t",
    "u32": "std::uint32_t",
    "u64": "std::uint64_t",
    "f64": "double",
    "text": "std::string",
    "u32s": "std::vector<std::uint32_t>",
    "u64s": "std::vector<std::uint64_t>",
    "bytes": "std::string_view",
}


def comment(text: str, indent: int) -> str:
    """`text` as C++ comment lines."""
    prefix = " " * indent + "// "
    return textwrap.fill(text, COLUMNS, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False,
                         break_on_hyphens=False)


def letters(magic: int) -> str:
    """The bytes of a magic number on the wire, as text."""
    return magic.to_bytes(4, "little").decode("ascii")


def cpp_type(field: Field) -> str:
    return CPP_TYPES[field.type]


def declaration(field: Field, protocol: Protocol) -> str:
    """The C++ member of a field; its default is one that may be sent."""
    if field.enum:
        name = camel(field.enum)
        return f"{name} {field.name} = {name}::k{camel(next(iter(protocol.enums[field.enum])))};"
    return f"{cpp_type(field)} {field.name}{' = 0' if field.wire.least == field.wire.most else ''};"


def render() -> dict[str, str]:
    """Path relative to the repository -> text, of every generated file."""
    env = template_environment("dlavm.wire")
    env.filters.update(comment=comment, cpp_type=cpp_type, declaration=declaration, letters=letters)
    header = env.get_template("protocol.hpp.j2")
    files = {f"clib/include/dlavm/{p.name}_protocol.hpp": header.render(p=p) for p in (CHAT, DEVICE)}
    return {**files, "doc/protocol.md": env.get_template("protocol.md.j2").render(chat=CHAT, device=DEVICE)}


def main(argv: list[str] | None = None) -> int:
    return generator_main("dlavm.wire.gen", __doc__, render, argv)


if __name__ == "__main__":
    sys.exit(main())
