"""`dlavm dump`: what stands between the model and the bits, stage by stage."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from dlavm.compile import Compiled, compile_model, pipeline
from dlavm.describe import tensors
from dlavm.graph import Graph, parse_graph, print_graph
from dlavm.lower import lower
from dlavm.memory import liveness
from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import TensorInfo
from dlavm.passes import run as run_passes
from dlavm.quant import AUTO, DEFAULT_KV
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.task import Program, parse_program
from dlavm.verbs.build import options_of
from dlavm.verbs.checkpoint import write_checkpoint
from dlavm.verbs.common import (
    DEFAULT_BOARD,
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
from dlavm.verbs.memory_map import activation_csv, memory_table
from dlavm.view.graph_dot import graph_dot
from dlavm.view.plain import graph_object
from dlavm.view.prototxt import graph_prototxt, task_prototxt
from dlavm.view.task_dot import task_dot
from dlavm.view.tilings import HEAD, RIGHT, tiling_rows

STAGES = ("graph", "tiling", "task", "asm", "memory", "weights")
FORMATS = {
    "text": STAGES,
    "json": ("graph", "memory", "weights"),
    "dot": ("graph", "task"),
    "prototxt": ("graph", "task"),
    "csv": ("memory",),
    "hf": ("weights",),
}
DEFAULT_TARGET = "v3"


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "dump",
        run,
        "print a stage of the compilation",
        "A MODEL is compiled in memory, for v3 on vcu128 unless told otherwise; nothing is written but the output\n"
        "of -o. `--format dot` is for Graphviz, `--format prototxt` for Netron, `--format csv` has the activations as\n"
        "minimalloc writes them. `--stage weights --format hf -o DIR` writes a Hugging Face checkpoint in float32\n"
        "with exactly the numbers that the accelerator multiplies with, so that a build can be checked with\n"
        "transformers alone.",
        """dlavm dump models/stories.py --stage graph
        dlavm dump output/stories --stage asm -o asm.txt
        dlavm dump output/stories --stage graph --format dot --fold | dot -Tsvg > graph.svg
        dlavm dump output/stories --stage task --format prototxt -o task.prototxt
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
        help="; ".join([f"{form}: {', '.join(stages)}" for form, stages in FORMATS.items()]) + " (default text)",
    )
    parser.add_argument("--fold", action="store_true", help="dot of a graph: equal layers as one box")
    parser.add_argument("-o", "--output", type=text, metavar="PATH", help="file, or directory for hf (default: stdout)")
    add_compilation(parser, required_target=False)


def run(args: argparse.Namespace) -> int:
    _check_format(args)
    if is_artifact(args.source):
        refuse_with_artifact(args, "target", "board", "weights", "ctx", "chunk", "quant", "kv", "unroll")
    args.target, args.board = args.target or DEFAULT_TARGET, args.board or DEFAULT_BOARD
    args.quant, args.kv = args.quant or AUTO, args.kv or DEFAULT_KV
    if args.form == "hf":
        _write_hf(args)
        return 0
    stages = _of_artifact(open_artifact(args.source)) if is_artifact(args.source) else _of_model(args)
    content = WRITERS.get((args.stage, args.form), Stages.text)(stages, args)
    if args.output:
        write_text("-o", Path(args.output), content)
    else:
        print(content, end="")
    return 0


def _check_format(args: argparse.Namespace) -> None:
    if args.stage not in FORMATS[args.form]:
        forms = [form for form, stages in FORMATS.items() if args.stage in stages]
        raise DlavmError(f"--format: expected one of {', '.join(forms)} for the stage {args.stage}, got {args.form!r}")
    if args.fold and (args.stage, args.form) != ("graph", "dot"):
        raise DlavmError(f"--fold: expected --stage graph --format dot, got {args.stage} and {args.form}")


def _write_hf(args: argparse.Namespace) -> None:
    if not args.output:
        raise DlavmError("--format hf: expected -o DIR for the checkpoint, got none")
    if not is_artifact(args.source):
        raise DlavmError(f"--format hf: expected an artifact, got {args.source!r}; build the model first")
    write_checkpoint(open_artifact(args.source), Path(args.output))


@dataclass(frozen=True)
class Stages:
    """What the stages of a compilation are made of, from wherever they come."""

    spec: TargetSpec
    texts: Callable[[str], str]
    graph: Callable[[], Graph]
    program: Callable[[], Program]
    tensors: Callable[[], tuple[TensorInfo, ...]]

    def text(self, args: argparse.Namespace) -> str:
        return self.texts(f"{args.stage}.txt")


def _of_artifact(artifact: Artifact) -> Stages:
    def read(name: str) -> str:
        return artifact.file(name).read_text(encoding="utf-8")

    spec, found = artifact.target, artifact.manifest.tensors
    return Stages(spec, read, lambda: parse_graph(read("graph.txt")), lambda: parse_program(read("task.txt"), spec),
                  lambda: found)  # fmt: skip


def _of_model(args: argparse.Namespace) -> Stages:
    """The graph needs the passes only: a model that no board can hold has one too."""
    model, spec, options = model_of(args.source, args.weights), target_of(args), options_of(args)
    graph = run_passes(pipeline(options, spec, model.weights), model.graph(*options.sizes(model, spec)))

    @cache
    def compiled() -> Compiled:
        return compile_model(model, spec, options)

    def found() -> tuple[TensorInfo, ...]:
        return tensors(graph, compiled().lowered, compiled().program, compiled().memory)

    def text(name: str) -> str:
        return print_graph(graph) if name == "graph.txt" else compiled().texts()[name]

    return Stages(spec, text, lambda: graph, lambda: compiled().program, found)


def _rows(stages: Stages, args: argparse.Namespace) -> list[TensorInfo]:
    found = (t for t in stages.tensors() if args.stage == "memory" or t.role == "weights")
    return sorted(found, key=lambda t: (t.address, t.name))


def _json(stages: Stages, args: argparse.Namespace) -> str:
    rows = [asdict(tensor) | {"shape": list(tensor.shape)} for tensor in _rows(stages, args)]
    return json.dumps({args.stage: rows}, indent=1) + "\n"


def _weights_table(stages: Stages, args: argparse.Namespace) -> str:
    cells = [(f"0x{t.address:09x}", t.bytes, t.dtype, "x".join(map(str, t.shape)), t.name) for t in _rows(stages, args)]
    return table(("address", "bytes", "format", "shape", "name"), cells, right=(1,)) + "\n"


def _memory_csv(stages: Stages, args: argparse.Namespace) -> str:
    return activation_csv(stages.program(), stages.spec, {t.name: t.address for t in stages.tensors()})


def _tilings(stages: Stages, args: argparse.Namespace) -> str:
    made = lower(stages.graph(), stages.spec)
    return table(HEAD, tiling_rows(made.choices, stages.spec), RIGHT) + "\n"


WRITERS: dict[tuple[str, str], Callable[[Stages, argparse.Namespace], str]] = {
    ("graph", "json"): lambda s, args: json.dumps({"graph": graph_object(s.graph())}, indent=1) + "\n",
    ("graph", "dot"): lambda s, args: graph_dot(s.graph(), args.fold),
    ("graph", "prototxt"): lambda s, args: graph_prototxt(s.graph()),
    ("tiling", "text"): _tilings,
    ("task", "dot"): lambda s, args: task_dot(s.program(), s.spec),
    ("task", "prototxt"): lambda s, args: task_prototxt(s.program(), s.spec),
    ("memory", "text"): lambda s, args: memory_table(s.tensors(), liveness(s.program(), s.spec)),
    ("memory", "json"): _json,
    ("memory", "csv"): _memory_csv,
    ("weights", "text"): _weights_table,
    ("weights", "json"): _json,
}
