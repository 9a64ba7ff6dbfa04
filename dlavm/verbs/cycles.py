"""`dlavm cycles`: how long a board would take for a prompt and a token of a model, without its weights."""

from __future__ import annotations

import argparse
import time
from typing import Any

from dlavm.profile.room import compile_with_room
from dlavm.profile.steps import Steps, of_compiled, pieces, rates
from dlavm.sim.timed import open_timed
from dlavm.support.errors import DlavmError
from dlavm.support.progress import Bar, progress
from dlavm.target import TargetSpec
from dlavm.verbs.build import options_of
from dlavm.verbs.common import (
    Subparsers,
    add_model,
    add_verb,
    model_of,
    natural,
    positive,
    prepare_files,
    print_json,
    table,
    target_of,
    tell_what_lacks,
    text,
)

COLUMNS = ("test", "cycles", "ms", "tok_s", "bytes_per_token", "memory_share", "simulated_s")


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "cycles",
        run,
        "time the steps of a model on a board, from its shapes alone",
        "The timed simulator runs the program as the accelerator would, with the board's memory, and moves no bytes:\n"
        "ppN is a prompt of N tokens, tg one token, both after `-d` tokens. What a program reads from memory to\n"
        "decide what it does (the experts of a mixture) reads as zero. `memory_share` is the share of the peak of all\n"
        "bytes that the commands read and write, `simulated_s` the processor's time here. v1's cycles are those of\n"
        "the commands, without the host's between them. A model that the board's memory is too small for is timed as\n"
        "if there were room: stderr, or `lacks`, says so. How far cycles were compared with the RTL: doc/timing.md.",
        """dlavm cycles models/stories.py --target v3 --board nano
        dlavm cycles models/llama.py:llama2_7b --target v3 --board kv260 --kv mxint8 --ctx 1152 -d 1024 -p 0""",
    )
    add_model(parser)
    parser.add_argument("-p", type=natural, default=128, metavar="N", help="tokens of the prompt (default %(default)s)")
    parser.add_argument(
        "-d", type=natural, default=0, metavar="N", help="tokens in the cache before (default %(default)s)"
    )
    parser.add_argument("--latency", type=positive, metavar="N", help="memory answers after N cycles, not as its own")
    parser.add_argument(
        "--trace", type=text, metavar="FILE", help="CSV: when each command of the token was queued, began and ended"
    )
    parser.add_argument("--trace-prompt", type=text, metavar="FILE", help="the same of the prompt's last step")


def run(args: argparse.Namespace) -> int:
    spec = target_of(args)
    if (args.trace or args.trace_prompt) and not spec.has("stream"):
        raise DlavmError(f"cycles: --trace: expected a target with a stream, got {spec.name}")
    options, model = options_of(args), model_of(args.model, args.weights or "none")
    ctx, chunk = options.sizes(model, spec)
    if args.d + max(args.p, 1) > ctx:
        raise DlavmError(f"cycles: expected depth and tokens within the context of {ctx} positions, "
                         f"got {args.d + max(args.p, 1)} (-d {args.d}, -p {args.p})")
    if args.trace_prompt and not args.p:
        raise DlavmError("--trace-prompt: expected a prompt, -p of at least 1, got -p 0")
    prepare_files({"--trace": args.trace, "--trace-prompt": args.trace_prompt})
    compiled, lacks = compile_with_room(model, spec, options)
    wanted = [(f"pp{args.p}", pieces(args.p, args.d, chunk), args.trace_prompt),
              ("tg", pieces(1, args.d, 1), args.trace)]  # fmt: skip
    with (open_timed(compiled.spec, timing_only=True) as device,
          progress("simulating steps", sum(len(steps) for _, steps, _ in wanted)) as bar):  # fmt: skip
        if args.latency:
            device.set_option("latency", args.latency)
        steps = of_compiled(device, compiled)
        rows = [_row(steps, spec, bar, *one) for one in wanted if one[1]]
    for row in rows:
        row["test"] += f" @ d{args.d}" if args.d else ""
    tell_what_lacks(lacks)
    if args.json:
        print_json({"model": model.name, "target": spec.name, "board": spec.board.name,
                    "clock_mhz": spec.board.clock_mhz, "ctx": ctx, "lacks": lacks, "rows": rows})  # fmt: skip
    else:
        print(f"{model.name} for {spec.name} on {spec.board.name} at {spec.board.clock_mhz:g} MHz, context of {ctx}\n")
        print(table(COLUMNS, [[_cell(row[name]) for name in COLUMNS] for row in rows], right=range(1, len(COLUMNS))))
    return 0


def _row(
    steps: Steps, spec: TargetSpec, bar: Bar, test: str, wanted: list[tuple[int, int, int]], trace: str | None
) -> dict[str, Any]:
    """`wanted`: see `pieces`; `trace`: the file for the commands of the last."""
    started, counters = time.process_time(), []
    for piece in wanted:
        steps.device.set_option("trace", trace if trace and piece is wanted[-1] else "")
        counters.append(steps.step(*piece))
        bar.advance()
    tokens = sum(tokens for tokens, *_ in wanted)
    found = rates(spec, counters, tokens)
    moved = found.pop("bytes")
    return {"test": test, **found, "bytes_per_token": moved / tokens, "simulated_s": time.process_time() - started}


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if value < 1e4 else f"{value:.0f}"
