"""What the files of `targets/` have to say: keys, kinds, ranges, names that others know. Errors name file and place."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dlavm.support.described import Kind, check_distinct, check_keys, check_range, check_type
from dlavm.support.errors import DlavmError
from dlavm.target.memory_timing import check_reference

ADDRESS_UNIT = 16  # bytes; addresses and strides in commands count these
NUMBER = (int, float)
FIELD_NAME, COMMAND_NAME = re.compile(r"[a-z][a-z0-9_]*"), re.compile(r"[A-Z][A-Z0-9_]*")
ACCESS = ("ro", "wo", "rw")
MOST_MEMORIES = 4  # of a board: DLAVM_MAX_MEMORIES
SCALAR_NUMBER, SLOT_NUMBER = 1 << 5, 1 << 2  # values of the fields that name a scalar register or semaphore, a slot
MOST_NESTED = 1024

BOARD_PARTS = {"vector": ("lanes",), "buffers": ("activation_elements", "accumulators", "weight_prefetch")}
BOARD_KEYS: Mapping[str, Kind] = {"doc": str, "clock_mhz": NUMBER, "memories": dict,
                                  **dict.fromkeys(BOARD_PARTS, dict)}
POWER_KEYS: Mapping[str, Kind] = {"watts": NUMBER, "source": str}
MEMORY_KEYS: Mapping[str, Kind] = {"base": int, "capacity": int, "channels": int, "port_bytes": int,
                                   "port_clock_mhz": NUMBER, "peak_gbs": NUMBER, "timing": dict}
TARGET_KEYS: Mapping[str, Kind] = {"doc": str, "capabilities": list, "encoding": dict, "limits": dict, "roles": dict,
                                   "commands": list, "registers": list}
VECTOR_LANES = tuple(1 << i for i in range(3, 8))  # a sum has 128 virtual ones (doc/numerics.md section 4)
LIMITS = {"scalar_registers": SCALAR_NUMBER, "semaphores": SCALAR_NUMBER, "loop_depth": MOST_NESTED,
          "call_depth": MOST_NESTED, "act_slots": SLOT_NUMBER}
ROLES = ("weights", "kv", "activations", "tables")  # and, of streams, program
COMMAND_KEYS: Mapping[str, Kind] = {"opcode": int, "doc": str, "fields": list}
FIELD_KEYS: Mapping[str, Kind] = {"name": str, "kind": str, "doc": str}
WORD_KINDS = {"addr": 32, "stride": 32, "f32": 32, "word": 32}
KINDS = ("enum", "flag", "u1 .. u32", "count", *WORD_KINDS)

# What a capability is without: (commands, registers).
NEEDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mmio": ((), ("LAUNCH", "OP")),
    "stream": (("END", "FENCE"), ("PROGRAM", "PROGRAM_WORDS")),
    "scalars": (("SCALAR",), ("ARG",)),
    "loops": (("LOOP", "ENDLOOP"), ()),
    "decoupled": (("SIGNAL", "WAIT", "FENCE"), ()),
}
COMMANDS = ("LOAD_TABLE",)
REGISTERS = ("ID", "STATUS", "ERROR", "CONTROL")


def check_board(place: str, raw: Any) -> None:
    """A file of targets/boards."""
    check_keys(place, raw, BOARD_KEYS, {"power": dict})
    if "power" in raw:
        check_keys(f"{place}: power", raw["power"], POWER_KEYS)
        _above_zero(f"{place}: power.watts", raw["power"]["watts"])
        if not raw["power"]["source"].strip():
            raise DlavmError(f"{place}: power.source: expected where the figure comes from, got nothing")
    for key, parts in BOARD_PARTS.items():
        check_keys(f"{place}: {key}", raw[key], dict.fromkeys(parts, int))
        for part in parts:
            _at_least(f"{place}: {key}.{part}", raw[key][part], 1)
    _one_of(f"{place}: vector.lanes", raw["vector"]["lanes"], VECTOR_LANES)
    _above_zero(f"{place}: clock_mhz", raw["clock_mhz"])
    memories = raw["memories"]
    if not 1 <= len(memories) <= MOST_MEMORIES:
        raise DlavmError(f"{place}: memories: expected 1..{MOST_MEMORIES} of them, got {', '.join(memories) or 'none'}")
    for name, memory in memories.items():
        _memory(f"{place}: memories.{name}", memory)
    ordered = sorted(memories, key=lambda name: int(memories[name]["base"]))
    for lower, upper in zip(ordered, ordered[1:], strict=False):
        end = memories[lower]["base"] + memories[lower]["capacity"]
        if memories[upper]["base"] < end:
            raise DlavmError(f"{place}: memories.{upper}: base: expected at least {end:#x}, where {lower} ends, got "
                             f"{memories[upper]['base']:#x}")


def _memory(place: str, raw: Any) -> None:
    check_keys(place, raw, MEMORY_KEYS)
    _at_least(f"{place}: channels", raw["channels"], 1)
    if raw["port_bytes"] < ADDRESS_UNIT or raw["port_bytes"] % ADDRESS_UNIT:
        raise DlavmError(f"{place}: port_bytes: expected a multiple of {ADDRESS_UNIT}, got {raw['port_bytes']}")
    row = raw["channels"] * raw["port_bytes"]
    for key, least in (("base", 0), ("capacity", row)):
        if raw[key] < least or raw[key] % row:
            raise DlavmError(f"{place}: {key}: expected at least {least} and a multiple of {row}, one beat of every "
                             f"channel, got {raw[key]:#x}")
    check_range(f"{place}: base and capacity", raw["base"] + raw["capacity"], 1, ADDRESS_UNIT << 32)
    for key in ("port_clock_mhz", "peak_gbs"):
        _above_zero(f"{place}: {key}", raw[key])
    check_reference(f"{place}: timing", raw["timing"])


def check_target(place: str, raw: Any) -> None:
    """A target behind its `extends`."""
    check_keys(place, raw, TARGET_KEYS)
    for key in ("capabilities", "commands", "registers"):
        for i, name in enumerate(raw[key]):
            check_type(f"{place}: {key}", name, str)
            if name in raw[key][:i]:
                raise DlavmError(f"{place}: {key}: expected every name once, got {name!r} again")
    check_keys(f"{place}: encoding", raw["encoding"], {"header_words": int})
    check_range(f"{place}: encoding.header_words", raw["encoding"]["header_words"], 0, 2)
    check_keys(f"{place}: limits", raw["limits"], dict.fromkeys(LIMITS, int))
    for name, most in LIMITS.items():
        check_range(f"{place}: limits.{name}", raw["limits"][name], 0, most)
    check_keys(f"{place}: roles", raw["roles"], {**dict.fromkeys(ROLES, str), "activations": (str, list)},
               {"program": str})
    _check_preferences(f"{place}: roles.activations", raw["roles"]["activations"])
    _check_needs(place, raw)


def _check_preferences(place: str, raw: Any) -> None:
    """A memory, or several in order of preference: only activations are placed anew for each artifact."""
    names = [raw] if isinstance(raw, str) else raw
    for i, name in enumerate(names):
        check_type(place, name, str)
        if name in names[:i]:
            raise DlavmError(f"{place}: expected every memory once, got {name!r} again")
    if not names:
        raise DlavmError(f"{place}: expected a memory, got none")


def _check_needs(place: str, raw: Mapping[str, Any]) -> None:
    """What the capabilities say is there."""
    chosen = [(f"capability {name}", *needs) for name, needs in NEEDS.items() if name in raw["capabilities"]]
    for why, commands, registers in [("every target", COMMANDS, REGISTERS), *chosen]:
        for key, names in (("commands", commands), ("registers", registers)):
            missing = [name for name in names if name not in raw[key]]
            if missing:
                raise DlavmError(f"{place}: {key}: expected {missing[0]}, which {why} needs, got {', '.join(raw[key])}")
    if "stream" in raw["capabilities"] and "program" not in raw["roles"]:
        raise DlavmError(f"{place}: roles: expected a memory for program, got {', '.join(raw['roles'])}")
    ordered = {"decoupled", "scalars", "loops"} & set(raw["capabilities"])
    if "decoupled" in ordered and len(ordered) < 3:
        raise DlavmError(f"{place}: capabilities: expected scalars and loops beside decoupled, as only such a stream "
                         f"orders engines, got {', '.join(raw['capabilities'])}")
    if (raw["limits"]["semaphores"] > 0) != ("decoupled" in ordered):
        raise DlavmError(f"{place}: limits.semaphores: expected some with the capability decoupled, none without, got "
                         f"{raw['limits']['semaphores']}")


def check_enums(place: str, raw: Any) -> None:
    """isa/enums.yaml."""
    check_type(place, raw, dict)
    for name, enum in raw.items():
        where = f"{place}: {name}"
        check_keys(where, enum, {"doc": str, "values": dict}, {"needs": dict, "by_name": bool})
        for label, number in enum["values"].items():
            check_type(f"{where}.{label}", number, int)
            check_range(f"{where}.{label}", number, 0, 255)
        check_distinct(where, enum["values"])
        for label in enum.get("needs", {}):
            _one_of(f"{where}: needs", label, enum["values"])


def check_registers(place: str, raw: Any) -> None:
    """isa/registers.yaml."""
    check_keys(place, raw, {"registers": dict})
    taken: dict[str, int] = {}
    for name, register in raw["registers"].items():
        where = f"{place}: {name}"
        check_keys(where, register, {"offset": int, "access": str, "doc": str}, {"count": int})
        _one_of(f"{where}: access", register["access"], ACCESS)
        _at_least(f"{where}: count", register.get("count", 1), 1)
        if register["offset"] < 0 or register["offset"] % 4:
            raise DlavmError(f"{where}: offset: expected a multiple of 4, got {register['offset']}")
        taken |= {f"{name}[{i}]": register["offset"] + 4 * i for i in range(register.get("count", 1))}
    check_distinct(place, taken)


def check_commands(place: str, raw: Any, enums: Mapping[str, Any]) -> None:
    """isa/commands.yaml or isa/control.yaml; `enums` is that of isa/enums.yaml."""
    check_keys(place, raw, {"commands": dict}, {"groups": dict})
    groups = raw.get("groups", {})
    for name, fields in groups.items():
        _fields(f"{place}: groups.{name}", fields, {}, enums)
    for name, command in raw["commands"].items():
        where = f"{place}: {name}"
        _named(where, name, COMMAND_NAME)
        check_keys(where, command, COMMAND_KEYS, {"engine": str, "predicate": bool, "in_place": list})
        check_range(f"{where}: opcode", command["opcode"], 0, 255)
        if "engine" in command:
            _one_of(f"{where}: engine", command["engine"], enums["engine"]["values"])
        fields = _fields(where, command["fields"], groups, enums)
        for operand in command.get("in_place", ()):
            _one_of(f"{where}: in_place", operand, [n for n, field in fields.items() if field["kind"] == "addr"])


def check_opcodes(place: str, commands: Mapping[str, Any]) -> None:
    """Of all files together."""
    check_distinct(place, {name: command["opcode"] for name, command in commands.items()})


def _fields(place: str, raw: Any, groups: Mapping[str, Any], enums: Mapping[str, Any]) -> dict[str, Any]:
    """The fields by name, groups taken apart."""
    check_type(place, raw, list)
    found: dict[str, Any] = {}
    for i, entry in enumerate(raw):
        where = f"{place}: field {i}"
        if isinstance(entry, dict) and set(entry) == {"group"}:
            _one_of(f"{where}: group", entry["group"], groups)
            members = groups[entry["group"]]
        else:
            _field(where, entry, enums)
            members = [entry]
        for member in members:
            if member["name"] in found:
                raise DlavmError(f"{where}: expected a name of its own, got {member['name']!r} again")
            found[member["name"]] = member
    return found


def _field(place: str, raw: Any, enums: Mapping[str, Any]) -> None:
    kind = raw.get("kind") if isinstance(raw, dict) else None
    own: dict[str, Kind] = {"enum": str} if kind == "enum" else {"bits": int} if kind == "count" else {}
    check_keys(place, raw, {**FIELD_KEYS, **own}, {"write": bool} if kind == "addr" else {})
    _named(place, raw["name"], FIELD_NAME)
    if kind == "enum":
        _one_of(f"{place}: enum", raw["enum"], enums)
    elif kind == "count":
        check_range(f"{place}: bits", raw["bits"], 1, 32)
    elif kind not in ("flag", *WORD_KINDS) and not (re.fullmatch(r"u\d+", str(kind)) and 1 <= int(str(kind)[1:]) <= 32):
        raise DlavmError(f"{place}: kind: expected one of {', '.join(KINDS)}, got {kind!r}")


def _named(place: str, name: Any, pattern: re.Pattern[str]) -> None:
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise DlavmError(f"{place}: expected a name like {pattern.pattern}, got {name!r}")


def _one_of(place: str, name: Any, known: Iterable[object]) -> None:
    if name not in list(known):
        raise DlavmError(f"{place}: expected one of {', '.join(map(str, known)) or 'none'}, got {name!r}")


def _at_least(place: str, value: int, least: int) -> None:
    if value < least:
        raise DlavmError(f"{place}: expected at least {least}, got {value}")


def _above_zero(place: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise DlavmError(f"{place}: expected a number above 0, got {value}")
