"""`dlavm dump`: what stands between the model and the bits, stage by stage."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlavm.compile import compile_model
from dlavm.describe import tensors
from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import TensorInfo
from dlavm.support.errors import DlavmError
from dlavm.verbs.build import options_of
from dlavm.verbs.checkpoint import write_checkpoint
from dlavm.verbs.common import (
    DEFAULT_BOARD,
    DEFAULT_QUANT,
    Subparsers,
    add_compilation,
    add_verb,
    is_artifact,
    model_of,
    open_artifact,
    refuse_with_artifact,
    table,
    target_of,
    text,
    write_text,
)

TEXT_STAGES = ("graph", "task", "asm")
STAGES = (*TEXT_STAGES, "memory", "weights")
FORMATS = {"text": STAGES, "json": ("memory", "weights"), "hf": ("weights",)}
DEFAULT_TARGET = "v3"


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "dump",
        run,
        "print a stage of the compilation",
        "A MODEL is compiled in memory, for v3 on vcu128 unless told otherwise; nothing is written but the output\n"
        "of -o. `--stage weights --format hf -o DIR` writes a Hugging Face checkpoint in float32 with exactly the\n"
        "numbers that the accelerator multiplies with, so that a build can be checked with transformers alone.",
        """dlavm dump models/stories.py --stage graph
        dlavm dump output/stories --stage asm -o asm.txt
        dlavm dump output/stories --stage memory --format json
        dlavm dump output/stories --stage weights --format hf -o output/stories-hf""",
        json=False,
    )
    parser.add_argument("source", metavar="MODEL|ARTIFACT", help="what `dlavm build` takes or writes")
    parser.add_argument("--stage", required=True, choices=STAGES, help="what to show")
    parser.add_argument(
        "--format",
        default="text",
        choices=tuple(FORMATS),
        dest="form",
        help="text (default); json for memory and weights; hf for weights",
    )
    parser.add_argument("-o", "--output", type=text, metavar="PATH", help="file, or directory for hf (default: stdout)")
    add_compilation(parser, required_target=False)


def run(args: argparse.Namespace) -> int:
    if args.stage not in FORMATS[args.form]:
        raise DlavmError(f"--format: expected text for the stage {args.stage}, got {args.form!r}")
    if is_artifact(args.source):
        refuse_with_artifact(args, "target", "board", "weights", "ctx", "chunk", "quant", "unroll")
    args.target, args.board = args.target or DEFAULT_TARGET, args.board or DEFAULT_BOARD
    args.quant = args.quant or DEFAULT_QUANT
    if args.form == "hf":
        _write_hf(args)
        return 0
    content = _text_stage(args) if args.stage in TEXT_STAGES else _table_stage(args)
    if args.output:
        write_text("-o", Path(args.output), content)
    else:
        print(content, end="")
    return 0


def _write_hf(args: argparse.Namespace) -> None:
    if not args.output:
        raise DlavmError("--format hf: expected -o DIR for the checkpoint, got none")
    if not is_artifact(args.source):
        raise DlavmError(f"--format hf: expected an artifact, got {args.source!r}; build the model first")
    write_checkpoint(open_artifact(args.source), Path(args.output))


def _text_stage(args: argparse.Namespace) -> str:
    name = f"{args.stage}.txt"
    if is_artifact(args.source):
        return open_artifact(args.source).file(name).read_text(encoding="utf-8")
    return compile_model(model_of(args.source, args.weights), target_of(args), options_of(args)).texts()[name]


def _table_stage(args: argparse.Namespace) -> str:
    rows = _artifact_rows(open_artifact(args.source)) if is_artifact(args.source) else _model_rows(args)
    if args.stage == "weights":
        rows = [row for row in rows if row["role"] == "weights"]
    if args.form == "json":
        return json.dumps({args.stage: rows}, indent=1) + "\n"
    return _weights_table(rows) if args.stage == "weights" else _memory_table(rows)


def _artifact_rows(artifact: Artifact) -> list[dict[str, Any]]:
    return _rows(artifact.manifest.tensors)


def _model_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    compiled = compile_model(model_of(args.source, args.weights), target_of(args), options_of(args))
    return _rows(tensors(compiled.graph, compiled.lowered, compiled.program, compiled.memory))


def _rows(found: Iterable[TensorInfo]) -> list[dict[str, Any]]:
    rows = [asdict(tensor) | {"shape": list(tensor.shape)} for tensor in found]
    return sorted(rows, key=lambda row: (row["address"], row["name"]))


def _memory_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a buffer by address, then the sums of the roles; activations share addresses over time."""
    cells = [(f"0x{r['address']:09x}", r["bytes"], r["role"], r["name"]) for r in rows]
    buffers = table(("address", "bytes", "role", "name"), cells, right=(1,)) + "\n\n"
    roles = sorted({r["role"] for r in rows})
    spans = [(role, *_extent([r for r in rows if r["role"] == role])) for role in roles]
    sums = [(role, f"0x{start:09x}", f"0x{end:09x}", end - start, count) for role, start, end, count in spans]
    return buffers + table(("role", "from", "to", "bytes", "buffers"), sums, right=(3, 4)) + "\n"


def _extent(rows: Sequence[dict[str, Any]]) -> tuple[int, int, int]:
    return min(r["address"] for r in rows), max(r["address"] + r["bytes"] for r in rows), len(rows)


def _weights_table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [(f"0x{r['address']:09x}", r["bytes"], r["dtype"], "x".join(map(str, r["shape"])), r["name"]) for r in rows]
    return table(("address", "bytes", "format", "shape", "name"), cells, right=(1,)) + "\n"
