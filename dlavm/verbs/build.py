"""`dlavm build`: a model becomes an artifact."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dlavm.compile import Options, build
from dlavm.pack.artifact import HOST
from dlavm.pack.losses import CONVERTED, EXACT
from dlavm.support.errors import DlavmError
from dlavm.verbs.common import Subparsers, add_model, add_verb, model_of, print_json, size, target_of, text


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "build",
        run,
        "compile a model for a target and write the artifact",
        "The artifact is a directory with instruction streams, packed weights, tokenizer and a C++ driver. It is\n"
        "written whole or not at all, and the same input gives the same bytes. With `--weights none` the model is\n"
        "compiled and measured, and nothing is written.",
        """dlavm build models/stories.py --target v3 -o output/stories
        dlavm build path/to/checkpoint --target v3 --board kv260 --ctx 512
        dlavm build models/llama.py:llama2_7b --target v3 --weights none
        dlavm build models/llama.py:llama_tiny --target v3 --weights random""",
    )
    add_model(parser)
    parser.add_argument(
        "-o", "--output", type=text, metavar="DIR", help="where the artifact goes (default output/NAME)"
    )


def run(args: argparse.Namespace) -> int:
    spec = target_of(args)
    model = model_of(args.model, args.weights)
    if model.shapes_only and args.output:
        raise DlavmError(f"-o: expected weights to write an artifact with, got --weights {args.weights}")
    out = None if model.shapes_only else Path(args.output or Path("output") / model.name)
    report = build(model, spec, options_of(args), out)
    if args.json:
        print_json(report)
    else:
        print(summary(report))
    return 0


def options_of(args: argparse.Namespace) -> Options:
    """The compiler's options among the arguments."""
    return Options(ctx=args.ctx, chunk=args.chunk, quant=args.quant, kv=args.kv, rolls=not args.unroll)


def summary(report: dict[str, Any]) -> str:
    """A build in a few lines."""
    peak, bound = report["activation_peak_bytes"], report["activation_lower_bound_bytes"]
    host = Path(report["artifact"]) / HOST if report["artifact"] else None
    over = (
        f", {100 * (peak / bound - 1):.1f} % above the lower bound {size(bound)}"
        if peak > bound
        else ", the lower bound"
    )
    lines = [
        ("artifact", report["artifact"] or "none: compiled without weights"),
        ("target", f"{report['target']} on {report['board']} ({report['target_hash'][:12]})"),
        ("weights", size(report["weights_bytes"])),
        ("program", size(report["program_bytes"]) if report["program_bytes"] else "none in memory: the host runs it"),
        ("KV cache", size(report["kv_bytes"])),
        ("activations", f"{size(peak)} at the peak{over}, in {report['activation_memory']}"),
        ("time", f"{report['compile_s']:.2f} s to compile, {report['pack_s']:.2f} s to pack, "
                 f"{size(report['peak_rss_bytes'])} of memory"),
        *[("quantised", kept(row)) for row in report["quantised"]],
        *[("note", note) for note in report["notes"]],
        *([("host", f"{host}: C++ driver and example, see README.md there")] if host and host.is_dir() else []),
    ]  # fmt: skip
    return "\n".join(f"{name + ':':13} {value}" for name, value in lines)


def kept(row: dict[str, Any]) -> str:
    """What became of some tensors that came quantised."""
    tensors = f"{row['tensors']} tensors" if row["tensors"] > 1 else "1 tensor"
    if row["how"] in (EXACT, CONVERTED):
        return f"{tensors} taken exactly, {row['from']}" + (f" as {row['to']}" if row["how"] == CONVERTED else "")
    lost = f"{row['how']} to {row['to']} with a relative RMS error of {100 * row['relative_rms']:.2g} %"
    return f"{tensors} {lost} ({row['from']})"
