"""Random valid programs: every engine command with random shapes, strides, flags and addresses over random memory."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import FORMATS, Format
from dlavm.target import TargetSpec
from dlavm.target.isa import Instr, SReg, encode_program, f32_bits
from dlavm.target.layout import KV_FORMATS, KvLayout, PackedWeights, ceildiv, row_bytes
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.target.tables import ACTIVATIONS, table_bytes

REGION = 1 << 18  # bytes of each region
READ, WRITE, WEIGHTS, CACHE, TABLE, PROGRAM = (i * REGION for i in range(6))
USED = 6 * REGION
ZEROS, INDEX = TABLE + 5 * 16384, TABLE + 6 * 16384  # u32 words that are ids of a table of one row, elements of a row
INDICES = np.random.default_rng(0).integers(0, 300, 1024).astype(np.uint32)
Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A program, as commands and as the words of a stream (none on a target without), and the memory it starts on."""

    memory: NDArray[np.uint8]
    words: list[int]
    program: tuple[Instr, ...] = ()


def random_halves(rng: Rng, count: int) -> NDArray[np.uint16]:
    """Mostly moderate fp16 values, with zeros, subnormals, the largest and exponent 31 among them."""
    values = (rng.standard_normal(count) * np.exp2(rng.integers(-8, 5, count))).astype(np.float16).view(np.uint16)
    wild = rng.random(count) < 0.02
    return np.where(wild, rng.integers(0, 1 << 16, count).astype(np.uint16), values)


@cache
def pool() -> NDArray[np.uint16]:
    """Where the cases take what their programs find in memory: making it anew for each would be most of the time."""
    return random_halves(np.random.default_rng(0), 4 * TABLE)


def random_case(spec: TargetSpec, seed: int, commands: int) -> Case:
    """A program of `commands` engine commands, with fences between them in a stream."""
    rng = np.random.default_rng(seed)
    memory = np.zeros(USED, dtype=np.uint8)
    first = rng.integers(0, pool().size - TABLE // 2)
    memory[:TABLE] = pool()[first:first + TABLE // 2].view(np.uint8)
    memory[INDEX:INDEX + INDICES.nbytes] = INDICES.view(np.uint8)
    functions = rng.permutation(sorted(ACTIVATIONS))[:spec.limits["act_slots"]]
    program = []
    for slot, name in enumerate(functions):
        start = TABLE + slot * 16384
        memory[start:start + 16384] = np.frombuffer(table_bytes(str(name)), dtype=np.uint8)
        program.append(Instr("LOAD_TABLE", {"act_slot": slot, "table": start // ADDRESS_UNIT}))
    makers = [make for make in MAKERS if make.__name__.upper() in spec.commands]
    for _ in range(commands):
        make = makers[rng.integers(len(makers))]
        fields = make(spec, rng)
        program += _through_registers(spec, rng, fields, make) if spec.has("scalars") else [_instr(make, fields)]
        if spec.has("stream"):
            program.append(Instr("FENCE"))
    return case_of(spec, memory, program)


def chained_case(spec: TargetSpec, seed: int, commands: int) -> Case:
    """Mostly LINEARs, without fences: each command waits for the one before it where that is another engine's, and
    `load` only for what was written into weights or a cache since it last waited. So weights are fetched ahead."""
    rng = np.random.default_rng(seed)
    memory = np.zeros(USED, dtype=np.uint8)
    memory[:TABLE] = pool()[:TABLE // 2].view(np.uint8)
    program: list[Instr] = []
    last, written = "", False

    def edge(sink: str) -> None:
        engines = spec.enums["engine"]
        semaphore = engines[last] * len(engines) + engines[sink]
        program.extend(Instr(op, {"engine": engines[of], "sem": semaphore})
                       for op, of in (("SIGNAL", last), ("WAIT", sink)))

    for _ in range(commands):
        make = rng.choice(np.array([linear, linear, linear, linear, kv_append, copy, eltwise]))
        op, fields = make.__name__.upper(), make(spec, rng)
        engine = str(spec.commands[op].engine)
        if op == "LINEAR" and written:
            edge("load")
            written = False
        if last not in ("", engine):
            edge(engine)
        if op in ("COPY", "LINEAR") and rng.random() < 0.4:
            move = ((WEIGHTS if rng.random() < 0.7 else CACHE) - WRITE) // ADDRESS_UNIT
            if op == "COPY" or not _writes_own_weights(fields | {"dst": fields["dst"] + move}):
                if "aux" in fields and fields["aux"] >= WRITE // ADDRESS_UNIT:  # in place
                    fields["aux"] += move
                fields["dst"] += move
                written = True
        written = written or op == "KV_APPEND"
        program.append(_instr(make, fields))
        last = engine
    return case_of(spec, memory, program)


def _writes_own_weights(fields: dict[str, int]) -> bool:
    """Whether a LINEAR's destination overlaps its weights or cache: which of them it then reads is undefined."""
    most = {"so": fields["rows_o"] - 1, "si": fields["rows_i"] - 1, "b": fields["batch"] - 1}
    end = fields["dst"] + row_bytes(fields["n"]) // ADDRESS_UNIT
    end += sum(fields[f"dst_{stride}"] * count for stride, count in most.items())
    return fields["dst"] < fields["wgt"] + fields["batch"] * fields["wgt_b"] and fields["wgt"] < end


def case_of(spec: TargetSpec, memory: NDArray[np.uint8], program: Sequence[Instr]) -> Case:
    """A case of a program without its END. Its stream goes into the memory."""
    if not spec.has("stream"):
        return Case(memory, [], tuple(program))
    words, memory = encode_program(spec, [*program, Instr("END")]), memory.copy()
    memory[PROGRAM:PROGRAM + 4 * len(words)] = np.array(words, dtype=np.uint32).view(np.uint8)
    return Case(memory, words, tuple(program))


def _instr(make: Callable[..., object], fields: dict[str, int]) -> Instr:
    return Instr(make.__name__.upper(), dict[str, int | SReg](fields))


def _through_registers(spec: TargetSpec, rng: Rng, fields: dict[str, int], make: Callable[..., object]) -> list[Instr]:
    """The command, with some of its dynamic fields taken from scalar registers that are set before it."""
    op = make.__name__.upper()
    command = spec.commands[op]
    before, replaced = [], dict[str, int | SReg](fields)
    dynamic = [f.name for f in command.fields if f.dynamic and f.name in fields]
    for register, name in enumerate(rng.permutation(dynamic)[:rng.integers(0, 4)], start=9):
        before.append(Instr("SCALAR", {"fn": spec.enums["scalar_fn"]["mov"], "rd": register, "b": fields[str(name)]}))
        replaced[str(name)] = SReg(register)
    return [*before, Instr(op, replaced)]


def _unit(address: int) -> int:
    assert address % ADDRESS_UNIT == 0
    return address // ADDRESS_UNIT


def _offset(rng: Rng, room: int) -> int:
    return int(rng.integers(0, max(1, room // ADDRESS_UNIT))) * ADDRESS_UNIT


def _rows(rng: Rng, name: str, region: int, outer: int, inner: int, elements: int, size: int = 2) -> dict[str, int]:
    """Addresses of rows that do not overlap, with random gaps, inner rows inside outer ones or the other way round."""
    row = row_bytes(elements, size) + 16 * int(rng.integers(0, 3))
    if rng.random() < 0.5:
        si, so = row, row * inner + 16 * int(rng.integers(0, 3))
    else:
        so, si = row, row * outer + 16 * int(rng.integers(0, 3))
    span = so * (outer - 1) + si * (inner - 1) + row
    base = region + _offset(rng, REGION - span)
    return {name: _unit(base), f"{name}_so": _unit(so), f"{name}_si": _unit(si)}


def _counts(rng: Rng, most: int = 6) -> tuple[int, int]:
    return int(rng.integers(1, most)), int(rng.integers(1, 4))


def _dim(rng: Rng) -> int:
    return int(rng.choice([1, 7, 8, 31, 32, 33, 64, 96, 127, 128, 129, 200, 257, 300]))


def _linear_flags(spec: TargetSpec, rng: Rng, outer: int, inner: int, n: int, batch: int) -> dict[str, int]:
    flags = {name: int(rng.random() < 0.4) for name in ("use_scale", "use_row_scale", "use_bias", "use_act")}
    flags["act_slot"] = int(rng.integers(0, spec.limits["act_slots"]))
    flags["act_bits"] = int(rng.integers(0, 2))
    flags["scale"] = f32_bits(float(rng.choice([0.125, -3.0, 1e-3, 7.7e10])))
    flags["row_scale"] = _unit(READ + _offset(rng, REGION - 4 * batch * outer * inner))
    flags["bias"] = _unit(READ + _offset(rng, REGION - 2 * n))
    if batch == 1:
        flags |= {"aux_mode": int(rng.integers(0, 3)), **_rows(rng, "aux", READ, outer, inner, n)}
    return flags


def _batched(rng: Rng, batch: int, rows: dict[str, int], name: str, outer: int, inner: int, n: int) -> dict[str, int]:
    """Adds a batch stride behind everything that one batch covers."""
    span = rows[f"{name}_so"] * (outer - 1) + rows[f"{name}_si"] * (inner - 1) + row_bytes(n) // ADDRESS_UNIT
    base = READ if name == "src" else WRITE
    rows[name] = _unit(base + _offset(rng, REGION - span * batch * ADDRESS_UNIT))
    return {**rows, f"{name}_b": span}


def linear(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    """LINEAR over packed weights or over the cache, within the board's buffers."""
    products = [product for name in cache_formats(spec) for product in (KV_FORMATS[name].keys, KV_FORMATS[name].values)]
    form = str(rng.choice([str(rng.choice(packed_formats(spec))), *products]))
    outer, inner = _counts(rng)
    fields = {"format": spec.enums["weight_format"][form], "rows_o": outer, "rows_i": inner}
    if form in FORMATS:
        return fields | _packed(spec, rng, outer, inner, FORMATS[form])
    heads, tokens, dim = int(rng.integers(1, 4)), int(rng.integers(1, 150)), int(rng.choice([8, 24, 32, 40, 64]))
    cache = KvLayout(heads, 160, dim, "mxint8" if form.startswith("kvq") else "fp16")
    k, n = (dim, tokens) if form.endswith("_k") else (tokens, dim)
    src = _batched(rng, heads, _rows(rng, "src", READ, outer, inner, k), "src", outer, inner, k)
    dst = _batched(rng, heads, _rows(rng, "dst", WRITE, outer, inner, n), "dst", outer, inner, n)
    return fields | src | dst | {
        "batch": heads, "k": k, "n": n, "wgt": _unit(CACHE + _offset(rng, REGION - cache.bytes)),
        "wgt_tile": _unit(cache.block_bytes), "wgt_b": _unit(cache.head_bytes),
    } | _linear_flags(spec, rng, outer, inner, n, heads)


def packed_formats(spec: TargetSpec) -> list[str]:
    """The formats of packed weights that a target has."""
    return [name for name in spec.enums["weight_format"] if name in FORMATS]


def cache_formats(spec: TargetSpec) -> list[str]:
    """The formats of the KV cache that a target has."""
    return [name for name in KV_FORMATS if spec.has(f"kv_{name}")]


def _packed(spec: TargetSpec, rng: Rng, outer: int, inner: int, form: Format) -> dict[str, int]:
    memory = spec.space("weights")
    n, k, batch = _dim(rng), _dim(rng), int(rng.choice([1, 1, 1, 2]))
    packed = PackedWeights(memory, n, k, form)
    if batch * packed.bytes > REGION:
        batch, n, k = 1, 100, 100
        packed = PackedWeights(memory, n, k, form)
    room = (REGION - batch * packed.bytes) // memory.beat_row
    wgt = WEIGHTS + int(rng.integers(0, max(1, room))) * memory.beat_row
    src = _batched(rng, batch, _rows(rng, "src", READ, outer, inner, k), "src", outer, inner, k)
    dst = _batched(rng, batch, _rows(rng, "dst", WRITE, outer, inner, n), "dst", outer, inner, n)
    flags = _linear_flags(spec, rng, outer, inner, n, batch)
    if "aux" in flags and rng.random() < 0.3:  # in place
        flags |= {"aux" + part: dst["dst" + part] for part in ("", "_so", "_si")}
    return {"batch": batch, "k": k, "n": n, "wgt": _unit(wgt), "wgt_tile": _unit(packed.tile_bytes),
            "wgt_b": _unit(packed.bytes), **src, **dst, **flags}


def norm(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    (outer, inner), dim = _counts(rng), _dim(rng)
    return {"norm": int(rng.integers(0, 2)), "use_beta": int(rng.integers(0, 2)), "rows_o": outer, "rows_i": inner,
            "dim": dim, **_rows(rng, "src", READ, outer, inner, dim), **_rows(rng, "dst", WRITE, outer, inner, dim),
            "gamma": _unit(READ + _offset(rng, REGION - 2 * dim)), "beta": _unit(READ + _offset(rng, REGION - 2 * dim)),
            "eps": f32_bits(float(rng.choice([0.0, 1e-5, 1e-12]))), "inv_n": f32_bits(1 / dim)}


def softmax(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    (outer, inner), width, batch = _counts(rng), _dim(rng), int(rng.integers(1, 4))
    src = _batched(rng, batch, _rows(rng, "src", READ, outer, inner, width), "src", outer, inner, width)
    dst = _batched(rng, batch, _rows(rng, "dst", WRITE, outer, inner, width), "dst", outer, inner, width)
    fields = {**src, **dst, "rows_o": outer, "rows_i": inner, "batch": batch, "width": width,
              "visible": int(rng.integers(1, width + 2)), "window": int(rng.choice([0, 1, 31, 32, 33, width, 1 << 23])),
              "use_slopes": int(rng.integers(0, 2)), "slopes": _unit(READ + _offset(rng, REGION - 4 * batch * inner))}
    first, last, sums = dst["dst"], dst["dst"] + batch * dst["dst_b"] - 1, 4 * batch * outer * inner
    recip = _unit(WRITE + _offset(rng, REGION - sums))
    while first - ceildiv(sums, ADDRESS_UNIT) < recip <= last:  # what overlaps is written in any order
        recip = _unit(WRITE + _offset(rng, REGION - sums))
    return {**fields, "recip": recip}


def rope(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    (outer, inner), dim = _counts(rng), _dim(rng)
    rot = 2 * int(rng.integers(0, dim // 2 + 1))
    table = _rows(rng, "table", READ, outer, 1, max(rot, 1))
    del table["table_si"]
    return {"form": int(rng.integers(0, 2)), "rows_o": outer, "rows_i": inner, "dim": dim, "rot": rot, **table,
            **_rows(rng, "src", READ, outer, inner, dim), **_rows(rng, "dst", WRITE, outer, inner, dim)}


def act(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    (outer, inner), dim = _counts(rng), _dim(rng)
    return {"act_slot": int(rng.integers(0, 4)), "rows_o": outer, "rows_i": inner, "dim": dim,
            **_rows(rng, "src", READ, outer, inner, dim), **_rows(rng, "dst", WRITE, outer, inner, dim)}


def eltwise(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    (outer, inner), dim = _counts(rng), _dim(rng)
    return {"fn": int(rng.integers(0, 3)), "rows_o": outer, "rows_i": inner, "dim": dim,
            "scale": f32_bits(float(rng.choice([0.5, -1e4, 1e-7]))), **_rows(rng, "b", READ, outer, inner, dim),
            **_rows(rng, "src", READ, outer, inner, dim), **_rows(rng, "dst", WRITE, outer, inner, dim)}


def argmax(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    rows, n = int(rng.integers(1, 6)), _dim(rng)
    src = _rows(rng, "src", READ, rows, 1, n)
    return {"src": src["src"], "src_so": src["src_so"], "rows_o": rows, "n": n,
            "dst": _unit(WRITE + _offset(rng, REGION - 4 * rows))}


def topk(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    rows, n = int(rng.integers(1, 6)), _dim(rng)
    k, src = int(rng.integers(1, min(n, 12) + 1)), _rows(rng, "src", READ, rows, 1, n)
    ids, weights = (_unit(WRITE + half * REGION // 2 + _offset(rng, REGION // 2 - 4 * rows * k)) for half in (0, 1))
    return {"renormalize": int(rng.integers(0, 2)), "src": src["src"], "src_so": src["src_so"], "rows_o": rows, "n": n,
            "k": k, "ids": ids, "weights": weights}


def permute(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    (outer, inner), dim, start = _counts(rng), _dim(rng), 4 * int(rng.integers(0, 180))
    limit = int(INDICES[start:start + dim].max()) + 1
    return {"rows_o": outer, "rows_i": inner, "dim": dim, "limit": limit, "index": _unit(INDEX + 4 * start),
            **_rows(rng, "src", READ, outer, inner, limit), **_rows(rng, "dst", WRITE, outer, inner, dim)}


def kv_append(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    (outer, inner), dim = _counts(rng), int(rng.choice([8, 24, 32, 40, 64, 96]))
    format = str(rng.choice(cache_formats(spec)))
    cache = KvLayout(inner, 160, dim, format)
    return {"format": spec.enums["kv_format"][format],
            "rows_o": outer, "rows_i": inner, "dim": dim, "pos": int(rng.integers(0, 160 - outer)),
            "cache": _unit(CACHE + _offset(rng, REGION - cache.bytes)), "cache_head": _unit(cache.head_bytes),
            **_rows(rng, "src", READ, outer, inner, dim)}


def gather(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    """Ids come from memory that is random: a table of 2^24 rows in one place makes every id below the limit valid only
    where ids are small, so the ids are taken from the zero words behind the activation tables."""
    rows, dim = int(rng.integers(1, 6)), _dim(rng)
    dst = _rows(rng, "dst", WRITE, rows, 1, dim)
    return {"ids": _unit(ZEROS), "table": _unit(READ + _offset(rng, REGION - 2 * dim)), "rows_o": rows,
            "dim": dim, "table_so": ceildiv(2 * dim, 16), "limit": 1, "dst": dst["dst"], "dst_so": dst["dst_so"]}


def copy(spec: TargetSpec, rng: Rng) -> dict[str, int]:
    (outer, inner), dim = _counts(rng), _dim(rng)
    return {"rows_o": outer, "rows_i": inner, "dim": dim, **_rows(rng, "src", READ, outer, inner, dim),
            **_rows(rng, "dst", WRITE, outer, inner, dim)}


MAKERS: list[Callable[[TargetSpec, Rng], dict[str, int]]] = [
    linear, linear, linear, norm, softmax, rope, act, eltwise, argmax, topk, permute, kv_append, gather, copy]
