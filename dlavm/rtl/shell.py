"""Files that take the core to a board's tools: a top with the ports of each channel apart, and first constraints.

Nothing here was run on a board; doc/hardware.md, "Taking it to a board", says what is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dlavm.rtl.build import packages, rtl_dir
from dlavm.rtl.model import ADDRESS_BITS, core_parameters, core_signals
from dlavm.support.errors import DlavmError
from dlavm.target.spec import Memory, TargetSpec

ID_BITS = 1
SOURCES = "rtl"  # folder of the copies
# Name and bits of what a master drives beside an address, and of the AXI4-Lite slave.
_ADDRESS = (("id", ID_BITS), ("addr", ADDRESS_BITS), ("len", 8), ("size", 3), ("burst", 2), ("lock", 1),
                  ("cache", 4), ("prot", 3), ("qos", 4), ("valid", 1))
_LITE_IN = (("awaddr", 12), ("awprot", 3), ("awvalid", 1), ("wdata", 32), ("wstrb", 4), ("wvalid", 1), ("bready", 1),
            ("araddr", 12), ("arprot", 3), ("arvalid", 1), ("rready", 1))
_LITE_OUT = (("awready", 1), ("wready", 1), ("bresp", 2), ("bvalid", 1), ("arready", 1), ("rdata", 32), ("rresp", 2),
             ("rvalid", 1))


def top_name(spec: TargetSpec) -> str:
    """The module that `top_text` writes."""
    return f"dlavm_{spec.name}_{spec.board.name}"


def top_text(spec: TargetSpec) -> str:
    """A module with ports `mNN_axi_*` for each channel and `s_axi_*`: the core of a target, and dlavm_shell around it.
    It is in Verilog: the vendor's IP packager takes no SystemVerilog at the top (UG1118).

    Raises DlavmError for a target or board that the core does not cover.
    """
    values = core_parameters(spec)
    bases = [base for memory in spec.board.memories.values() for base in channel_bases(memory)]
    width = int(values["PORT_BYTES"])
    wide = ", ".join(f"{ADDRESS_BITS}'h{base:x}" for base in reversed(bases))
    outer = {"CHANNELS": str(len(bases)), "PORT_BYTES": str(width), "CHANNEL_BASE": f"{{{wide}}}"}
    ports, joined = ["  input  wire aclk", "  input  wire aresetn", "  output wire busy"], list[str]()
    for is_out, name, bits in _master_signals(width):
        names = [f"m{channel:02}_axi_{name}" for channel in range(len(bases))]
        ports += [_port(is_out, bits, port) for port in names]
        joined.append(f"      .m_axi_{name}({{{', '.join(reversed(names))}}})")
    for is_out, table in ((False, _LITE_IN), (True, _LITE_OUT)):
        ports += [_port(is_out, bits, f"s_axi_{name}") for name, bits in table]
        joined += [f"      .s_axi_{name}(s_axi_{name})" for name, _ in table]
    wires, core = list[str](), ["      .clk_i(aclk)", "      .rst_i(rst)", "      .busy_o(busy)"]
    for is_out, name, bits in core_signals(len(bases), width):
        wires.append(f"  wire [{bits - 1}:0] {name};")
        core.append(f"      .{name}_{'o' if is_out else 'i'}({name})")
        joined.append(f"      .{name}_{'i' if is_out else 'o'}({name})")
    return "\n".join([
        f"// The core of {spec.name} on {spec.board.name}.", *_masters(spec),
        f"module {top_name(spec)} (", ",\n".join(ports), ");", "",
        "  wire rst;", *wires, "",
        "  dlavm_core #(", _settings(values), "  ) u_core (", ",\n".join(core) + ");", "",
        "  dlavm_shell #(", _settings(outer), "  ) u_shell (", "      .aclk(aclk),", "      .aresetn(aresetn),",
        "      .rst_o(rst),", ",\n".join(joined) + ");", "", "endmodule", "",
    ])  # fmt: skip


def _masters(spec: TargetSpec) -> Iterator[str]:
    """A comment for each memory: its masters, and what stands behind them where that is not a controller."""
    first = 0
    for name, memory in spec.board.memories.items():
        behind = ""
        if memory.timing.accesses:
            ports = "a port for reads and one for writes" if memory.timing.accesses > 1 else "one port"
            count = memory.capacity // memory.channels
            behind = f", on the chip: the wrapper puts {count} bytes of RAM with {ports} behind each"
        yield f"// {name}: m{first:02}_axi to m{first + memory.channels - 1:02}_axi{behind}."
        first += memory.channels


def _settings(values: Mapping[str, str]) -> str:
    return ",\n".join(f"      .{name}({value})" for name, value in values.items())


def channel_bases(memory: Memory) -> list[int]:
    """Where each channel begins: contiguous parts of the memory, as the device `xdma:` places bytes."""
    pitch = memory.capacity // memory.channels
    return [memory.base + channel * pitch for channel in range(memory.channels)]


def constraints_text(spec: TargetSpec) -> str:
    """Vivado constraints to begin with: the clock; what the board's own files must add is named, not guessed."""
    board = spec.board
    period = 1000 / board.clock_mhz
    lines = [
        f"# {spec.name} on {board.name}: {board.doc}",
        "# To begin with: no run of a board's tools stands behind these lines. Pins and I/O standards are those of the",
        "# board files; where a block design makes aclk and aresetn, the first line falls away.",
        f"create_clock -name aclk -period {period:.3f} [get_ports aclk]",
        "set_false_path -from [get_ports aresetn]",
        "set_property ASYNC_REG TRUE [get_cells {u_shell/reset_q_reg u_shell/rst_o_reg}]",
        "set_false_path -to [get_ports busy]",
    ]
    for name, memory in board.memories.items():
        if memory.port_clock_mhz != board.clock_mhz:
            lines.append(f"# {name}: ports of {memory.port_clock_mhz:g} MHz; between each and the core belongs an AXI")
            lines.append("# clock converter, whose own constraints cover the crossing.")
    return "\n".join(lines) + "\n"


def write_shell(spec: TargetSpec, directory: Path) -> list[Path]:
    """Writes the top, the constraints and `files.f`, and a copy of the sources in `rtl/`; the paths of the first three.

    `files.f` names every source in the order to be read, as seen from where it lies: the directory may be moved.

    Raises DlavmError where the core does not cover the target or board, or the directory cannot be written.
    """
    name = top_name(spec)
    sources = [*packages(), *(path for path in sorted(rtl_dir().glob("*.sv")) if path not in packages())]
    copies = {f"{SOURCES}/{path.name}": path.read_text(encoding="utf-8") for path in sources}
    texts = {f"{name}.v": top_text(spec), f"{name}.xdc": constraints_text(spec),
             "files.f": "".join(f"{file}\n" for file in [*copies, f"{name}.v"])}
    try:
        (directory / SOURCES).mkdir(parents=True, exist_ok=True)
        for file, text in (copies | texts).items():
            (directory / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DlavmError(f"shell: {error.filename}: expected to be written, got {error.strerror!r}") from None
    return [directory / file for file in texts]


def _master_signals(port_bytes: int) -> Iterator[tuple[bool, str, int]]:
    """Whether the core drives it, name and bits of every signal of an AXI4 channel."""
    yield from ((True, f"aw{name}", bits) for name, bits in _ADDRESS)
    yield False, "awready", 1
    yield from ((True, "wdata", 8 * port_bytes), (True, "wstrb", port_bytes), (True, "wlast", 1), (True, "wvalid", 1))
    yield from ((False, "wready", 1), (False, "bid", ID_BITS), (False, "bresp", 2), (False, "bvalid", 1))
    yield True, "bready", 1
    yield from ((True, f"ar{name}", bits) for name, bits in _ADDRESS)
    yield from ((False, "arready", 1), (False, "rid", ID_BITS), (False, "rdata", 8 * port_bytes), (False, "rresp", 2))
    yield from ((False, "rlast", 1), (False, "rvalid", 1), (True, "rready", 1))


def _port(is_out: bool, bits: int, name: str) -> str:
    return f"  {'output' if is_out else 'input '} wire {f'[{bits - 1}:0] ' if bits > 1 else ''}{name}"
