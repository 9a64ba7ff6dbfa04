"""TargetSpec: one generation of the accelerator on one board, expanded from the YAML deltas in `targets/`."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from dlavm.support.described import check_keys, check_range, check_type, read_yaml
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.target import schema
from dlavm.target.memory_timing import MemoryTiming, check_memory, completed, merged, read_timing
from dlavm.target.schema import ADDRESS_UNIT as ADDRESS_UNIT  # for others, beside the spec
from dlavm.target.schema import WORD_KINDS

ISA_FILES = ("enums", "registers", "control", "commands")
ROOM = 1 << 30  # bytes by which a memory grows: whole beat rows of every board
PACKED = ("enum", "flag", "u")  # kinds that share payload word 0


@dataclass(frozen=True)
class Field:
    """One field of a command: `bits` wide at bit `lsb` of payload word `word`; a dynamic field owns its word."""

    name: str
    kind: str
    bits: int
    word: int
    lsb: int
    doc: str
    enum: str = ""
    values: Mapping[str, int] = field(default_factory=dict)
    write: bool = False  # an address that the command writes at

    @property
    def dynamic(self) -> bool:
        return not is_packed(self.kind)

    @property
    def limit(self) -> int:
        """Largest encodable value."""
        return max(self.values.values()) if self.values else (1 << self.bits) - 1

    @property
    def has_gaps(self) -> bool:
        """Whether values below the limit mean nothing."""
        return len(self.values) < self.limit + 1 if self.values else False

    def takes(self, value: int) -> bool:
        return value in self.values.values() if self.has_gaps else 0 <= value <= self.limit

    @property
    def expected(self) -> str:
        """The values that it takes, for error messages."""
        return f"one of {', '.join(self.values)}" if self.has_gaps else f"0..{self.limit}"


@dataclass(frozen=True)
class Command:
    """One opcode; `engine` is None for commands of the front end."""

    name: str
    opcode: int
    engine: str | None
    doc: str
    fields: tuple[Field, ...]
    predicate: bool = True  # whether the header's predicate may be used
    in_place: tuple[str, ...] = ()  # operands whose rows may be those of dst

    @cached_property
    def by_name(self) -> dict[str, Field]:
        return {f.name: f for f in self.fields}

    @cached_property
    def payload_words(self) -> int:
        return max((f.word + 1 for f in self.fields), default=0)


@dataclass(frozen=True)
class Register:
    name: str
    offset: int
    access: str
    count: int
    doc: str


@dataclass(frozen=True)
class Memory:
    """One memory space of a board: `channels` ports of `port_bytes`, striped in port-width beats; sizes in bytes."""

    name: str
    base: int
    capacity: int
    channels: int
    port_bytes: int
    port_clock_mhz: float
    peak_gbs: float
    timing: MemoryTiming

    @property
    def beat_row(self) -> int:
        """Bytes of one beat on every channel; every tensor starts at a multiple."""
        return self.channels * self.port_bytes

    @property
    def bytes_s(self) -> float:
        """Bytes a second that the memory and the ports behind it reach together."""
        return min(self.beat_row * self.port_clock_mhz * 1e6, self.peak_gbs * 1e9)

    @property
    def row_tile(self) -> int:
        """Output rows of one weight tile: port_bytes / 2 rows a channel, so that one beat holds their fp16 scales."""
        return self.channels * self.port_bytes // 2


@dataclass(frozen=True)
class Board:
    name: str
    doc: str
    clock_mhz: float
    memories: Mapping[str, Memory]
    vector_lanes: int
    activation_elements: int
    accumulators: int
    weight_prefetch: int  # bytes of weights that wait for the matrix engine
    power_watts: float | None = None  # while it runs a model, where somebody has stated it

    def memory(self, name: str) -> Memory:
        """The memory of that name, or the only one of the board. Raises DlavmError where several have other names."""
        if name not in self.memories and len(self.memories) > 1:
            raise DlavmError(f"board {self.name}: memory expected one of {', '.join(self.memories)}, got {name!r}")
        return self.memories.get(name) or next(iter(self.memories.values()))

    def holding(self, address: int) -> Memory | None:
        """The memory that an address lies in."""
        return next((m for m in self.memories.values() if 0 <= address - m.base < m.capacity), None)


@dataclass(frozen=True)
class TargetSpec:
    name: str
    doc: str
    board: Board
    capabilities: frozenset[str]
    header_words: int
    limits: Mapping[str, int]
    roles: Mapping[str, tuple[str, ...]]  # names of memories, the preferred one first
    commands: Mapping[str, Command]
    enums: Mapping[str, Mapping[str, int]]
    registers: Mapping[str, Register]
    expanded: Mapping[str, Any]

    def has(self, *capabilities: str) -> bool:
        return self.capabilities.issuperset(capabilities)

    def spaces(self, role: str) -> tuple[Memory, ...]:
        """The memories that may hold tensors of a role (weights, kv, activations, tables, program), the preferred one
        first. Where activations lie is decided for each artifact (dlavm/memory/layout.py)."""
        return tuple(self.board.memory(name) for name in self.roles[role])

    def space(self, role: str) -> Memory:
        """The preferred one of them."""
        return self.spaces(role)[0]

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the expanded target and board without their prose; buffers shape programs, so both count."""
        text = json.dumps(_without_docs(self.expanded), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def weight_format_mask(self) -> int:
        """Bit n is set where LINEAR takes the weight format n."""
        return sum(1 << number for number in self.enums["weight_format"].values())

    @cached_property
    def opcodes(self) -> dict[int, Command]:
        return {c.opcode: c for c in self.commands.values()}


def is_packed(kind: str) -> bool:
    return kind in PACKED or (kind[0] == "u" and kind[1:].isdigit())


def list_targets() -> list[str]:
    return sorted(p.stem for p in (data_root() / "targets").glob("*.yaml"))


def list_boards() -> list[str]:
    return sorted(p.stem for p in (data_root() / "targets" / "boards").glob("*.yaml"))


def list_memories() -> list[str]:
    return sorted(p.stem for p in (data_root() / "targets" / "memories").glob("*.yaml"))


def load_target(name: str, board: str = "vcu128", root: Path | None = None) -> TargetSpec:
    """The expanded target `name` on `board`. Raises DlavmError for a name that is not there, or a broken table."""
    return _load_target(name, board, root or data_root() / "targets")


def with_buffers(spec: TargetSpec, activation_elements: int | None, accumulators: int | None) -> TargetSpec:
    """The target on a board that differs in the sizes of its buffers; None leaves one as it is. Its hash is another
    one. Raises DlavmError for a size that no board has."""
    if activation_elements is None and accumulators is None:
        return spec
    board = replace(spec.board, activation_elements=activation_elements or spec.board.activation_elements,
                    accumulators=accumulators or spec.board.accumulators)
    sizes = {"activation_elements": board.activation_elements, "accumulators": board.accumulators}
    for name, value in sizes.items():
        check_range(f"board {board.name}: buffers.{name}", value, 1, 1 << 31)
    raw = {**spec.expanded["board"], "buffers": {**spec.expanded["board"]["buffers"], **sizes}}
    return replace(spec, board=board, expanded={**spec.expanded, "board": raw})


def with_room(spec: TargetSpec, needs: Mapping[str, int]) -> TargetSpec:
    """The target on a board whose memories have at least so many bytes, by their names; those behind one that grew lie
    higher. Its hash is another one. Raises DlavmError where addresses end."""
    memories, end, raw = {}, 0, {**spec.expanded["board"]["memories"]}
    for name, memory in sorted(spec.board.memories.items(), key=lambda item: item[1].base):
        capacity = max(memory.capacity, -(-needs.get(name, 0) // ROOM) * ROOM)
        base = max(memory.base, -(-end // ROOM) * ROOM)
        end = base + capacity
        check_range(f"board {spec.board.name}: memory {name}: base and capacity", end, 1, ADDRESS_UNIT << 32)
        memories[name] = replace(memory, base=base, capacity=capacity)
        raw[name] = {**raw[name], "base": base, "capacity": capacity}
    ordered = {name: memories[name] for name in spec.board.memories}
    expanded = {**spec.expanded, "board": {**spec.expanded["board"], "memories": raw}}
    return replace(spec, board=replace(spec.board, memories=ordered), expanded=expanded)


def load_board(name: str, root: Path | None = None) -> Board:
    raw = _read_board(name, root or data_root() / "targets")
    place = f"targets/boards/{name}.yaml: memories"
    memories = {n: _memory(f"{place}.{n}: timing", n, m) for n, m in raw["memories"].items()}
    return Board(name, raw["doc"], raw["clock_mhz"], memories, raw["vector"]["lanes"], **raw["buffers"],
                 power_watts=raw.get("power", {}).get("watts"))


def _memory(place: str, name: str, raw: Mapping[str, Any]) -> Memory:
    timing = read_timing(place, raw["timing"], raw["channels"], raw["peak_gbs"])
    return Memory(name, **{**raw, "timing": timing})


def _read_board(name: str, root: Path) -> Any:
    """The board's file, with the timings of its memories in their places."""
    raw = _read(root, f"boards/{name}.yaml", f"board {name!r}", list_boards())
    schema.check_board(f"targets/boards/{name}.yaml", raw)
    for memory in raw["memories"].values():
        of = memory["timing"]["of"]
        timing = _read(root, f"memories/{of}.yaml", f"memory {of!r} of board {name}", list_memories())
        check_memory(f"targets/memories/{of}.yaml", timing)
        memory["timing"] = merged(memory["timing"], completed(timing, raw["clock_mhz"], memory["port_bytes"]))
    return raw


@lru_cache(maxsize=64)
def _load_target(name: str, board_name: str, root: Path) -> TargetSpec:
    board = load_board(board_name, root)
    raw = expand(name, root)
    schema.check_target(f"targets/{name}.yaml", raw)
    roles = {role: _on_board(board, names) for role, names in raw["roles"].items()}
    raw["roles"] = {role: names[0] if len(names) == 1 else list(names) for role, names in roles.items()}
    isa = load_isa(root).of(raw["capabilities"])
    commands = {n: isa.command(n) for n in raw["commands"]}
    registers = {n: isa.register(n) for n in raw["registers"]}
    expanded = {
        "target": raw,
        "board": {key: value for key, value in _read_board(board_name, root).items() if key != "power"},
        "commands": {n: isa.raw_commands[n] for n in commands},
        "groups": isa.groups,
        "enums": isa.raw_enums,
        "registers": {n: isa.raw_registers[n] for n in registers},
    }
    spec = TargetSpec(name, raw["doc"], board, frozenset(raw["capabilities"]), raw["encoding"]["header_words"],
                      raw["limits"], roles, commands, isa.enums, registers, expanded)
    for role in spec.roles:
        spec.spaces(role)
    return spec


def _on_board(board: Board, names: str | list[str]) -> tuple[str, ...]:
    """Of the memories that a role prefers in this order those of the board; the last one where it has none."""
    wanted = [names] if isinstance(names, str) else names
    return tuple(name for name in wanted if name in board.memories) or (wanted[-1],)


def expand(name: str, root: Path, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """A target file with its `extends` chain applied: lists take {add, remove}, mappings are merged key by key.
    `above`: the files that extend it. Raises DlavmError for what is no delta."""
    raw = _read(root, f"{name}.yaml", f"target {name!r}", list_targets())
    check_type(f"targets/{name}.yaml", raw, dict)
    if "extends" not in raw:
        return raw
    if name in above:
        raise DlavmError(f"targets/{name}.yaml: extends: expected an end, got {' -> '.join([*above, name])}")
    base = expand(str(raw["extends"]), root, (*above, name))
    for key, delta in raw.items():
        if key != "extends":
            base[key] = _merge(base.get(key), delta, f"targets/{name}.yaml: {key}")
    return base


def _merge(base: Any, delta: Any, where: str) -> Any:
    if isinstance(base, list):
        check_keys(where, delta, {}, {"add": list, "remove": list})
        unknown = [x for x in delta.get("remove", []) if x not in base]
        if unknown:
            raise DlavmError(f"{where}: remove names {unknown}, which the base does not have")
        return [x for x in base if x not in delta.get("remove", [])] + delta.get("add", [])
    if isinstance(base, dict):
        check_type(where, delta, dict)
        return {**base, **delta.get("add", delta)}
    return delta


@dataclass(frozen=True)
class IsaTables:
    """`targets/isa/*.yaml` read once: every command, enum and register of every generation."""

    raw_commands: Mapping[str, Any]
    groups: Mapping[str, Any]
    raw_enums: Mapping[str, Any]
    raw_registers: Mapping[str, Any]

    @cached_property
    def enums(self) -> dict[str, dict[str, int]]:
        return {n: dict(e["values"]) for n, e in self.raw_enums.items()}

    @cached_property
    def enum_bits(self) -> dict[str, int]:
        """Of a field that holds a value; the same for every generation."""
        return {n: max(1, max(e.get("every", e["values"]).values()).bit_length()) for n, e in self.raw_enums.items()}

    def of(self, capabilities: Iterable[str]) -> IsaTables:
        """The tables with the values that a target with these capabilities has."""
        return replace(self, raw_enums={n: _possible(e, set(capabilities)) for n, e in self.raw_enums.items()})

    def command(self, name: str) -> Command:
        if name not in self.raw_commands:
            raise DlavmError(f"targets: command {name!r} is not in targets/isa")
        raw = self.raw_commands[name]
        return Command(name, raw["opcode"], raw.get("engine"), raw["doc"].strip(), self._layout(name, raw["fields"]),
                       raw.get("predicate", True), tuple(raw.get("in_place", ())))

    def register(self, name: str) -> Register:
        if name not in self.raw_registers:
            raise DlavmError(f"targets: register {name!r} is not in targets/isa/registers.yaml")
        raw = self.raw_registers[name]
        return Register(name, raw["offset"], raw["access"], raw.get("count", 1), raw["doc"])

    def _layout(self, command: str, raw_fields: list[dict[str, Any]]) -> tuple[Field, ...]:
        flat: list[dict[str, Any]] = []
        for raw in raw_fields:
            flat.extend(self.groups[raw["group"]] if "group" in raw else [raw])
        packed_word = 1 if any(is_packed(raw["kind"]) for raw in flat) else 0
        lsb, word, fields = 0, packed_word, []
        for raw in flat:
            bits = self._bits(raw)
            values = self.enums[raw["enum"]] if "enum" in raw else {}
            if is_packed(raw["kind"]):
                fields.append(Field(raw["name"], raw["kind"], bits, 0, lsb, raw["doc"], raw.get("enum", ""), values))
                lsb += bits
            else:
                fields.append(Field(raw["name"], raw["kind"], bits, word, 0, raw["doc"], write=raw.get("write", False)))
                word += 1
        if lsb > 32 or word - packed_word > 32:
            raise DlavmError(f"targets: {command} needs {lsb} packed bits and {word} words; at most 32 of each")
        return tuple(fields)

    def _bits(self, raw: Mapping[str, Any]) -> int:
        kind = raw["kind"]
        if kind == "enum":
            return self.enum_bits[raw["enum"]]
        if kind == "flag":
            return 1
        if is_packed(kind):
            return int(kind[1:])
        return raw["bits"] if kind == "count" else WORD_KINDS[kind]


def _possible(enum: Mapping[str, Any], capabilities: set[str]) -> Mapping[str, Any]:
    """The enum with the values whose capability is among these; `every` keeps all of them."""
    needs, values = enum.get("needs", {}), enum["values"]
    if enum.get("by_name"):
        needs = {name: name for name in values} | needs
    kept = {name: number for name, number in values.items() if needs.get(name, "") in capabilities | {""}}
    return {**enum, "values": kept, "every": values} if needs else enum


@lru_cache(maxsize=8)
def load_isa(root: Path) -> IsaTables:
    enums, registers, control, engine = (_read(root, f"isa/{n}.yaml", "", []) for n in ISA_FILES)
    schema.check_enums("targets/isa/enums.yaml", enums)
    schema.check_registers("targets/isa/registers.yaml", registers)
    for name, table in (("control", control), ("commands", engine)):
        schema.check_commands(f"targets/isa/{name}.yaml", table, enums)
    commands = {**control["commands"], **engine["commands"]}
    schema.check_opcodes("targets/isa", commands)
    return IsaTables(commands, engine.get("groups", {}), enums, registers["registers"])


def _read(root: Path, relative: str, what: str, known: list[str]) -> Any:
    """A fresh object: callers change it."""
    path = root / relative
    if not path.is_file() or ".." in path.relative_to(root).parts:
        raise DlavmError(f"unknown {what}; known: {', '.join(known)}" if known else f"missing file {path}")
    try:
        return read_yaml(path.read_text(encoding="utf-8"), f"targets/{relative}")
    except UnicodeDecodeError as error:
        raise DlavmError(f"targets/{relative}: expected text in UTF-8, got {error.object[error.start]:#04x}") from None


def _without_docs(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {k: _without_docs(v) for k, v in node.items() if k != "doc"}
    return [_without_docs(v) for v in node] if isinstance(node, list | tuple) else node
