"""The Verilated core of a target on a board as a shared library, for devices of URL `rtl:PATH` (doc/devices.md).

A library is built once for each state of the sources, target, board and Verilator, and kept in the user's cache
directory until nobody has asked for it for a while.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlavm.rtl.build import (
    link_runtime,
    make_variables,
    missing_tools,
    packages,
    rtl_dir,
    verilator_env,
    verilator_version,
)
from dlavm.rtl.cache import kept
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.support.progress import progress
from dlavm.target.memory_timing import FIELDS
from dlavm.target.sizes import matrix_lanes, sizes
from dlavm.target.spec import TargetSpec

TOP = "dlavm_top"
LIBRARY = "libdlavm_rtl.so"
ADDRESS_BITS = 40
MOST_BUILT = 1024  # lanes of the largest core that the tests compile (tests/rtl/test_sizes.py)


@dataclass(frozen=True)
class Flags:
    """How a core is compiled; the defaults were found fastest (doc/hardware.md, "On Verilator")."""

    optimize: str = "-O2"  # of the C++ compiler
    threads: int = 1  # that step the core


def library(spec: TargetSpec, extra: Sequence[Path] = (), waves: bool = False) -> Path:
    """The library of the core of `spec`, built if it is not in the cache. Modules in the directories `extra` go first.

    One that can write `waves` runs slower, and takes longer to build.

    Raises DlavmError without Verilator, for a target or board that the RTL does not cover, and where the build fails.
    """
    reason = missing_tools(("verilator",))
    if reason is not None:
        raise DlavmError(f"rtl: expected Verilator, got {reason}")
    top = top_text(spec)

    def build_library(directory: Path) -> Path:
        _warn_of_size(spec)
        with progress(f"building the core of {spec.name} on {spec.board.name}"):
            return build(spec, directory, extra, waves)

    return kept(_digest(spec, top, extra, waves), LIBRARY, build_library)


def _warn_of_size(spec: TargetSpec) -> None:
    """On stderr, before a build that nobody has waited for."""
    lanes = matrix_lanes(spec)
    if lanes > MOST_BUILT:
        print(f"building the core of {spec.name} on {spec.board.name}, {lanes:,} lanes: cores of up to {MOST_BUILT:,} "
              "take minutes, this one may take hours and much memory; the board nano is the one to simulate",
              file=sys.stderr)  # fmt: skip


def top_text(spec: TargetSpec) -> str:
    """A module that gives the core the parameters of a target on its board.

    Raises DlavmError for a board whose memories do not fit each other.
    """
    values = core_parameters(spec)
    memories = list(spec.board.memories.values())
    body = ",\n".join(f"      .{name}({value})" for name, value in values.items())
    ports_text = _ports(sum(m.channels for m in memories), sizes(spec).port_bytes)
    return f"module {TOP} (\n{ports_text}\n);\n  dlavm_core #(\n{body}\n  ) u_core (.*);\nendmodule\n"


def core_parameters(spec: TargetSpec) -> dict[str, str]:
    """Parameters of dlavm_core, but those of its own buffers. Raises DlavmError as `top_text` does."""
    memories = list(spec.board.memories.values())
    limits, board, size = spec.limits, spec.board, sizes(spec)

    def each(bits: int, values: Sequence[int]) -> str:
        return "{" + ", ".join(f"{bits}'h{v:x}" for v in reversed(values)) + "}"

    opcodes = sum(1 << opcode for opcode in spec.opcodes)
    return {
        "ID": f"32'h{spec.hash[:8]}",
        "OPCODES": f"256'h{opcodes:x}",
        "WEIGHT_FORMATS": f"32'h{spec.weight_format_mask:x}",
        "UNITS": str(size.units),
        "ROW_UNITS": str(size.row_units),
        "HALVES": str(size.halves),
        "PORT_BYTES": str(size.port_bytes),
        "SPACES": str(len(memories)),
        "BASE": each(ADDRESS_BITS, [m.base for m in memories]),
        "CAPACITY": each(ADDRESS_BITS, [m.capacity for m in memories]),
        "SPACE_CHANNELS": each(8, [m.channels for m in memories]),
        "SPACE_STRIPE": each(16, [m.port_bytes for m in memories]),
        "WEIGHT_SPACE": str(memories.index(spec.space("weights"))),
        "CHANNELS": str(sum(m.channels for m in memories)),
        "READ_ROWS": str(size.weight_rows),
        "CLIENT_ROWS": str(size.client_rows),
        "LANES": str(size.lanes),
        "SHARE": str(size.share),
        "ACTIVATION_ELEMENTS": str(board.activation_elements),
        "ACCUMULATORS": str(board.accumulators),
        "HEADER_WORDS": str(spec.header_words),
        "ROWS_MOST": str(size.rows_most),
        "RESULT_BLOCKS": str(size.result_blocks),
        "SCALARS": str(limits["scalar_registers"]),
        "SEMAPHORES": str(limits["semaphores"]),
        "LOOP_DEPTH": str(limits["loop_depth"]),
        "CALL_DEPTH": str(limits["call_depth"]),
    }


def core_signals(channels: int, port_bytes: int) -> Iterator[tuple[bool, str, int]]:
    """Whether the core drives it, name without its suffix and bits of every signal of its ports,
    clock, reset and `busy_o` apart."""
    wide = {"addr": ADDRESS_BITS, "len": 8, "data": 8 * port_bytes, "strb": port_bytes, "resp": 2}
    for x in ("ar", "aw"):
        yield from ((True, f"m_{x}_valid", channels), (False, f"m_{x}_ready", channels))
        yield from ((True, f"m_{x}_{name}", wide[name] * channels) for name in ("addr", "len"))
    yield from ((True, "m_w_valid", channels), (False, "m_w_ready", channels), (True, "m_w_last", channels))
    yield from ((True, f"m_w_{name}", wide[name] * channels) for name in ("data", "strb"))
    for x in ("r", "b"):
        yield from ((False, f"m_{x}_valid", channels), (True, f"m_{x}_ready", channels))
        yield False, f"m_{x}_resp", wide["resp"] * channels
    yield False, "m_r_data", wide["data"] * channels
    for x in ("aw", "w", "ar"):
        yield from ((False, f"s_{x}_valid", 1), (True, f"s_{x}_ready", 1))
    yield from ((False, "s_aw_addr", 12), (False, "s_ar_addr", 12), (False, "s_w_data", 32), (True, "s_r_data", 32))
    for x in ("r", "b"):
        yield from ((True, f"s_{x}_valid", 1), (False, f"s_{x}_ready", 1))


def _ports(channels: int, port_bytes: int) -> str:
    """The ports of dlavm_core: direction, name and bits of each."""
    lines = ["  input logic [0:0] clk_i", "  input logic [0:0] rst_i", "  output logic [0:0] busy_o"]
    for is_out, name, bits in core_signals(channels, port_bytes):
        direction, suffix = ("output", "o") if is_out else ("input", "i")
        lines.append(f"  {direction} logic [{bits - 1}:0] {name}_{suffix}")
    return ",\n".join(lines)


def _clib() -> Path:
    return data_root() / "clib"


def _harness() -> list[Path]:
    """C++ that is compiled into the library."""
    timing = _clib() / "src" / "timing"
    return [rtl_dir() / "sim" / "model.cpp", timing / "channel.cpp", timing / "parameters.cpp"]


def _headers() -> list[Path]:
    """What that includes, generated headers apart."""
    public = (_clib() / "include" / "dlavm" / f"{name}.h" for name in ("rtl_model", "memory_timing"))
    timing = (_clib() / "src" / "timing" / f"{name}.h" for name in ("channel", "parameters", "ring"))
    return [*public, *timing, *sorted((rtl_dir() / "sim").glob("*.h"))]


def _timing_text(spec: TargetSpec) -> str:
    """A header with the timing of each channel."""
    rows = []
    for memory in spec.board.memories.values():
        figures = memory.timing.channel(spec.board.clock_mhz, sizes(spec).port_bytes)
        rows += [f"    {{{', '.join(str(figures[name]) for name in FIELDS)}}},"] * memory.channels
    body = "\n".join(rows)
    return f"""#pragma once

#include "dlavm/memory_timing.h"

constexpr dlavm_memory_timing kTimings[] = {{
{body}
}};
"""


def _digest(spec: TargetSpec, top: str, extra: Sequence[Path], waves: bool) -> str:
    """Of everything that a library is made of: sources, the command that compiles them, the version of Verilator."""
    parts = (top, _timing_text(spec), verilator_version(), *_command(spec, len(extra), waves))
    digest = hashlib.sha256("\0".join(parts).encode())
    sources = [*packages(), *sorted(rtl_dir().glob("*.sv")), *_harness(), *_headers()]
    more = (p for directory in extra for kind in ("*.sv", "*.v") for p in sorted(directory.glob(kind)))
    for path in [*sources, *more]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def _below_root(path: Path) -> str:
    """A file of dlavm's as the build sees it, through a link in its directory: the rules of make take no spaces, which
    the place of an installation may have."""
    return f"root/{path.relative_to(data_root()).as_posix()}"


def _command(spec: TargetSpec, extras: int, waves: bool, flags: Flags = Flags()) -> list[str]:
    """Compiles the top module in the working directory to a library there. All of it is position independent, and
    meets its own copy of what it shares with libdlavm. `extras`: how many directories of modules come first."""
    memories = spec.board.memories.values()
    defines = {"DLAVM_RTL_CHANNELS": sum(m.channels for m in memories),
               "DLAVM_RTL_PORT_BYTES": next(iter(memories)).port_bytes,
               "DLAVM_RTL_AXI_BYTES": sizes(spec).port_bytes}
    includes = [_below_root(path) for path in (_clib() / "include", _clib() / "src", rtl_dir() / "sim")]
    cflags = ["-fPIC", "-std=c++17", *(f"-I{path}" for path in [*includes, "."]),
              *(f"-D{name}={value}" for name, value in defines.items())]
    # Verilator would link liblz4, which sim/lz4.h stands in for.
    linked = {"LDFLAGS": "-shared -Wl,-Bsymbolic", "LDLIBS": "-lz"} if waves else {}
    settings = make_variables(runtime=not waves) | {"OPT_FAST": flags.optimize} | linked
    variables = shlex.join(f"{name}={value}" for name, value in settings.items())  # a shell reads them
    options = {"--top-module": TOP, "-Mdir": ".", "-o": LIBRARY,
               "-LDFLAGS": "-shared -Wl,-Bsymbolic", "-CFLAGS": " ".join(cflags), "-MAKEFLAGS": variables,
               "--x-assign": "fast", "--x-initial": "fast", "--output-split": "8000", "-j": "4",
               "--threads": str(flags.threads)}
    modules = [*map(_extra, range(extras)), _below_root(rtl_dir())]
    searched = [part for path in modules for part in ("-y", path)]
    files = [*map(_below_root, packages()), f"{TOP}.sv", *map(_below_root, _harness())]
    return ["verilator", "-cc", "--exe", "--build", "-quiet", "-O3", "--no-timing", *(["--trace-fst"] if waves else []),
            *(part for option in options.items() for part in option), *searched, *files]


def _extra(number: int) -> str:
    """A directory of modules as the build sees it."""
    return f"extra{number}"


def build(
    spec: TargetSpec, directory: Path, extra: Sequence[Path] = (), waves: bool = False, flags: Flags = Flags()
) -> Path:
    """Compiles the core in `directory`, an empty one without spaces in its path; returns the library there. Raises
    DlavmError where that fails."""
    (directory / f"{TOP}.sv").write_text(top_text(spec))
    (directory / "dlavm_rtl_timing.h").write_text(_timing_text(spec))
    for name, path in [("root", data_root()), *((_extra(i), path) for i, path in enumerate(extra))]:
        (directory / name).symlink_to(path.absolute())
    if not waves:
        link_runtime(directory)
    command = _command(spec, len(extra), waves, flags)
    done = subprocess.run(command, cwd=directory, env=verilator_env(), capture_output=True, text=True, check=False)
    if done.returncode:
        tail = (done.stdout + done.stderr)[-3000:]
        raise DlavmError(f"rtl: expected the core of {spec.name} on {spec.board.name} to compile, got\n{tail}")
    return directory / LIBRARY
