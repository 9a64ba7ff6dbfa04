"""`dlavm sweep`: cycles of a model over a grid of boards, buffers, formats, depths and chunks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

from dlavm.compile import Options, pipeline
from dlavm.formats import FORMATS
from dlavm.profile.subject import check_target
from dlavm.quant import AUTO, DEFAULT_KV
from dlavm.support.errors import DlavmError
from dlavm.support.progress import progress
from dlavm.sweep.grid import Point, Results, Row, build_of, grid
from dlavm.sweep.plot import plots
from dlavm.sweep.workers import on_processes, on_ray
from dlavm.target.layout import KV_FORMATS
from dlavm.target.spec import load_target
from dlavm.verbs import INTERRUPTED
from dlavm.verbs.common import (
    DEFAULT_BOARD,
    Subparsers,
    add_verb,
    is_artifact,
    model_of,
    natural,
    positive,
    print_json,
    table,
    text,
    write_text,
)

RESULTS_FILE = "results.csv"
MOST_SHOWN = 80  # letters of a cell
SHOWN = ("board", "activation_elements", "accumulators", "quant", "kv", "chunk", "depth", "tg_cycles", "tg_tok_s",
         "tg_memory_share", "tg_bound", "pp_tok_s", "lacks", "error")  # fmt: skip


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "sweep",
        run,
        "time a model over boards, buffers, formats, depths and chunks",
        "The timed simulator runs a token of every combination of the lists, and with -p a prompt: from the shapes\n"
        "alone, as `dlavm cycles` does. DIR/results.csv gets a row as soon as a point is done; a point that fails is\n"
        "a row with its error. The same command again goes on where it stopped and tries what failed again; rows of\n"
        "another dlavm or of another state of the model (column `build`) stay, and their points are timed anew.\n"
        "DIR/tg_tok_s.svg and DIR/pp_tok_s.svg show the rates. `lacks` says where a board's memory is too small.\n"
        "With --ray the points run on a cluster, whose machines need dlavm and the model at the same path. The exit\n"
        "code is 1 where a point failed.",
        """dlavm sweep models/stories.py --boards nano,kv260 --depths 0,100,500 -o output/sweep
        dlavm sweep models/llama.py:llama2_7b --boards vcu128,v80 --quants int4g128,mxfp4 --kvs fp16,mxint8 \\
          --depths 0,512,1024 --jobs 4 -o output/sweep-7b
        dlavm sweep models/llama.py:llama2_7b --accumulators 65536,262144 -p 128 -o output/buffers --ray auto""",
    )
    parser.add_argument("model", metavar="MODEL", help="as for `dlavm build`")
    parser.add_argument("-o", "--output", required=True, type=text, metavar="DIR", help="where the results go")
    parser.add_argument("--target", default="v3", metavar="T", help="accelerator generation (default %(default)s)")
    parser.add_argument("--weights", type=text, default="none", metavar="W", help="as for `dlavm build` (default none)")
    parser.add_argument("--ctx", type=positive, metavar="N", help="positions in the KV cache (default: the model's)")
    parser.add_argument("-p", type=natural, default=0, metavar="N", help="tokens of a prompt (default: none)")
    _add_axes(parser)
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes (default %(default)s)")
    parser.add_argument(
        "--ray", type=text, metavar="ADDRESS", help="a Ray cluster: HOST:PORT, auto, or local for one of this machine"
    )


def _add_axes(parser: argparse.ArgumentParser) -> None:
    def axis(name: str, kind: Callable[[str], object], default: list[object], metavar: str, what: str) -> None:
        parser.add_argument(name, type=_list(kind), default=default, metavar=metavar, help=what)

    axis("--boards", text, [DEFAULT_BOARD], "B,..", f"boards (default {DEFAULT_BOARD})")
    axis("--activation-elements", positive, [None], "N,..", "sizes of the activation buffer (default: the board's)")
    axis("--accumulators", positive, [None], "N,..", "numbers of accumulators (default: the board's)")
    axis("--quants", text, [AUTO], "FMT,..", f"formats of the weights: {', '.join(FORMATS)}, {AUTO} (default {AUTO})")
    axis("--kvs", text, [DEFAULT_KV], "FMT,..", f"formats of the cache: {', '.join(KV_FORMATS)} (default {DEFAULT_KV})")
    axis("--chunks", positive, [None], "N,..", "tokens that a prefill step takes at most (default: the model's)")
    axis("--depths", natural, [0], "N,..", "tokens in the cache before (default 0)")


def _list(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
    """An argparse type: values between commas, each once."""

    def parse(value: str) -> list[object]:
        found = [kind(part) for part in value.split(",")]
        if len(set(found)) < len(found):
            raise argparse.ArgumentTypeError(f"expected every value once, got {value!r}")
        return found

    return parse


def run(args: argparse.Namespace) -> int:
    if is_artifact(args.model):
        raise DlavmError(f"sweep: expected a MODEL, which it compiles for each point, got the artifact {args.model!r}")
    _check(args)
    fixed = {"model": args.model, "weights": args.weights, "target": args.target, "ctx": args.ctx, "prompt": args.p,
             "build": build_of(args.model)}  # fmt: skip
    axes = {"board": args.boards, "activation_elements": args.activation_elements, "accumulators": args.accumulators,
            "quant": args.quants, "kv": args.kvs, "chunk": args.chunks, "depth": args.depths}  # fmt: skip
    points = grid(fixed, axes)
    folder = Path(args.output)
    results = Results(folder / RESULTS_FILE)
    wanted = [point for point in points if not results.has(point)]
    try:
        _time(args, wanted, results)
    except KeyboardInterrupt:
        kept = sum(results.has(point) for point in points)
        print(f"stopped; {kept} of {len(points)} points are timed, the same command goes on with the others",
              file=sys.stderr)  # fmt: skip
        return INTERRUPTED
    shown = results.of(points)
    for name, drawing in plots(shown).items():
        write_text("-o", folder / name, drawing)
    failed = sum(bool(row["error"]) for row in shown)
    if args.json:
        print_json({"results": str(folder / RESULTS_FILE), "points": len(points), "timed": len(wanted),
                    "failed": failed, "rows": shown})  # fmt: skip
    else:
        print(_table(shown))
        print(f"\n{len(points)} points, {len(points) - len(wanted)} of them timed before, {failed} failed: "
              f"{folder / RESULTS_FILE}")  # fmt: skip
    return 1 if failed else 0


def _check(args: argparse.Namespace) -> None:
    """Raises DlavmError for what is wrong with every point: a name or a file, which are no points that fail."""
    if args.jobs > 1 and args.ray:
        raise DlavmError(f"--jobs: expected no --ray beside it, whose cluster has its own number, got {args.jobs}")
    model_of(args.model, args.weights)
    for board in args.boards:
        spec = load_target(args.target, board)
        check_target(spec, "sweep")
        for quant, kv in product(args.quants, args.kvs):
            pipeline(Options(quant=quant, kv=kv), spec)


def _time(args: argparse.Namespace, points: list[Point], results: Results) -> None:
    """Adds a row for each point."""
    if not points:
        return
    rows = on_ray(points, args.ray) if args.ray else on_processes(points, args.jobs)
    with progress("timing points", len(points)) as bar:
        for row in rows:
            results.add(row)
            bar.advance()


def _table(rows: list[Row]) -> str:
    """The columns in which there is anything."""
    columns = [name for name in SHOWN if any(row[name] for row in rows)]
    right = [i for i, name in enumerate(columns) if name not in ("board", "quant", "kv", "tg_bound", "error")]
    return table(columns, [[_short(row[name]) for name in columns] for row in rows], right)


def _short(cell: str) -> str:
    """The file has the whole text."""
    return cell if 0 < len(cell) <= MOST_SHOWN else f"{cell[: MOST_SHOWN - 3]}..." if cell else "-"
