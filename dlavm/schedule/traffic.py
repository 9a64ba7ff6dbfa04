"""What one command multiplies and touches, from its fields alone: MACs, and the bytes of each operand.

The rules are those of the core's counters BYTES_READ and BYTES_WRITTEN (doc/numerics.md section 11): weights and cached
keys and values as they are stored, whole tiles and whole blocks of 32 tokens; other operands once a command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dlavm.formats import BLOCK, FORMATS
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.target.layout import KV_FORMATS, KV_PRODUCTS, PackedWeights, ceildiv
from dlavm.target.tables import SEGMENTS

HALF, WORD = 2, 4  # bytes of an fp16; of an fp32, an index


@dataclass(frozen=True)
class Operand:
    """`bytes` that a command reads or writes from the address in its field `name` on."""

    name: str
    bytes: int
    write: bool = False


class Fields:
    """The fields of one command; those left out are zero."""

    def __init__(self, values: Mapping[str, int], spec: TargetSpec) -> None:
        self._values = values
        self.spec = spec

    def __getitem__(self, name: str) -> int:
        return self._values.get(name, 0)

    def is_enum(self, name: str, enum: str, value: str) -> bool:
        return self[name] == self.spec.enums[enum][value]

    @property
    def rows(self) -> int:
        """Rows of all batches but the batches themselves."""
        return self["rows_o"] * self["rows_i"]


_Rule = Callable[[Fields], Iterable[Operand]]


def operands(op: str, values: Mapping[str, int], spec: TargetSpec) -> tuple[Operand, ...]:
    """The operands of a command that has any bytes. Raises DlavmError for a command without a rule."""
    if op not in RULES:
        raise DlavmError(f"report: expected one of the commands {sorted(RULES)!r}, got {op!r}")
    return tuple(o for o in RULES[op](Fields(values, spec)) if o.bytes > 0)


def macs(op: str, values: Mapping[str, int]) -> int:
    """Multiply-accumulates that a command asks for, without the padding of tiles and blocks."""
    if op != "LINEAR":
        return 0
    rows = values.get("rows_o", 0) * values.get("rows_i", 0) * values.get("batch", 0)
    return rows * values.get("n", 0) * values.get("k", 0)


def kind(op: str, values: Mapping[str, int], spec: TargetSpec) -> str:
    """The command, and for a product what its weights are: `LINEAR kv_k`."""
    if op != "LINEAR":
        return op
    return f"{op} {weight_format(values.get('format', 0), spec)}"


def weight_format(number: int, spec: TargetSpec) -> str:
    """Its name."""
    return next(name for name, value in spec.enums["weight_format"].items() if value == number)


def _linear(f: Fields) -> Iterable[Operand]:
    rows = f["batch"] * f.rows
    if rows * f["n"] == 0:
        return
    yield Operand("wgt", f["batch"] * _weight_bytes(f))
    yield Operand("src", rows * HALF * f["k"])
    if f["acc_out"]:
        return
    if f["use_row_scale"]:
        yield Operand("row_scale", rows * WORD)
    if f["use_bias"]:
        yield Operand("bias", HALF * f["n"])
    if not f.is_enum("aux_mode", "aux_mode", "none"):
        yield Operand("aux", f.rows * HALF * f["n"])
    yield Operand("dst", rows * HALF * f["n"], write=True)


def _weight_bytes(f: Fields) -> int:
    name = weight_format(f["format"], f.spec)
    if name in FORMATS:
        return PackedWeights(f.spec.space("weights"), f["n"], f["k"], FORMATS[name]).bytes
    stored = KV_PRODUCTS[name]
    tokens, dim = (f["n"], f["k"]) if name == stored.keys else (f["k"], f["n"])
    return ceildiv(tokens, BLOCK) * ceildiv(dim, BLOCK) * stored.unit_bytes


def _rows(f: Fields) -> Iterable[Operand]:
    yield Operand("src", f.rows * HALF * f["dim"])
    yield Operand("dst", f.rows * HALF * f["dim"], write=True)


def _norm(f: Fields) -> Iterable[Operand]:
    yield from _rows(f)
    if f.rows:
        yield Operand("gamma", HALF * f["dim"])
        yield Operand("beta", HALF * f["dim"] * f["use_beta"])


def _softmax(f: Fields) -> Iterable[Operand]:
    rows = f["batch"] * f["rows_i"]
    ends = (min(f["visible"] + o, f["width"]) for o in range(f["rows_o"]))
    seen = sum(min(end, f["window"] or end) for end in ends)
    yield Operand("src", rows * HALF * seen)
    if f["rows_o"]:
        yield Operand("slopes", rows * WORD * f["use_slopes"])
    yield Operand("dst", rows * f["rows_o"] * HALF * f["width"], write=True)
    yield Operand("recip", rows * f["rows_o"] * WORD, write=True)


def _rope(f: Fields) -> Iterable[Operand]:
    yield from _rows(f)
    if f.rows * f["dim"]:
        yield Operand("table", f["rows_o"] * HALF * f["rot"])


def _eltwise(f: Fields) -> Iterable[Operand]:
    yield from _rows(f)
    if not f.is_enum("fn", "eltwise_fn", "scale"):
        yield Operand("b", f.rows * HALF * f["dim"])


def _argmax(f: Fields) -> Iterable[Operand]:
    if f["n"]:
        yield Operand("src", f["rows_o"] * HALF * f["n"])
        yield Operand("dst", f["rows_o"] * WORD, write=True)


def _permute(f: Fields) -> Iterable[Operand]:
    yield Operand("src", f.rows * HALF * f["limit"] * bool(f["dim"]))
    yield Operand("index", WORD * f["dim"] * bool(f.rows))
    yield Operand("dst", f.rows * HALF * f["dim"], write=True)


def _topk(f: Fields) -> Iterable[Operand]:
    if f["n"] and f["k"]:
        yield Operand("src", f["rows_o"] * HALF * f["n"])
        for name in ("ids", "weights"):
            yield Operand(name, f["rows_o"] * WORD * f["k"], write=True)


def _kv_append(f: Fields) -> Iterable[Operand]:
    yield Operand("src", f.rows * HALF * f["dim"])
    stored = KV_FORMATS[next(name for name, number in f.spec.enums["kv_format"].items() if number == f["format"])]
    row = ceildiv(f["dim"], BLOCK) * (stored.row_bytes + stored.exponent_bytes)
    yield Operand("cache", f.rows * (row if stored.exponent_bytes else HALF * f["dim"]), write=True)


def _gather(f: Fields) -> Iterable[Operand]:
    if f["dim"]:
        yield Operand("ids", f["rows_o"] * WORD)
        yield Operand("table", f["rows_o"] * HALF * f["dim"])
        yield Operand("dst", f["rows_o"] * HALF * f["dim"], write=True)


def _load_table(f: Fields) -> Iterable[Operand]:
    yield Operand("table", SEGMENTS * 2 * WORD)


RULES: dict[str, _Rule] = {
    "LINEAR": _linear, "NORM": _norm, "SOFTMAX": _softmax, "ROPE": _rope, "ACT": _rows, "ELTWISE": _eltwise,
    "ARGMAX": _argmax, "PERMUTE": _permute, "TOPK": _topk, "KV_APPEND": _kv_append, "GATHER": _gather, "COPY": _rows,
    "LOAD_TABLE": _load_table,
}  # fmt: skip
