"""The C++ project in an artifact's `host/`: drives the model on any device behind the C interface, with a server.

What is particular to a model stands in `model.hpp` and `program.cpp`; the other files are the same for every model, and
only the README names it. How a step is started depends on the control of the target: one of the templates
`program_CONTROL.cpp.j2` becomes `program.cpp`.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import jinja2

from dlavm import __version__
from dlavm.formats import BLOCK
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.target import TargetSpec
from dlavm.target.layout import KvFormat
from dlavm.target.spec import ADDRESS_UNIT

ARGUMENTS = ("token", "kv_len", "head_rows", "kv_base")  # what the driver knows to pass
PROGRAM = "program_"  # of the templates of which one is taken
HEADERS = tuple(f"include/dlavm/{name}" for name in ("chat_protocol.hpp", "device.h", "wire.hpp"))  # as in clib


@dataclass(frozen=True)
class HostFile:
    """A file of the artifact and the device address that it goes to; `channel` where it is mapped for one of them."""

    path: str
    address: int
    bytes: int
    channel: int = 0


@dataclass(frozen=True)
class HostPatch:
    """A C++ expression over the arguments, and the words of a stream that take its value."""

    value: str
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class HostStream:
    """An instruction stream of a step; `crc32` tells it from another one of the same length. `tokens` are those of a
    step at most; `bounds` of its arguments, in register order, are inclusive."""

    name: str
    path: str
    address: int
    words: int
    crc32: int
    tokens: int
    bounds: Mapping[str, tuple[int, ...]]
    patches: tuple[HostPatch, ...] = ()


@dataclass(frozen=True)
class HostTable:
    """A file of dense fp16 rows, of which the host takes those of the tokens."""

    path: str
    rows: int


@dataclass(frozen=True)
class HostPort:
    """At most `rows` rows of `columns` numbers, `row_bytes` from one row to the next."""

    address: int
    rows: int
    columns: int
    row_bytes: int


@dataclass(frozen=True)
class HostCache:
    """A KV cache of the first sequence: `heads` times `head_bytes`, of blocks of 32 tokens of `block_bytes`."""

    address: int
    heads: int
    head_bytes: int
    block_bytes: int


@dataclass(frozen=True)
class HostContext:
    """Everything that `model.hpp` and `program.cpp` state. `control`: scalars (one stream), patches (streams, those for
    fewer tokens first) or registers (`statements` of C++).

    Ports: `ids` u32 (token,) or, with a `table`, fp16 rows of it; `logits` fp16 (head_rows, vocab_size), `next` u32
    (head_rows,) where the device chooses.
    The memory holds the caches of `sequences` sequences, `sequence_stride` bytes apart. `tokenizer_id` may be empty.
    """

    spec: TargetSpec
    name: str
    quant: str
    vocab_size: int
    ctx: int
    chunk: int
    eos_token_ids: tuple[int, ...]
    images: tuple[HostFile, ...]
    blobs: tuple[HostFile, ...]
    control: str
    streams: tuple[HostStream, ...]
    statements: tuple[str, ...]
    table: HostTable | None
    ids: HostPort
    logits: HostPort
    next: HostPort | None
    caches: tuple[HostCache, ...]
    cache_format: KvFormat  # of all caches
    sequences: int
    sequence_stride: int
    model_id: str
    tokenizer_id: str


def render_host(context: HostContext) -> dict[str, str]:
    """Path below `host/` -> text, of every file of the project. Equal contexts give equal texts.

    Raises DlavmError for an argument that the driver cannot pass.
    """
    unknown = [a for stream in context.streams for a in stream.bounds if a not in ARGUMENTS]
    if unknown:
        raise DlavmError(f"host: arguments: expected some of {', '.join(ARGUMENTS)}, got {unknown[0]!r}")
    templates = _templates(context.control)
    rendered = {name.removesuffix(".j2"): _render(name, text, context) for name, text in templates.items()}
    return rendered | {name: (data_root() / "clib" / name).read_text(encoding="utf-8") for name in HEADERS}


def _templates(control: str) -> dict[str, str]:
    """Names of files -> templates; that of the control is called program."""
    folder = files("dlavm.codegen") / "templates" / "host"
    chosen = {f.name.replace(f"{PROGRAM}{control}", "program"): f for f in folder.iterdir()}
    return {name: chosen[name].read_text(encoding="utf-8") for name in sorted(chosen) if not name.startswith(PROGRAM)}


def _render(name: str, text: str, context: HostContext) -> str:
    """Files that do not end in .j2 are taken as they are."""
    if not name.endswith(".j2"):
        return text
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters.update(camel=_camel, hexadecimal=hex)
    return environment.from_string(text).render(
        c=context, spec=context.spec, opcode_mask=_opcode_mask(context.spec), BLOCK=BLOCK,
        ADDRESS_UNIT=ADDRESS_UNIT, version=__version__)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.lower().split("_"))


def _opcode_mask(spec: TargetSpec) -> list[int]:
    """Four words of 64 bits, as dlavm_config has them."""
    mask = sum(1 << opcode for opcode in spec.opcodes)
    return [mask >> 64 * word & (1 << 64) - 1 for word in range(4)]
