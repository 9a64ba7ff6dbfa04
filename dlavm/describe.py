"""What an artifact's manifest says of a compiled model, and what its host driver is told."""
from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dlavm.codegen import Code
from dlavm.codegen.cpp import expression, statements
from dlavm.codegen.host import HostCache, HostContext, HostFile, HostPatch, HostPort, HostStream, HostTable
from dlavm.graph import Graph
from dlavm.lower import BATCH_INPUTS, Lowered, Rows
from dlavm.memory import MemoryMap
from dlavm.pack.artifact import TOKENIZER_FILE
from dlavm.pack.emit import TABLES_FILE, Extent
from dlavm.pack.manifest import (
    Blob,
    Entry,
    Image,
    KvRegion,
    Manifest,
    MemoryUse,
    ModelInfo,
    Port,
    Sequences,
    Table,
    TensorInfo,
)
from dlavm.pack.manifest import Program as ProgramInfo
from dlavm.sym import Expr, substitute, wrap
from dlavm.target import TargetSpec
from dlavm.target.layout import KV_FORMATS
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task import Program, base_of

ENTRY = "step"


@dataclass(frozen=True)
class CompiledEntry:
    """A way into a model: its code, and inclusive bounds of the arguments that it is made for, in their order."""

    bounds: Mapping[str, tuple[int, int]]
    code: Code


def describe(graph: Graph, lowered: Lowered, program: Program, memory: MemoryMap, spec: TargetSpec,
             entries: Mapping[str, CompiledEntry], *, name: str, quant: str, images: tuple[Image, ...],
             tables: Extent) -> Manifest:
    """The manifest but for the hashes of the files."""
    programs = {name: _program(name, one.code, memory) for name, one in entries.items()}
    streams = [Blob(p.file, p.address, 4 * p.words) for p in programs.values() if p.words]
    sequences = _sequences(memory, spec)
    blobs = (Blob(TABLES_FILE, tables.address, tables.bytes),) if tables.bytes else ()
    return Manifest(
        name=name, target=spec.name, board=spec.board.name, target_hash=spec.hash, quant=quant,
        model=model_info(graph), tensors=tensors(graph, lowered, program, memory), images=images,
        blobs=(*blobs, *streams), programs=programs,
        entries={name: _entry(graph, lowered, name, one, memory, sequences) for name, one in entries.items()},
        kv=tuple(KvRegion(n, memory.bases[n], kv.heads, kv.head_bytes, kv.block_bytes, kv.format)
                 for n, kv in lowered.kv.items()),
        sequences=sequences,
        memory=_memory_use(lowered, memory, spec, sum(p.words for p in programs.values())))


def _program(entry: str, code: Code, memory: MemoryMap) -> ProgramInfo:
    if not code.words:
        return ProgramInfo(code.control, f"program/{entry}.task")
    patches = f"program/{entry}.patches.json" if code.patches else ""
    return ProgramInfo(code.control, f"program/{entry}.bin", memory.bases[stream_name(entry)], len(code.words), patches)


def stream_name(entry: str) -> str:
    """The buffer that holds the stream of an entry."""
    return f"stream.{entry}"


def model_info(graph: Graph) -> ModelInfo:
    """The shape of the model, read off a graph that has what sessions want (`interface_problems`)."""
    attention = [n for n in graph.nodes if n.op == "attention"]
    embedding = next(n for n in graph.nodes if n.op == "embedding")
    kv_heads, ctx, head_dim = (int(x) for x in graph.kv[0].type.shape)
    meta = dict(graph.meta)
    eos = meta.pop("eos_token_ids", None) or []
    bos = meta.pop("bos_token_id", None)
    known = {"vocab_size", "hidden_size", "layers", "heads", "kv_heads", "head_dim", "ctx", "chunk", "family"}
    return ModelInfo(
        family=str(meta.get("family", "custom")),
        vocab_size=int(graph.outputs["logits"].type.shape[-1]),
        hidden_size=int(embedding.output.type.shape[-1]),
        layers=len(attention),
        heads=int(attention[0]["q"].type.shape[1]),
        kv_heads=kv_heads, head_dim=head_dim, ctx=ctx, chunk=graph.variables["token"].hi,
        bos_token_id=bos if isinstance(bos, int) else None,
        eos_token_ids=tuple(int(str(e)) for e in (eos if isinstance(eos, list) else [eos])),
        extra={k: v for k, v in meta.items() if k not in known and v is not None})


def _sequences(memory: MemoryMap, spec: TargetSpec) -> Sequences:
    """As many caches as fit between the first one and the end of the memory."""
    first, space = memory.region("kv"), spec.space("kv")
    return Sequences((space.base + space.capacity - first.base) // first.bytes, first.bytes)


def tensors(graph: Graph, lowered: Lowered, program: Program, memory: MemoryMap) -> tuple[TensorInfo, ...]:
    """The buffers as they were lowered, layer by layer, and what layers share once they are rolled."""
    values = graph.values
    apart = [b for b in lowered.program.buffers if b.name in memory.bases]
    shared = [b for b in program.buffers if b.copies == 1 and b.name not in lowered.program.buffer]
    return tuple(
        TensorInfo(b.name, b.role, memory.bases[b.name], b.bytes, b.dtype,
                   tuple(x.hi for x in values[b.name].type.shape) if b.name in values else ())
        for b in (*apart, *shared))


def _entry(
    graph: Graph, lowered: Lowered, name: str, entry: CompiledEntry, memory: MemoryMap, sequences: Sequences
) -> Entry:
    chunk = graph.variables["token"].hi
    inputs: dict[str, Port] = {}
    tables: dict[str, Table] = {}
    for label, source in lowered.inputs.items():
        address = memory.bases[source.buffer]
        inputs[label] = _half_port(address, source.rows) if source.table else Port(address, "u32", chunk)
        if source.table:
            param = next(p for p in graph.params if p.name == source.table)
            tables[label] = Table(param.name, table_file(label), int(param.type.shape[0]))
    outputs = {}
    for label, out in lowered.outputs.items():
        address = _address(out.base, memory.bases)
        is_ids = graph.outputs[label].type.dtype == "i32"
        outputs[label] = Port(address, "u32", chunk) if is_ids else _half_port(address, out)
    bounds = dict(entry.bounds)
    if "kv_base" in bounds:
        bounds["kv_base"] = (0, (sequences.count - 1) * sequences.stride // ADDRESS_UNIT)
    else:  # of several sequences, each with its own
        inputs |= {label: Port(memory.bases[label], "u32", bounds["token"][1]) for label in BATCH_INPUTS}
    return Entry(name, tuple(bounds), bounds, inputs, outputs, tables)


def table_file(label: str) -> str:
    """The file of the rows from which the host makes an input."""
    return f"weights/{label}.bin"


def _half_port(address: int, rows: Rows) -> Port:
    return Port(address, "f16", rows.outer.hi, rows.inner * rows.dim, rows.outer_stride * ADDRESS_UNIT)


def _address(base: Expr, bases: Mapping[str, int]) -> int:
    """Byte address of an expression over buffer bases."""
    known = {base_of(n): wrap(address // ADDRESS_UNIT) for n, address in bases.items()}
    return int(substitute(base, known)) * ADDRESS_UNIT


def _memory_use(lowered: Lowered, memory: MemoryMap, spec: TargetSpec, words: int) -> MemoryUse:
    weights = sum(b.bytes for b in lowered.program.buffers if b.role == "weights")
    plan = memory.activations
    return MemoryUse(weights_bytes=weights, kv_bytes=sum(k.bytes for k in lowered.kv.values()),
                     activation_peak_bytes=plan.peak, activation_lower_bound_bytes=plan.lower_bound,
                     program_bytes=4 * words, capacity_bytes=spec.space("weights").capacity)


def host_context(manifest: Manifest, spec: TargetSpec, codes: Mapping[str, Code]) -> HostContext:
    """What the C++ project states of the artifact. `codes`: by entry; those for one sequence are used."""
    model, entry = manifest.model, manifest.entries[ENTRY]
    code = codes[ENTRY]
    streams = {p.file for p in manifest.programs.values()}
    single = sorted((e for e in manifest.entries.values() if e.is_single), key=lambda e: e.most_tokens)
    table = entry.tables.get("ids")
    following = entry.outputs.get("next")
    return HostContext(
        spec=spec, name=manifest.name, quant=manifest.quant, vocab_size=model.vocab_size, ctx=model.ctx,
        chunk=model.chunk, eos_token_ids=model.eos_token_ids,
        images=tuple(HostFile(i.file, i.address, i.bytes, i.channel) for i in manifest.images),
        blobs=tuple(HostFile(b.file, b.address, b.bytes) for b in manifest.blobs if b.file not in streams),
        control=code.control,
        streams=tuple(_host_stream(e, manifest.programs[e.program], codes[e.program]) for e in single if code.words),
        statements=tuple(statements(code.program, spec)) if code.program else (),
        table=HostTable(table.file, table.rows) if table else None, ids=_host_port(entry.inputs["ids"]),
        logits=_host_port(entry.outputs["logits"]), next=_host_port(following) if following else None,
        caches=tuple(HostCache(k.address, k.heads, k.head_bytes, k.block_bytes) for k in manifest.kv),
        cache_format=KV_FORMATS[manifest.kv[0].format],
        sequences=manifest.sequences.count, sequence_stride=manifest.sequences.stride,
        model_id=manifest.model_id, tokenizer_id=manifest.files.get(TOKENIZER_FILE, ""))


def _host_stream(entry: Entry, program: ProgramInfo, code: Code) -> HostStream:
    bounds = {name: entry.bounds[name] for name in entry.args}
    crc = zlib.crc32(np.array(code.words, dtype="<u4").tobytes())
    patches = tuple(HostPatch(expression(expr), offsets) for expr, offsets in code.patches.items())
    place = program.file, program.address, program.words
    return HostStream(entry.program, *place, crc, entry.most_tokens, bounds, patches)


def _host_port(port: Port) -> HostPort:
    return HostPort(port.address, port.rows, port.columns, port.stride)
