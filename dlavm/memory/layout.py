"""Where every buffer of a program lies: one region for each role and memory space, activations by the planner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm

from dlavm.memory.liveness import Interval, liveness
from dlavm.memory.plan import Plan, plan
from dlavm.memory.validate import validate
from dlavm.support.errors import DlavmError
from dlavm.target.sizes import beat_rows
from dlavm.target.spec import ADDRESS_UNIT, Memory, TargetSpec
from dlavm.task import Buffer, Program

ORDER = ("weights", "tables", "program", "input", "output", "activations", "kv")
ADDRESSABLE = ADDRESS_UNIT << 32  # bytes: a command names an address in 32 bits
PAGE = 4096  # a channel's share of the weights is mapped from a file


@dataclass(frozen=True)
class Region:
    """Bytes of one role in one space; `base` is an address of the device."""

    space: str
    role: str
    base: int
    bytes: int


@dataclass(frozen=True)
class MemoryMap:
    """Byte addresses of all buffers by name, the regions in order of address, and the plan of the activations.

    `intervals` and `activations.offsets` are relative to the region of the activations; sizes are rounded up to its
    alignment. `others`: addresses of the buffers of further programs.
    """

    bases: Mapping[str, int]
    regions: tuple[Region, ...]
    intervals: tuple[Interval, ...]
    activations: Plan
    others: tuple[Mapping[str, int], ...] = ()

    def with_copies(self, program: Program, copies: Mapping[str, tuple[str, ...]]) -> MemoryMap:
        """Also the addresses of the buffers that `copies` says are the copies of one."""
        strides = {name: program.buffer[name].stride for name in copies}
        more = {n: self.bases[name] + i * strides[name] for name, names in copies.items() for i, n in enumerate(names)}
        return replace(self, bases={**self.bases, **more})

    def bytes(self, role: str) -> int:
        """Bytes of a role's region, zero if it has none."""
        return sum(r.bytes for r in self.regions if r.role == role)

    def region(self, role: str) -> Region:
        """The region of a role. Raises DlavmError if no buffer has it."""
        for region in self.regions:
            if region.role == role:
                return region
        raise DlavmError(f"memory map: expected one of {[r.role for r in self.regions]!r}, got {role!r}")


def assign(
    program: Program, spec: TargetSpec, extra: Iterable[Buffer] = (), also: Sequence[Program] = ()
) -> MemoryMap:
    """Places the program's buffers and `extra` ones, such as the instruction stream.

    `also`: programs that run at other times. They share the buffers whose names they have in common with the first, but
    for activations, which are planned for each program in the same region.

    Regions follow each other from the base of their space: weights, tables, program, input, output, activations, kv.
    Buffers start at multiples of the space's beat row, so that a tensor begins at the same offset in each channel;
    regions at what its ports bring in a cycle of the core, so that a block of the cache lies in no more of these than
    it must; the weights end where each channel's share is whole pages. The caches come last, so that those of further
    sequences can follow.

    Of several spaces that a target names for activations the first that holds them is taken, for all programs the same.
    Input and output, which the host reaches for, lie in the last of these.

    Raises DlavmError for a name that occurs twice, and a role that the target has no space for. Whether the board is
    large enough is `check_capacity`'s question.
    """
    buffers = _by_role([*program.buffers, *extra, *_further([*program.buffers, *extra], also)])
    for home in spec.spaces("activations"):
        made = _assign(program, spec, also, buffers, home)
        if made.bytes("activations") <= home.capacity:
            break
    return made


def _assign(program: Program, spec: TargetSpec, also: Sequence[Program], buffers: Mapping[str, list[Buffer]],
            home: Memory) -> MemoryMap:
    """What `assign` returns, with the activations in the memory `home`."""
    spaces = {role: home if role == "activations" else _space(spec, role) for role in buffers}
    memories = {memory.name: memory for memory in spaces.values()}
    intervals, activations = _planned(program, spec, spaces)
    others = [_planned(other, spec, spaces)[1] for other in also]
    bases: dict[str, int] = {}
    regions: list[Region] = []
    ends = {name: memory.base for name, memory in memories.items()}
    first_activation = 0
    for role in buffers:
        memory = spaces[role]
        start = ends[memory.name]
        if role == "activations":
            # A buffer that nothing touches gets an address and no space.
            offsets = {b.name: activations.offsets.get(b.name, 0) for b in buffers[role]}
            size = max(made.peak for made in (activations, *others))
            first_activation = start
        else:
            offsets, size = _stack(buffers[role], memory)
        bases |= {name: start + offset for name, offset in offsets.items()}
        unit = PAGE * memory.channels if role == "weights" else 1
        row = beat_rows(memory, spec.board) * memory.beat_row
        ends[memory.name] = memory.base + _up(start + size - memory.base, lcm(unit, row))
        regions.append(Region(memory.name, role, start, ends[memory.name] - start))
    regions.sort(key=lambda r: r.base)
    further = tuple(_bases(other, bases, made, first_activation) for other, made in zip(also, others, strict=True))
    return MemoryMap(bases, tuple(regions), tuple(intervals), activations, further)


def _further(known: Iterable[Buffer], also: Iterable[Program]) -> list[Buffer]:
    """Buffers of the further programs that the first does not have. Raises DlavmError for one that is larger there."""
    sizes = {b.name: b.bytes for b in known}
    found: dict[str, Buffer] = {}
    for buffer in (b for program in also for b in program.buffers if b.role != "activations"):
        if buffer.name not in sizes:
            found[buffer.name] = buffer
        elif buffer.bytes > sizes[buffer.name]:
            raise DlavmError(f"buffer {buffer.name}: expected at most {sizes[buffer.name]} bytes in every program, got "
                             f"{buffer.bytes}")
    return list(found.values())


def _planned(
    program: Program, spec: TargetSpec, spaces: Mapping[str, Memory]
) -> tuple[tuple[Interval, ...], Plan]:
    """When the activations of a program live, rounded to whole beat rows, and where."""
    if "activations" not in spaces:
        return (), plan((), 1)
    memory = spaces["activations"]
    intervals = _rounded(liveness(program, spec), memory)
    made = plan(intervals, memory.beat_row)
    validate(intervals, made.offsets, memory.beat_row)
    return intervals, made


def _bases(program: Program, bases: Mapping[str, int], made: Plan, start: int) -> dict[str, int]:
    places = {b.name: start + made.offsets.get(b.name, 0) for b in program.buffers if b.role == "activations"}
    return {b.name: places[b.name] if b.name in places else bases[b.name] for b in program.buffers}


def settled(spec: TargetSpec, made: MemoryMap) -> TargetSpec:
    """The target with no other space for the activations than the one that a map has taken."""
    found = [r.space for r in made.regions if r.role == "activations"]
    return replace(spec, roles={**spec.roles, "activations": tuple(found)}) if found else spec


def displaced(spec: TargetSpec, made: MemoryMap) -> list[str]:
    """What to say of activations that do not lie in the space that the target prefers; nothing where they do."""
    preferred, needed = spec.space("activations"), made.bytes("activations")
    space = settled(spec, made).space("activations").name
    if not needed or space == preferred.name:
        return []
    return [f"activations take {needed} bytes, more than the {preferred.capacity} of {preferred.name}: they lie in "
            f"{space}, where they keep weights and caches waiting; a smaller --chunk needs less"]


def alignments(spec: TargetSpec) -> dict[str, int]:
    """Bytes that the first buffer of a role and those behind it are aligned to, in each space that may hold them."""
    return {role: lcm(*(memory.beat_row for memory in spec.spaces(role))) for role in spec.roles}


def _by_role(buffers: list[Buffer]) -> dict[str, list[Buffer]]:
    """Buffers of each role that occurs, roles in the order of their regions."""
    seen: set[str] = set()
    for buffer in buffers:
        if buffer.name in seen:
            raise DlavmError(f"memory map: expected distinct buffers, got {buffer.name!r} twice")
        seen.add(buffer.name)
    groups = {role: [b for b in buffers if b.role == role] for role in ORDER}
    return {role: group for role, group in groups.items() if group}


def _space(spec: TargetSpec, role: str) -> Memory:
    """Of a role that lies in one space alone; input and output where hosts reach."""
    where = "activations" if role in ("input", "output") else role
    if where not in spec.roles:
        raise DlavmError(f"target {spec.name}: expected a space for one of {sorted(spec.roles)!r}, got role {role!r}")
    return spec.spaces(where)[-1]


def _rounded(intervals: Iterable[Interval], memory: Memory) -> tuple[Interval, ...]:
    return tuple(Interval(i.name, i.lower, i.upper, _up(i.size, memory.beat_row)) for i in intervals)


def _stack(buffers: Iterable[Buffer], memory: Memory) -> tuple[dict[str, int], int]:
    """Offsets one behind the other, and their end. The first copies of a record stand together, at its beginning."""
    offsets: dict[str, int] = {}
    records: dict[tuple[int, int], tuple[int, int]] = {}  # by copies and stride: the next free place, the record's end
    end = 0
    for buffer in buffers:
        size = _up(buffer.bytes, memory.beat_row)
        if buffer.copies == 1:
            offsets[buffer.name] = end
            end += size
            continue
        key = (buffer.copies, buffer.stride)
        place, limit = records.get(key, (0, 0))
        if place + size > limit:
            place, limit = end, end + buffer.stride
            end += _up(buffer.copies * buffer.stride, memory.beat_row)
        offsets[buffer.name] = place
        records[key] = (place + size, limit)
    return offsets, end


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def check_addresses(program: Program) -> None:
    """Raises DlavmError for weights, tables and caches that are more bytes than addresses of any board tell apart."""
    kept = {role: sum(b.bytes for b in program.buffers if b.role == role) for role in ("weights", "tables", "kv")}
    if sum(kept.values()) > ADDRESSABLE:
        split = ", ".join(f"{role} {size}" for role, size in kept.items())
        raise DlavmError(f"memory: expected at most {ADDRESSABLE} bytes, which addresses reach, got "
                         f"{sum(kept.values())} ({split}); choose a format of fewer bits, a smaller --ctx or model")


def check_capacity(made: MemoryMap, spec: TargetSpec) -> None:
    """Raises DlavmError for a memory of the board that the regions do not fit, with the bytes of each."""
    for name in dict.fromkeys(region.space for region in made.regions):
        memory, regions = spec.board.memory(name), [r for r in made.regions if r.space == name]
        need = sum(r.bytes for r in regions)
        if need <= memory.capacity:
            continue
        split = ", ".join(f"{r.role} {r.bytes}" for r in regions)
        kv = sum(r.bytes for r in regions if r.role == "kv")
        hint = "; choose a board with more memory or a smaller model"
        if kv and (need - kv <= memory.capacity or kv == max(r.bytes for r in regions)):
            hint = f"; the KV cache alone takes {kv} bytes: choose a smaller --ctx"
        raise DlavmError(
            f"memory {name} of board {spec.board.name}: expected at most {memory.capacity} bytes, "
            f"got {need} ({split}){hint}"
        )
