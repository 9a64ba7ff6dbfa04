"""A tour of dlavm, to be read beside its output: from a graph of three ops to bytes in the simulator's memory.

python scripts/learn.py                one chapter after the other; on a terminal Enter goes on
python scripts/learn.py --chapter 5    that one alone

What a chapter says is its docstring, what it shows comes from the library, and what it claims is checked.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from learn_pages import claim, main, show

from dlavm.compile import Options, compile_model
from dlavm.formats import FORMATS, Grid, quantize
from dlavm.frontend import Model, load_model
from dlavm.graph import Builder, Graph, evaluate, parse_graph, print_graph, verify
from dlavm.lower import lower
from dlavm.memory import assign
from dlavm.pack.unpack import unstripe
from dlavm.pack.weights import pack_grid, pack_rows
from dlavm.passes import FuseEpilogue, QuantizeWeights, run
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.target.isa import decode_program, disassemble, encode_program
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task import Launch, print_program, walk
from dlavm.verbs.common import table

VOCAB, DIM = 64, 256
TARGET = load_target("v3", "nano")  # the smallest board
HBM = TARGET.space("weights")  # its memory: two channels
REPOSITORY = Path(__file__).resolve().parents[1]
IDS = np.arange(37, dtype=np.uint32) * 5 % VOCAB  # the tokens of chapters 3, 8 and 9
FOLLOWED = (45, 207)  # row and column of the weight that chapters 7 and 8 follow


def build(ctx: int, chunk: int) -> Graph:
    b = Builder("tour", ctx=ctx, chunk=chunk)
    ids = b.input("ids", (b.token,), "i32")
    x = b.embedding(ids, b.param("embed.weight", (VOCAB, DIM)))  # (token, dim)
    h = b.linear(x, b.param("proj.weight", (DIM, DIM)))  # (token, dim)
    return b.finish(y=b.add(x, h))


GRAPH = build(ctx=64, chunk=40)
COMPILED = compile_model(Model("tour", build), TARGET, Options(ctx=64, chunk=40))  # what `dlavm build` packs
RANDOM = np.random.default_rng(1)
WEIGHTS: dict[str, Any] = {"embed.weight": RANDOM.standard_normal((VOCAB, DIM)).astype(np.float16),
                           "proj.weight": RANDOM.standard_normal((DIM, DIM)).astype(np.float32) / 16}  # fmt: skip


@cache
def packed(change: int = 0) -> Any:
    """The projection as it lies in memory, (channel, byte); one integer weight is changed by `change`."""
    grid = quantised()
    grid.codes[FOLLOWED] += change
    return pack_grid(grid, HBM)


def quantised() -> Grid:
    """The matrix on the grid of its format."""
    return quantize(WEIGHTS["proj.weight"], FORMATS["int4g128"])


def a_graph() -> None:
    """A graph of three ops

    A model is written with the Builder: a method for every op, shapes with symbolic extents. `token`, the number
    of new tokens of a step, stays a symbol all the way to the instruction. This is the whole model of the tour:
    """
    show(inspect.getsource(build))
    show(table(("value", "op", "type"), [(n.name, n.op, n.output.type) for n in GRAPH.nodes]))
    claim("the result has a row for each token", GRAPH.outputs["y"].type.shape == (GRAPH.variables["token"], DIM))


def text_and_verifier() -> None:
    """Its text form, and the verifier

    Each representation has a text that can be printed and read back, and a verifier: the Builder ends with it, and
    DLAVM_VERIFY=1 runs it around every pass. What is wrong is refused in one line that says what was expected.
    """
    text = print_graph(GRAPH)
    show(text)
    claim("reading the text gives the same text again", print_graph(parse_graph(text)) == text)
    refused = ""
    try:
        verify(replace(GRAPH, nodes=GRAPH.nodes[::-1]))
    except DlavmError as error:
        refused = str(error)
    show(f"the ops in the opposite order: {refused}")
    claim("they are refused", "expected a value defined earlier" in refused)


def a_pass() -> None:
    """A pass over the graph

    A pass takes a graph and returns another that computes the same. FuseEpilogue lets the matrix engine add the
    residual while it stores its result; QuantizeWeights then says how the weights are stored, four bits each.
    """
    fused = run([FuseEpilogue(), QuantizeWeights("int4g128")], GRAPH)
    for title, g in (("before", GRAPH), ("after", fused)):
        show(f"{title}:\n" + "\n".join(line for line in print_graph(g).splitlines() if line.startswith("%")))
    claim("there is one op less", len(fused.nodes) == len(GRAPH.nodes) - 1)
    before, after = (evaluate(g, WEIGHTS, {"ids": IDS, "kv_len": 0}, {})["y"] for g in (GRAPH, fused))
    claim("both give the same numbers in float32", bool(np.allclose(before, after, atol=1e-5)))
    claim("the compiler's passes come to the same graph", print_graph(fused) == print_graph(COMPILED.graph))


def lowering() -> None:
    """Lowering to tasks

    A rule for each op turns it into launches of the target's engines. The activation buffer of this board holds
    32 rows of 256, so the LINEAR stands in a loop whose trip count depends on `token`. Buffers have names, not
    addresses; addresses count units of 16 bytes.
    """
    show(print_program(COMPILED.program, TARGET))
    depths = [(s.op, len(path) - 2) for path, s in walk(COMPILED.program) if isinstance(s, Launch)]
    claim("one launch for each op of the graph, the LINEAR in a loop", depths == [("GATHER", 0), ("LINEAR", 1)])


def memory_plan() -> None:
    """The memory plan

    Every buffer gets an address. Activations share memory when they do not live at the same time; the planner
    compares its peak with the most that is alive at once. The pass of chapter 3 shows here: without it the
    matrix product is a buffer of its own.
    """
    memory = COMPILED.memory
    buffers = sorted((memory.bases[b.name], b.bytes, b.role, b.name) for b in COMPILED.program.buffers)
    show(table(("address", "bytes", "role", "name"), [(f"{a:#08x}", *rest) for a, *rest in buffers], right=(1,)))
    unfused = lower(run([QuantizeWeights("int4g128")], GRAPH), TARGET)
    peak, other = memory.activations.peak, assign(unfused.program, TARGET).activations.peak
    show(f"activations: {peak} bytes; without FuseEpilogue {other}")
    claim("no plan needs less", peak == memory.activations.lower_bound)
    claim("fusing saved memory", peak < other)


def instructions() -> None:
    """Instruction words

    The program becomes 32-bit words, which the core fetches from its own memory. Symbols have become scalar
    registers: s1 holds `token`, SCALAR computes what depends on it, SIGNAL and WAIT order the engines.
    """
    words = COMPILED.words
    show(disassemble(TARGET, words))
    (_, first), (end, _) = decode_program(TARGET, words)[:2]
    show(f"the {end} words of the first, {first.op}:\n" + " ".join(f"{word:08x}" for word in words[:end]))
    claim("its rows are counted by s1", str(first.fields["rows_o"]) == "s1")
    instrs = [instr for _, instr in decode_program(TARGET, words)]
    claim("decoding and encoding give the same words", encode_program(TARGET, instrs) == words)


def packed_weights() -> None:
    """Packed weights: where one of them went

    Weights are rounded to integers of four bits with one fp16 scale for 128 of them, and laid out so that each
    channel of memory streams exactly what its lanes need, in order. The rule is in doc/architecture.md, "Layouts";
    here one weight is made larger by 1, and the byte that changes is the one that holds it.
    """
    w, grid = WEIGHTS["proj.weight"], quantised()
    show(f"weight {FOLLOWED} is {w[FOLLOWED]:.5f}: the integer {grid.integers()[FOLLOWED]}, which the engine takes for "
         f"{grid.values()[FOLLOWED]:.5f}")  # fmt: skip
    places = np.argwhere(packed() != packed(1))
    claim("one byte changes", len(places) == 1)
    channel, byte = places[0]
    before, after = (int(p[channel, byte]) for p in (packed(), packed(1)))
    show(f"byte {byte} of channel {channel}: {before:#04x} became {after:#04x}")
    claim("four bits of it are the weight, plus 8", before // (after - before) % 16 == grid.codes[FOLLOWED])


def write_constants(device: Any) -> None:
    """What the channel files of an artifact hold, written to the addresses of the memory plan."""
    bases = COMPILED.memory.bases
    device.mem_write(bases["proj.weight"], unstripe(packed(), HBM, packed().size))
    device.mem_write(bases["embed.weight"], pack_rows(WEIGHTS["embed.weight"]))


def start_step(device: Any) -> None:
    """Writes the program and the ids, tells the registers, and starts the core."""
    bases, words, program = COMPILED.memory.bases, COMPILED.words, COMPILED.program
    registers = {name: register.offset for name, register in TARGET.registers.items()}
    stream = bases["stream.step"]
    device.mem_write(stream, np.array(words, np.uint32))
    device.mem_write(bases["ids"], IDS)
    device.csr_write(registers["PROGRAM"], stream // ADDRESS_UNIT)
    device.csr_write(registers["PROGRAM_WORDS"], len(words))
    for index, variable in enumerate(program.args):
        device.csr_write(registers["ARG"] + 4 * index, {"token": IDS.size}.get(variable.name, 0))
    device.csr_write(registers["CONTROL"], 1)


@cache
def finished(engine: type) -> Any:
    """A device of that engine after a step over IDS."""
    device = engine(TARGET)
    write_constants(device)
    start_step(device)
    device.run()
    return device


def simulator() -> None:
    """A step in the simulator

    An engine has what a board has: memory and registers, behind one C interface. The host writes weights, program
    and token ids, puts `token` into an argument register, and sets the start bit; the functions write_constants
    and start_step of this file are all of it.
    """
    device = finished(NativeDevice)
    done = device.counters()
    show(f"{IDS.size} tokens: {done.commands} commands, {done.bytes_read} bytes read, {done.bytes_written} written")
    (offset,) = np.flatnonzero(unstripe(packed() != packed(1), HBM, packed().size))
    address = COMPILED.memory.bases["proj.weight"] + int(offset)
    show(f"memory at {address:#x}: {device.mem_read(address, 1).hex()}")
    claim("the byte of chapter 7 lies there", device.mem_read(address, 1)[0] in packed()[packed() != packed(1)])


def result() -> None:
    """The bytes of the result

    Three computations of the same step: the C++ simulator and the numpy reference of the instruction set, which
    must agree on every byte, and the graph in float32, which they approach. doc/numerics.md says what is exact.
    """
    address, size = COMPILED.memory.bases[GRAPH.outputs["y"].name], 2 * IDS.size * DIM
    raw, reference = (finished(engine).mem_read(address, size) for engine in (NativeDevice, ReferenceDevice))
    y = np.frombuffer(raw, np.float16).reshape(-1, DIM).astype(np.float32)
    rounded = {**WEIGHTS, "proj.weight": quantised().values()}
    same, original = (evaluate(GRAPH, w, {"ids": IDS, "kv_len": 0}, {})["y"] for w in (rounded, WEIGHTS))
    show(f"bytes of row 0 at {address:#x}: {raw[:8].hex(' ', 2)} ...\nas fp16: {y[0, :4]}\nfloat32: {same[0, :4]}")
    claim("simulator and reference agree on every byte", raw == reference)
    error, of_four_bits = (float(np.abs(y - f).max() / np.abs(f).max()) for f in (same, original))
    claim("float32 with the same weights is within half a percent of the largest number", error < 0.005)
    show(f"largest difference: {error:.2%}; with weights that were never rounded: {of_four_bits:.1%}")


GUIDE = {
    "models/stories.py": "a whole model in the style of chapter 1",
    "dlavm/compile.py": "the pipeline on one page",
    "doc/architecture.md": "layers, representations, layouts",
    "doc/numerics.md": "every rounding",
    "doc/isa/v3.md": "the instruction set",
    "doc/extending.md": "an op, a model, a target of your own",
}


def a_real_model() -> None:
    """A step of a real model

    The bundled story model goes the same way, with norms, rotary positions, a KV cache and a head. One program
    serves prompts and single tokens. From here on: `make demo` builds it and tells a story, and this is where
    to read on.
    """
    model = compile_model(load_model(REPOSITORY / "models/stories.py"), TARGET, Options())
    for what, ops in (("ops of the graph", [node.op for node in model.graph.nodes]),
                      ("launches", [s.op for _, s in walk(model.program) if isinstance(s, Launch)])):  # fmt: skip
        show(f"{what}: " + ", ".join(f"{count} {op}" for op, count in Counter(ops).items()))
    show(f"{len(model.words)} words of program, {model.memory.bytes('weights')} bytes of weights")
    claim("it begins as the tour does", model.graph.nodes[0].op == GRAPH.nodes[0].op)
    show(table(("where", "what"), list(GUIDE.items())))
    claim("all of it is there", all((REPOSITORY / place).exists() for place in GUIDE))


CHAPTERS = [a_graph, text_and_verifier, a_pass, lowering, memory_plan, instructions, packed_weights,
            simulator, result, a_real_model]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main("From a graph of three ops to bytes in the simulator's memory.", CHAPTERS))
