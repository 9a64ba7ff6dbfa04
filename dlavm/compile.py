"""The compiler: model -> graph -> passes -> task program -> memory map -> stream -> artifact. Read PIPELINE first."""
from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.codegen import Code, generate
from dlavm.codegen.host import render_host
from dlavm.describe import ENTRY, CompiledEntry, describe, host_context, stream_name, table_file
from dlavm.formats import FORMATS
from dlavm.frontend import Model, WeightSource
from dlavm.graph import Graph, Value, print_graph
from dlavm.graph.constants import constant_array
from dlavm.graph.interface import interface_problems
from dlavm.lower import Lowered, lower
from dlavm.memory import MemoryMap, alignments, assign, check_addresses, check_capacity, displaced, settled
from dlavm.memory.csv import to_csv
from dlavm.pack.artifact import HOST, Producer
from dlavm.pack.emit import Constant, Extent, dense_rows, images_of, write_artifact
from dlavm.pack.losses import Loss, Record, summary
from dlavm.pack.manifest import Manifest
from dlavm.pack.sources import Tensor
from dlavm.passes import (
    Canonicalise,
    Cse,
    Dce,
    FoldConstants,
    FoldScale,
    FuseEpilogue,
    FuseHorizontal,
    LastTokens,
    MaterialiseViews,
    OrderForMemory,
    Pass,
    run,
)
from dlavm.quant import AUTO, DEFAULT_KV, cache_format, quantisation, used_formats
from dlavm.report import render
from dlavm.schedule import schedule
from dlavm.support.atomic import MANIFEST_NAME
from dlavm.support.errors import DlavmError
from dlavm.support.kept import stamp
from dlavm.support.memory import peak_rss
from dlavm.support.stages import write_stage
from dlavm.target import TargetSpec
from dlavm.target.isa import WORD_MASK, disassemble
from dlavm.target.schema import ADDRESS_UNIT
from dlavm.target.tables import table_bytes
from dlavm.task import Buffer, Program, Rolled, print_program, restrict, roll, share_in_place, simplify, verify

DEFAULT_CHUNK = 128  # tokens of one prefill step at most
FLAT_CHUNK = 16  # where the stream has commands for each of them
DECODE = "decode"  # the entry for one token, where it is worth its own stream
BATCH = "batch"  # the entry for a token of each of several sequences
BATCH_NEEDS = ("scalars", "loops", "token_batch")
MAX_BATCH = 8
ONE_TOKEN = {"token": (1, 1), "head_rows": (0, 1)}
DEFAULT_CTX = 2048  # where neither user nor model says


@dataclass(frozen=True)
class Options:
    """What the user may choose. `ctx`: cached positions (default: what the model was trained for, up to 2048 unless
    asked for more); `chunk`: tokens a step at most; `quant`: a format of weights, a JSON file of formats by tensor, or
    auto; `kv`: the format of the KV cache; `rolls`: equal layers become a loop."""

    ctx: int | None = None
    chunk: int | None = None
    quant: str = AUTO
    kv: str = DEFAULT_KV
    rolls: bool = True

    def sizes(self, model: Model, spec: TargetSpec | None = None) -> tuple[int, int]:
        """Context and chunk. Without a spec, a chunk for any target."""
        most = FLAT_CHUNK if spec and is_flat(spec) else DEFAULT_CHUNK
        ctx = self.ctx if self.ctx is not None else min(model.max_ctx or DEFAULT_CTX, DEFAULT_CTX)
        chunk = self.chunk if self.chunk is not None else min(most, ctx)
        for name, value in (("ctx", ctx), ("chunk", chunk)):
            if value < 1:
                raise DlavmError(f"--{name}: expected a positive number, got {value!r}")
        if chunk > ctx:
            raise DlavmError(f"--chunk: expected at most the context of {ctx} positions, got {chunk!r}")
        return ctx, chunk


def pipeline(options: Options, spec: TargetSpec, weights: WeightSource | None = None) -> list[Pass]:
    """From the graph as it was written to one that `lower` takes, in this order. Raises DlavmError for options that the
    target does not have."""
    return [
        Canonicalise(),
        FoldConstants(),
        FoldScale(),
        Cse(),
        Dce(),  # what nobody needs shall not keep rows alive
        LastTokens(),
        FuseEpilogue(),
        quantisation(options.quant, spec, weights),
        cache_format(options.kv, spec),
        FuseHorizontal(spec.space("weights")),  # of the same format
        MaterialiseViews(),  # behind all that makes and merges views
        OrderForMemory(spec),
    ]


@dataclass(frozen=True)
class Compiled:
    """Everything the artifact is made of but the weights."""

    spec: TargetSpec
    graph: Graph
    lowered: Lowered
    program: Program
    memory: MemoryMap  # also of the buffers that `program` has copies for
    entries: Mapping[str, CompiledEntry]

    @property
    def words(self) -> list[int]:
        """The stream of a step; empty where the host writes registers."""
        return self.entries[ENTRY].code.words

    def texts(self) -> dict[str, str]:
        """The text forms that go along in the artifact."""
        return {
            "graph.txt": print_graph(self.graph),
            "task.txt": print_program(self.program, self.spec),
            "asm.txt": _assembly(self.spec, self.entries[ENTRY].code),
        }


def _assembly(spec: TargetSpec, code: Code) -> str:
    return print_program(code.program, spec) if code.program else disassemble(spec, code.words, code.places)


def compile_model(model: Model, spec: TargetSpec, options: Options, for_sessions: bool = False) -> Compiled:
    """Compiles without touching weights or files. Raises DlavmError naming op or tensor, expectation and finding, and
    for a board that is too small unless only shapes are wanted; `for_sessions`: for a graph that none can drive too."""
    ctx, chunk = options.sizes(model, spec)
    passes = pipeline(options, spec, model.weights)
    written = model.graph(ctx, chunk)
    for what in interface_problems(written, ctx, chunk) if for_sessions else ():
        raise DlavmError(f"model {model.name}: {what}")
    graph, batch = run(passes, written), None
    if chunk > 1 and spec.has(*BATCH_NEEDS):
        batch = run(passes, model.graph(ctx, min(chunk, MAX_BATCH)), f"{BATCH}-")
    compiled = compile_graph(graph, spec, options, batch)
    if not model.shapes_only:
        check_capacity(compiled.memory, spec)
    return compiled


def compile_graph(graph: Graph, spec: TargetSpec, options: Options, batch: Graph | None = None) -> Compiled:
    """The same from the graph behind the passes on. `batch`: the graph for a token of each of several sequences."""
    lowered, rolled, program = _tasks(lower(graph, spec), spec, options)
    more = {BATCH: _tasks(lower(batch, spec, batch=True), spec, options, f"{BATCH}-")[2]} if batch else {}
    memory, entries = _place(program, spec, more)
    write_stage("memory.csv", lambda: to_csv(memory.intervals, memory.activations.offsets))
    for name, entry in entries.items():
        write_stage("asm.txt" if name == ENTRY else f"asm-{name}.txt", partial(_assembly, spec, entry.code))
    return Compiled(spec, graph, lowered, program, memory.with_copies(program, rolled.copies), entries)


def _tasks(lowered: Lowered, spec: TargetSpec, options: Options, prefix: str = "") -> tuple[Lowered, Rolled, Program]:
    """The passes over the task program; it is verified in the end."""
    check_addresses(lowered.program)
    _dump(f"{prefix}task-00-lowered", lowered.program, spec)
    shared = share_in_place(lowered.program, spec)
    _dump(f"{prefix}task-01-shared", shared, spec)
    rolled = roll(shared, alignments(spec)) if options.rolls and not is_flat(spec) else Rolled(shared)
    _dump(f"{prefix}task-02-rolled", rolled.program, spec)
    simplified = simplify(rolled.program)
    _dump(f"{prefix}task-03-simplified", simplified, spec)
    program = schedule(simplified, spec)
    _dump(f"{prefix}task-04-scheduled", program, spec)
    verify(program, spec)
    return lowered, rolled, program


def _dump(name: str, program: Program, spec: TargetSpec) -> None:
    write_stage(f"{name}.txt", partial(print_program, program, spec))


def is_flat(spec: TargetSpec) -> bool:
    """Whether loops have to be written out, for as many turns as there can be."""
    return spec.has("stream") and not spec.has("loops")


def _place(
    program: Program, spec: TargetSpec, more: Mapping[str, Program]
) -> tuple[MemoryMap, dict[str, CompiledEntry]]:
    """Addresses of all buffers and streams, and the code for the program and `more` entries."""
    every = {arg.name: (arg.lo, arg.hi) for arg in program.args}
    bounds = {DECODE: every | ONE_TOKEN, ENTRY: every} if is_flat(spec) and "token" in every else {ENTRY: every}
    programs = {name: simplify(restrict(program, b)) if b != every else program for name, b in bounds.items()}
    programs |= more
    bounds |= {name: {arg.name: (arg.lo, arg.hi) for arg in one.args} for name, one in more.items()}
    lengths = {name: _length(one, spec) for name, one in programs.items()}
    while True:
        streams = [Buffer(stream_name(name), "program", 4 * n, f"u32[{n}]") for name, n in lengths.items() if n]
        memory = assign(program, spec, streams, list(more.values()))
        bases = dict(zip(more, memory.others, strict=True))
        codes = {name: generate(one, spec, bases.get(name, memory.bases)) for name, one in programs.items()}
        if all(len(code.words) <= lengths[name] for name, code in codes.items()):
            return memory, {name: CompiledEntry(bounds[name], code) for name, code in codes.items()}
        lengths = {name: max(lengths[name], len(code.words)) for name, code in codes.items()}


def _length(program: Program, spec: TargetSpec) -> int:
    """Words of the stream, as a first guess: two addresses that happen to be equal share a register, so a stream may
    be longer with other bases. These lie so far apart that hardly any are equal."""
    apart = ADDRESS_UNIT * (WORD_MASK // (len(program.buffers) + 2))
    return len(generate(program, spec, {b.name: (i + 1) * apart for i, b in enumerate(program.buffers)}).words)


def build(model: Model, spec: TargetSpec, options: Options, out: Path | None) -> dict[str, Any]:
    """Compiles and writes the artifact `out`, whole or not at all; None writes nothing, and needs no weights. Returns
    the object that `build --json` prints."""
    if out is not None:
        model.needed_weights()
    started = time.perf_counter()
    compiled = compile_model(model, spec, options, for_sessions=True)
    manifest = _described(compiled, model, options)
    compile_s = time.perf_counter() - started
    losses: list[Loss] = []
    if out is not None:
        _write(compiled, model, manifest, out, losses.append)
    memory = manifest.memory
    return {
        "artifact": None if out is None else str(out),
        "target": spec.name, "board": spec.board.name, "target_hash": spec.hash,
        "program_bytes": memory.program_bytes, "weights_bytes": memory.weights_bytes,
        "activation_peak_bytes": memory.activation_peak_bytes,
        "activation_lower_bound_bytes": memory.activation_lower_bound_bytes,
        "activation_memory": settled(spec, compiled.memory).space("activations").name, "kv_bytes": memory.kv_bytes,
        "compile_s": compile_s, "pack_s": time.perf_counter() - started - compile_s,
        "peak_rss_bytes": peak_rss(), "quantised": summary(losses),
        "notes": [*model.notes, *displaced(spec, compiled.memory), *_shortage(compiled)],
    }


def _shortage(compiled: Compiled) -> list[str]:
    """What shapes without weights, which are compiled for any board, would lack on theirs."""
    try:
        check_capacity(compiled.memory, compiled.spec)
    except DlavmError as error:
        return [str(error)]
    return []


def _described(compiled: Compiled, model: Model, options: Options) -> Manifest:
    spec, memory = compiled.spec, compiled.memory
    return describe(compiled.graph, compiled.lowered, compiled.program, memory, spec, compiled.entries,
                    name=model.name, quant=used_formats(compiled.graph), tables=_extent(memory, "tables"),
                    images=images_of(spec.space("weights"), _extent(memory, "weights")))


def _write(compiled: Compiled, model: Model, manifest: Manifest, out: Path, record: Record) -> None:
    weights, tables = (_extent(compiled.memory, role) for role in ("weights", "tables"))
    write_artifact(out, manifest, compiled.spec.space("weights"), weights, tables, list(constants(compiled, model)),
                   _files(compiled, model, manifest), partial(_texts, compiled), model.tokenizer,
                   stamp(Path(model.needed_weights().place)), record)


def _files(compiled: Compiled, model: Model, manifest: Manifest) -> Iterator[tuple[str, bytes | Producer]]:
    """The programs, and the tables from which the host takes rows."""
    for name, entry in compiled.entries.items():
        info, code = manifest.programs[name], entry.code
        if code.program:
            yield info.file, print_program(code.program, compiled.spec).encode()
            continue
        yield info.file, np.array(code.words, dtype="<u4").tobytes()
        if code.patches:
            rows = ",\n".join(json.dumps([str(expr), offsets]) for expr, offsets in code.patches.items())
            yield info.patches, f"[\n{rows}\n]\n".encode()
    params = {p.name: p for p in compiled.graph.params}
    for label, source in compiled.lowered.inputs.items():
        if source.table:
            table = params[source.table]
            shape = int(table.type.shape[0]), int(table.type.shape[1])
            yield table_file(label), dense_rows(Constant(table.name, 0, "rows", shape, _tensors(table, model)))


def _texts(compiled: Compiled, manifest: Manifest) -> dict[str, str]:
    texts = {**compiled.texts(), **_host(compiled, manifest)}
    texts["report.html"] = render(manifest, compiled.program, compiled.memory, compiled.spec, compiled.words,
                                  [MANIFEST_NAME, *texts])
    return texts


def _host(compiled: Compiled, manifest: Manifest) -> dict[str, str]:
    """The C++ project."""
    context = host_context(manifest, compiled.spec, {name: entry.code for name, entry in compiled.entries.items()})
    return {f"{HOST}/{name}": text for name, text in render_host(context).items()}


def _extent(memory: MemoryMap, role: str) -> Extent:
    """The region of a role; empty where the program has no such buffer."""
    found = [r for r in memory.regions if r.role == role]
    return Extent(found[0].base, found[0].bytes) if found else Extent(0, 0)


def constants(compiled: Compiled, model: Model) -> Iterator[Constant]:
    """Every constant buffer with the tensors that belong into it."""
    params = {p.name: p for p in compiled.graph.params}
    computed = {c.value.name: c for c in compiled.graph.constants}
    for buffer, content in compiled.lowered.contents.items():
        kind, format = content.kind, None
        if content.kind == "activation":
            kind, parts = "raw", _computed(buffer, partial(np.frombuffer, table_bytes(content.name), np.uint8))
        elif content.kind == "floats":
            kind, parts = "raw", _computed(buffer, partial(np.array, content.values, np.float32))
        elif content.name in computed:
            parts = _computed(buffer, partial(constant_array, computed[content.name]))
        else:
            parts = _tensors(params[content.name], model)
            format = FORMATS.get(params[content.name].type.dtype)
        yield Constant(buffer, compiled.memory.bases[buffer], kind, content.dims, parts, format, content.count)


def _computed(name: str, make: Callable[[], NDArray[Any]]) -> tuple[Tensor, ...]:
    """What the compiler computes, once."""
    array = cache(make)
    return (Tensor(name, array().shape, lambda rows: array()[rows]),)


def _tensors(param: Value, model: Model) -> tuple[Tensor, ...]:
    weights = model.needed_weights()
    return tuple(Tensor(name, shape, partial(weights.get, name), partial(weights.grid, name), weights.note(name))
                 for name, shape in param.tensors)  # fmt: skip
