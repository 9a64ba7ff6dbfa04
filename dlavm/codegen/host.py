"""The C++ project in an artifact's `host/`: drives the model on any device behind the C interface, with a server.

What is particular to a model stands in `model.hpp` alone; the other files are the same for every model, and only the
README names it.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import jinja2

from dlavm import __version__
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.target import TargetSpec
from dlavm.target.layout import BLOCK, KV_UNIT_BYTES
from dlavm.target.spec import ADDRESS_UNIT

NEEDS = ("stream", "scalars")  # the driver starts a stream and passes scalars; it patches nothing
ARGUMENTS = ("token", "kv_len", "head_rows", "kv_base")  # what the driver knows to pass
HEADERS = tuple(f"include/dlavm/{name}" for name in ("chat_protocol.hpp", "device.h", "wire.hpp"))  # as in clib


@dataclass(frozen=True)
class HostFile:
    """A file of the artifact and the device address that it goes to; `channel` where it is mapped for one of them."""

    path: str
    address: int
    bytes: int
    channel: int = 0


@dataclass(frozen=True)
class HostProgram:
    """The instruction stream of a step; `crc32` tells it from another one of the same length."""

    path: str
    address: int
    words: int
    crc32: int


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
    """Everything that `model.hpp` states. `arguments` are those of a step in register order, `bounds` inclusive.

    Ports: `ids` u32 (token,), `logits` fp16 (head_rows, vocab_size), `next` u32 (head_rows,) where the device chooses.
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
    program: HostProgram
    arguments: tuple[str, ...]
    bounds: Mapping[str, tuple[int, ...]]
    ids: HostPort
    logits: HostPort
    next: HostPort | None
    caches: tuple[HostCache, ...]
    sequences: int
    sequence_stride: int
    model_id: str
    tokenizer_id: str


def has_host(spec: TargetSpec) -> bool:
    """Whether a driver can be written for the target."""
    return spec.has(*NEEDS)


def render_host(context: HostContext) -> dict[str, str]:
    """Path below `host/` -> text, of every file of the project. Equal contexts give equal texts.

    Raises DlavmError for a target without the capabilities of NEEDS, and for an argument that the driver cannot pass.
    """
    missing = [c for c in NEEDS if not context.spec.has(c)]
    if missing:
        raise DlavmError(f"host: target {context.spec.name}: expected the capabilities {', '.join(NEEDS)}, "
                         f"got none of the name {missing[0]!r}")
    unknown = [a for a in context.arguments if a not in ARGUMENTS]
    if unknown:
        raise DlavmError(f"host: arguments: expected some of {', '.join(ARGUMENTS)}, got {unknown[0]!r}")
    rendered = {name.removesuffix(".j2"): _render(name, text, context) for name, text in _templates().items()}
    return rendered | {name: (data_root() / "clib" / name).read_text(encoding="utf-8") for name in HEADERS}


def _templates() -> dict[str, str]:
    folder = files("dlavm.codegen") / "templates" / "host"
    return {f.name: f.read_text(encoding="utf-8") for f in sorted(folder.iterdir(), key=lambda f: f.name)}


def _render(name: str, text: str, context: HostContext) -> str:
    """Files that do not end in .j2 are taken as they are."""
    if not name.endswith(".j2"):
        return text
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters.update(camel=_camel, hexadecimal=hex)
    return environment.from_string(text).render(
        c=context, spec=context.spec, opcode_mask=_opcode_mask(context.spec), BLOCK=BLOCK, KV_UNIT_BYTES=KV_UNIT_BYTES,
        ADDRESS_UNIT=ADDRESS_UNIT, version=__version__)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.lower().split("_"))


def _opcode_mask(spec: TargetSpec) -> list[int]:
    """Four words of 64 bits, as dlavm_config has them."""
    mask = sum(1 << opcode for opcode in spec.opcodes)
    return [mask >> 64 * word & (1 << 64) - 1 for word in range(4)]
