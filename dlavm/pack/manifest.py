"""manifest.json: what an artifact is, where each of its bytes goes and how its programs are entered.

Every key is checked when a manifest is read: its presence, its type, its range, and that it agrees with the
others. An unknown key is an error too, except under `model`, which is open.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

from dlavm.formats import BLOCK
from dlavm.support.atomic import MANIFEST_NAME
from dlavm.support.errors import DlavmError
from dlavm.target.layout import KV_FORMATS, ceildiv
from dlavm.target.spec import ADDRESS_UNIT

T = TypeVar("T")

FORMAT = 2
CONTROLS = ("scalars", "patches", "registers")
ITEM_BYTES = {"u32": 4, "f16": 2}  # of the values that a host writes and reads
MAX_ADDRESS = 1 << 48  # far above every board, low enough for 64-bit sums
MAX_ARGS = 8
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelInfo:
    """Shape of the model; `chunk` tokens at most per step, `ctx` positions in the KV cache. `extra` is open."""

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ctx: int
    chunk: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in device memory: `bytes` (padding included) from linear address `address`."""

    name: str
    role: str
    address: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Image:
    """A file that is mapped at `address` for one memory channel."""

    file: str
    channel: int
    address: int
    bytes: int


@dataclass(frozen=True)
class Blob:
    """A file that is written at linear address `address`."""

    file: str
    address: int
    bytes: int


@dataclass(frozen=True)
class Program:
    """How a step is driven: `control` is one of CONTROLS.

    scalars, patches: `file` is an instruction stream of 32-bit words, its address a multiple of 16; `patches` names the
    file of expressions and word offsets. registers: `file` is a register program, without an address.
    """

    control: str
    file: str
    address: int = 0
    words: int = 0
    patches: str = ""


@dataclass(frozen=True)
class Port:
    """An array that the host writes or reads: `rows` x `columns` of `dtype`, rows `row_bytes` apart."""

    address: int
    dtype: str
    rows: int
    columns: int = 1
    row_bytes: int = 0

    @property
    def stride(self) -> int:
        """Bytes from one row to the next; without `row_bytes` the rows are dense."""
        return self.row_bytes or self.columns * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Table:
    """A file of `rows` fp16 rows, dense, of which the host takes some: the tensor `name`."""

    name: str
    file: str
    rows: int


@dataclass(frozen=True)
class Entry:
    """How a program is entered: scalars `args` in register order, their inclusive `bounds`, its arrays.

    `tables`: for an input of rows that the host chooses by the token ids, the table of all rows.
    """

    program: str
    args: tuple[str, ...]
    bounds: Mapping[str, tuple[int, ...]]
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    tables: Mapping[str, Table] = field(default_factory=dict)

    @property
    def is_single(self) -> bool:
        """Whether a step is one of one sequence; entries of several find their caches in memory."""
        return "kv_base" in self.args

    @property
    def most_tokens(self) -> int:
        """Tokens of a step at most: one where that is no argument."""
        return self.bounds.get("token", (1, 1))[1]


@dataclass(frozen=True)
class KvRegion:
    """A part of the first sequence's KV cache: `heads` times `head_bytes`, of blocks of 32 tokens of `block_bytes`.
    `format`: a name of KV_FORMATS."""

    name: str
    address: int
    heads: int
    head_bytes: int
    block_bytes: int
    format: str = "fp16"

    @property
    def bytes(self) -> int:
        return self.heads * self.head_bytes


@dataclass(frozen=True)
class Sequences:
    """Whole KV caches that the memory holds: `count` of them, `stride` bytes from one to the next."""

    count: int
    stride: int


@dataclass(frozen=True)
class MemoryUse:
    """Bytes by purpose; the lower bound is the peak of what lives at once."""

    weights_bytes: int
    kv_bytes: int
    activation_peak_bytes: int
    activation_lower_bound_bytes: int
    program_bytes: int
    capacity_bytes: int


@dataclass(frozen=True)
class Manifest:
    """The whole of manifest.json. `files` maps every other file of the artifact to its SHA-256."""

    name: str
    target: str
    board: str
    target_hash: str
    quant: str
    model: ModelInfo
    tensors: tuple[TensorInfo, ...]
    images: tuple[Image, ...]
    blobs: tuple[Blob, ...]
    programs: Mapping[str, Program]
    entries: Mapping[str, Entry]
    kv: tuple[KvRegion, ...]
    sequences: Sequences
    memory: MemoryUse
    files: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of manifest.json: sorted keys, the same for equal manifests. Raises DlavmError if invalid."""
        text = self.canonical()
        Manifest.from_json(text)
        return text

    def canonical(self) -> str:
        """`to_json` without its checks, for a manifest that was read."""
        plain = _plain(self)
        plain["model"] |= plain["model"].pop("extra")
        try:
            return json.dumps(plain, sort_keys=True, indent=1, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise DlavmError(f"{MANIFEST_NAME}: expected only values of JSON, got {error}") from None

    @classmethod
    def from_json(cls, text: str | bytes, where: str = MANIFEST_NAME) -> Manifest:
        """Reads and checks a manifest; `where` names the file in errors. Raises DlavmError."""
        try:
            raw = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise DlavmError(f"{where}: expected JSON, got a text that is not ({error})") from None
        _check_format(raw, where)
        raw = dict(raw, model=_split_model(raw.get("model"), where))
        manifest: Manifest = _read(cls, raw, where, "")
        for key, problem in _problems(manifest):
            raise DlavmError(f"{where}: {key}: {problem}")
        return manifest

    @property
    def model_id(self) -> str:
        """SHA-256 over what the device holds of the model: saved caches belong to it. Needs `files` of these kinds."""
        held = sorted(name for name, _ in self.sized_files())
        parts = [self.target_hash, *(f"{name} {self.files[name]}" for name in held), *map(repr, self.kv)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def sized_files(self) -> Iterator[tuple[str, int]]:
        """Files whose length other keys of the manifest state, with that length."""
        yield from ((image.file, image.bytes) for image in self.images)
        yield from ((blob.file, blob.bytes) for blob in self.blobs)
        for program in self.programs.values():
            if program.words:
                yield program.file, 4 * program.words
        for entry in self.entries.values():
            for name, table in entry.tables.items():
                yield table.file, 2 * table.rows * entry.inputs[name].columns if name in entry.inputs else 0


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _check_format(raw: Any, where: str) -> None:
    if not isinstance(raw, dict):
        raise DlavmError(f"{where}: expected a JSON object, got {_shown(raw)}")
    if raw.get("format") != FORMAT:
        raise DlavmError(f"{where}: format: expected {FORMAT}, got {_shown(raw.get('format'))}; "
                         "another version of dlavm wrote it: rebuild")


def _split_model(raw: Any, where: str) -> Any:
    """Moves the open keys of `model` into `extra`."""
    if not isinstance(raw, dict):
        return raw
    known = {f.name for f in dataclasses.fields(ModelInfo)} - {"extra"}
    if "extra" in raw:
        raise DlavmError(f"{where}: model.extra: expected no such key, got {_shown(raw['extra'])}")
    return {k: v for k, v in raw.items() if k in known} | {"extra": {k: v for k, v in raw.items() if k not in known}}


# Reading by the types of the dataclasses: the depth is that of the types above, whatever the text holds.


def _read(kind: Any, value: Any, where: str, key: str) -> Any:
    """`value` as `kind`: a dataclass, a tuple, a mapping, int, str or int | None."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _read_object(kind, value, where, key)
    if origin is tuple:
        items = _expect(list, value, where, key)
        return tuple(_read(typing.get_args(kind)[0], item, where, f"{key}[{i}]") for i, item in enumerate(items))
    if origin is Mapping:
        item_kind = typing.get_args(kind)[1]
        return {k: _read(item_kind, v, where, f"{key}.{k}") for k, v in _expect(dict, value, where, key).items()}
    if origin is types.UnionType:
        return None if value is None else _read(int, value, where, key)
    return value if kind is Any else _expect(kind, value, where, key)


def _read_object(kind: Any, value: Any, where: str, key: str) -> Any:
    hints = _hints(kind)
    raw = _expect(dict, value, where, key)
    prefix = f"{key}." if key else ""
    for name in raw:
        if name not in hints:
            raise DlavmError(f"{where}: {prefix}{name}: expected one of {', '.join(sorted(hints))}, got {name!r}")
    for f in dataclasses.fields(kind):
        optional = kind is Port and f.default is not dataclasses.MISSING
        if f.name not in raw and not optional:
            raise DlavmError(f"{where}: {prefix}{f.name}: expected a value, got no such key")
    return kind(**{name: _read(hints[name], item, where, f"{prefix}{name}") for name, item in raw.items()})


_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    """Field types; resolved once a class, since a manifest has thousands of tensors."""
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


_WORDS = {int: "an integer", str: "a text", list: "a list", dict: "an object"}


def _expect(kind: type[T], value: Any, where: str, key: str) -> T:
    good = isinstance(value, kind) and not isinstance(value, bool)
    if not good:
        raise DlavmError(f"{where}: {key}: expected {_WORDS[kind]}, got {_shown(value)}")
    if isinstance(value, int) and not 0 <= value < MAX_ADDRESS:
        raise DlavmError(f"{where}: {key}: expected 0..{MAX_ADDRESS - 1}, got {_shown(value)}")
    return typing.cast(T, value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(node: Any) -> Any:
    if dataclasses.is_dataclass(node):
        pairs = ((f.name, getattr(node, f.name), f.default) for f in dataclasses.fields(node))
        return {k: _plain(v) for k, v, default in pairs if not (isinstance(node, Port) and v == default)}
    if isinstance(node, Mapping):
        return {k: _plain(v) for k, v in node.items()}
    return [_plain(v) for v in node] if isinstance(node, list | tuple) else node


# Agreement between keys. Each function yields (key, problem); the first one is reported.


def _problems(m: Manifest) -> Iterator[tuple[str, str]]:
    for key in ("name", "target", "board"):
        if not NAME.fullmatch(getattr(m, key)):
            yield key, f"expected letters, digits, '_', '.', '+' and '-', got {_shown(getattr(m, key))}"
    if not HASH.fullmatch(m.target_hash):
        yield "target_hash", f"expected 64 hexadecimal digits, got {_shown(m.target_hash)}"
    yield from _file_problems(m)
    yield from _model_problems(m.model)
    for region in m.kv:
        yield from ((f"kv.{region.name}", problem) for problem in _kv_problems(region, m.model.ctx))
    yield from _sequence_problems(m)
    for name, program in m.programs.items():
        yield from ((f"programs.{name}", problem) for problem in _program_problems(program, m))
    for name, entry in m.entries.items():
        yield from ((f"entries.{name}.{key}", problem) for key, problem in _entry_problems(entry, m))


def _file_problems(m: Manifest) -> Iterator[tuple[str, str]]:
    for name, digest in m.files.items():
        path = PurePosixPath(name)
        plain = not path.is_absolute() and ".." not in path.parts and str(path) == name and "\\" not in name
        if not plain or not name.isprintable() or name == MANIFEST_NAME or name == ".":
            yield "files", f"expected relative paths inside the artifact, got {_shown(name)}"
        if not HASH.fullmatch(digest):
            yield f"files.{name}", f"expected 64 hexadecimal digits, got {_shown(digest)}"
    sizes: dict[str, int] = {}
    for name, size in m.sized_files():
        if name not in m.files:
            yield "files", f"expected a hash of {_shown(name)}, which another key uses, got none"
        if sizes.setdefault(name, size) != size:
            yield "blobs", f"expected one size of {_shown(name)}, got {sizes[name]} and {size} bytes"


def _model_problems(model: ModelInfo) -> Iterator[tuple[str, str]]:
    for key in ("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "head_dim", "ctx", "chunk"):
        if getattr(model, key) < 1:
            yield f"model.{key}", f"expected at least 1, got {getattr(model, key)}"
    if model.chunk > model.ctx:
        yield "model.chunk", f"expected at most the context, {model.ctx}, got {model.chunk}"
    ids = model.eos_token_ids if model.bos_token_id is None else (model.bos_token_id, *model.eos_token_ids)
    for token in ids:
        if token >= model.vocab_size:
            yield "model.eos_token_ids", f"expected ids below vocab_size {model.vocab_size}, got {token}"


def _program_problems(program: Program, m: Manifest) -> Iterator[str]:
    if program.control not in CONTROLS:
        yield f"control: expected one of {', '.join(CONTROLS)}, got {_shown(program.control)}"
    elif program.control == "registers" and (program.address or program.words):
        yield f"expected a register program without address and words, got {program}"
    elif program.control != "registers" and (program.address % ADDRESS_UNIT or not program.words):
        yield f"expected an address in units of {ADDRESS_UNIT} and words, got {program}"
    if (program.control == "patches") != bool(program.patches):
        yield f"patches: expected a file for a stream that is patched, and only there, got {_shown(program.patches)}"
    for file in (program.file, program.patches):
        if file and file not in m.files:
            yield f"expected a hash of {_shown(file)}, got none"


def _kv_problems(region: KvRegion, ctx: int) -> Iterator[str]:
    blocks, format = ceildiv(ctx, BLOCK), KV_FORMATS.get(region.format)
    if format is None:
        yield f"format: expected one of {', '.join(KV_FORMATS)}, got {_shown(region.format)}"
    elif not region.heads or not region.block_bytes or (
            format.block_bytes(format.units(region.block_bytes)) != region.block_bytes):
        yield f"expected heads and blocks of whole units of {format.unit_bytes} bytes, got {region}"
    elif region.head_bytes < blocks * region.block_bytes or region.head_bytes % ADDRESS_UNIT:
        yield (f"head_bytes: expected at least {blocks} blocks for {ctx} positions in units of {ADDRESS_UNIT}, got "
               f"{region.head_bytes}")


def _sequence_problems(m: Manifest) -> Iterator[tuple[str, str]]:
    span = max((k.address + k.bytes for k in m.kv), default=0) - min((k.address for k in m.kv), default=0)
    if m.sequences.count < 1 or m.sequences.stride % ADDRESS_UNIT or m.sequences.stride < span:
        yield "sequences", (f"expected at least one, apart by at least the {span} bytes of a cache in units of "
                            f"{ADDRESS_UNIT}, got {m.sequences}")


def _entry_problems(entry: Entry, m: Manifest) -> Iterator[tuple[str, str]]:
    if entry.program not in m.programs:
        yield "program", f"expected one of {', '.join(m.programs) or 'none'}, got {_shown(entry.program)}"
    if len(entry.args) > MAX_ARGS or len(set(entry.args)) < len(entry.args):
        yield "args", f"expected at most {MAX_ARGS} different names, got {_shown(entry.args)}"
    if set(entry.bounds) != set(entry.args):
        yield "bounds", f"expected one pair for each of {_shown(entry.args)}, got {_shown(tuple(entry.bounds))}"
    for name in entry.tables:
        if name not in entry.inputs or entry.inputs[name].dtype != "f16":
            yield f"tables.{name}", f"expected an input of fp16 rows, got {_shown(tuple(entry.inputs))}"
    for name, pair in entry.bounds.items():
        if len(pair) != 2 or pair[0] > pair[1]:
            yield f"bounds.{name}", f"expected [low, high], got {_shown(pair)}"
    for name, port in {**entry.inputs, **entry.outputs}.items():
        if port.dtype not in ITEM_BYTES:
            yield name, f"dtype: expected one of {', '.join(ITEM_BYTES)}, got {_shown(port.dtype)}"
        elif port.rows < 1 or port.columns < 1 or port.stride < port.columns * ITEM_BYTES[port.dtype]:
            yield name, f"expected rows, columns and row_bytes that hold a row, got {port}"
        elif port.rows * port.stride > m.memory.capacity_bytes:
            yield name, f"expected to fit the memory of {m.memory.capacity_bytes} bytes, got {port}"
