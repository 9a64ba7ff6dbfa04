"""`dlavm profile`: what a step of a model spends its cycles on, by the timed simulator."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlavm.profile.causes import LIMITS
from dlavm.profile.ops import Op, ops_of
from dlavm.profile.page import cells, render, total_cells
from dlavm.profile.path import critical_path
from dlavm.profile.record import Record, read_record
from dlavm.profile.room import compile_with_room
from dlavm.profile.steps import of_subject
from dlavm.profile.subject import Subject, check_target, of_artifact, of_compiled
from dlavm.profile.table import Table, sums, tabulate
from dlavm.profile.trace import trace
from dlavm.quant import AUTO, DEFAULT_KV
from dlavm.sim.timed import open_timed
from dlavm.support.progress import progress
from dlavm.verbs.build import options_of
from dlavm.verbs.common import (
    DEFAULT_BOARD,
    Subparsers,
    add_compilation,
    add_verb,
    is_artifact,
    model_of,
    natural,
    open_artifact,
    positive,
    prepare_files,
    print_json,
    refuse_with_artifact,
    table,
    target_of,
    tell_what_lacks,
    text,
    write_text,
)

DEFAULT_TARGET = "v3"
KEYS = {"kind": lambda op: op.kind, "place": lambda op: op.group}
HEAD = ("commands", "cycles", "share", "bytes", "of mem", "of lanes", *LIMITS, "bound by")


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "profile",
        run,
        "show what a step spends its cycles on",
        "The timed simulator runs one step as the accelerator would: of one token, or with -n of a prompt's, with -d\n"
        "tokens in the cache. A MODEL is compiled in memory, for v3 on vcu128 unless told otherwise, and needs no\n"
        "weights. The table has every cycle of the step once, on its critical path: what commands of a kind waited\n"
        "for, and `control`, the cycles in which nothing runs because no command is there yet. `of mem`, `of lanes`\n"
        "are shares of their peaks while the commands run. --trace writes a JSON for ui.perfetto.dev: engines, waits\n"
        "with their causes, memories. What a program reads from memory to decide what it does (the experts of a\n"
        "mixture) reads as zero. doc/profiling.md explains the causes.",
        """dlavm profile output/stories --by place
        dlavm profile output/stories -d 256 --trace step.json --html step.html
        dlavm profile models/llama.py:llama2_7b -d 1024
        dlavm profile models/llama.py:llama2_7b --board kv260 --kv mxint8 --ctx 1152 -n 128 --json""",
    )
    parser.add_argument("source", metavar="MODEL|ARTIFACT", help="what `dlavm build` takes or writes")
    parser.add_argument("-n", type=positive, default=1, metavar="N", help="tokens of the step (default %(default)s)")
    parser.add_argument(
        "-d", type=natural, default=0, metavar="N", help="tokens in the cache before (default %(default)s)"
    )
    parser.add_argument("--by", choices=tuple(KEYS), default="kind", help="what a row is (default %(default)s)")
    parser.add_argument("--trace", type=text, metavar="FILE.json", help="write the run for ui.perfetto.dev")
    parser.add_argument("--html", type=text, metavar="FILE.html", help="write a page with both tables and a roofline")
    parser.add_argument(
        "--least", type=positive, default=32, metavar="N",
        help="cycles of a wait inside a command that is a slice of the trace (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--latency", type=positive, metavar="N", help="memory answers after N cycles, not as its own")
    add_compilation(parser, required_target=False)


def run(args: argparse.Namespace) -> int:
    prepare_files({"--trace": args.trace, "--html": args.html})
    subject, lacks = subject_of(args)
    subject.check(args.n, args.d)
    record = measure(subject, args)
    ops = ops_of(record, subject)
    path = critical_path(record, subject.spec.enums["engine"])
    tables = [(name, tabulate(ops, path, record.cycles, subject.spec, key)) for name, key in KEYS.items()]
    if args.trace:
        write_text("--trace", Path(args.trace), json.dumps(trace(record, ops, path, subject)) + "\n")
    if args.html:
        write_text("--html", Path(args.html), render(subject, _step(args), tables, ops))
    shown = dict(tables)[args.by]
    tell_what_lacks(lacks)
    if args.json:
        print_json({**_report(args, subject, shown, ops), "lacks": lacks})
    else:
        print(_text(args, subject, shown))
    return 0


def subject_of(args: argparse.Namespace) -> tuple[Subject, str]:
    """What the arguments name, and what the board's memory is too small for. Raises DlavmError as the compiler does,
    and for options beside an artifact."""
    if is_artifact(args.source):
        refuse_with_artifact(args, "target", "board", "weights", "ctx", "chunk", "quant", "kv", "unroll")
        return of_artifact(open_artifact(args.source)), ""
    args.target, args.board = args.target or DEFAULT_TARGET, args.board or DEFAULT_BOARD
    args.quant, args.kv = args.quant or AUTO, args.kv or DEFAULT_KV
    spec, options = target_of(args), options_of(args)
    check_target(spec, "profile")
    model = model_of(args.source, args.weights or "none")
    compiled, lacks = compile_with_room(model, spec, options)
    return of_compiled(compiled, model.name, *options.sizes(model, spec)), lacks


def measure(subject: Subject, args: argparse.Namespace) -> Record:
    """Runs the step that the arguments want."""
    with (tempfile.TemporaryDirectory(prefix="dlavm-profile-") as folder,
          open_timed(subject.spec, timing_only=True) as device, progress("simulating")):  # fmt: skip
        if args.latency:
            device.set_option("latency", args.latency)
        steps = of_subject(device, subject)
        file = Path(folder) / "record"
        device.set_option("profile_least", args.least)
        device.set_option("profile", str(file))
        steps.step(args.n, args.d)
        return read_record(file)


def _step(args: argparse.Namespace) -> str:
    return f"{args.n} token{'s' * (args.n > 1)}, {args.d:,} in the cache"


def _text(args: argparse.Namespace, subject: Subject, shown: Table) -> str:
    spec = subject.spec
    rows = [cells(row, shown) for row in shown.rows]
    seconds = shown.cycles / (spec.board.clock_mhz * 1e6)
    lines = [
        f"{subject.name} on {spec.board.name}: {_step(args)}: {shown.cycles:,} cycles, {1000 * seconds:.4g} ms at "
        f"{spec.board.clock_mhz:g} MHz",
        "",
        table((args.by, *HEAD), [*rows, total_cells(shown)], right=range(1, len(HEAD))),
        "",
        f"nothing runs in {shown.idle:,} cycles ({100 * shown.idle / shown.cycles:.2f} %), because no command is there "
        f"in {shown.control:,} ({100 * shown.control / shown.cycles:.2f} %)",
    ]
    return "\n".join(lines)


def _report(args: argparse.Namespace, subject: Subject, shown: Table, ops: Sequence[Op]) -> dict[str, Any]:
    board = subject.spec.board
    return {
        "model": subject.name, "target": subject.spec.name, "board": board.name, "clock_mhz": board.clock_mhz,
        "tokens": args.n, "depth": args.d, "by": args.by, **shown.report(), "limits": sums(shown.rows),
        "idle": shown.idle, "control": shown.control, "control_share": shown.control / shown.cycles,
        "bytes": sum(op.bytes for op in ops),
    }  # fmt: skip
