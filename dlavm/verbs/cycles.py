"""`dlavm cycles`: how long a board would take for a prompt and a token of a model, without its weights."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlavm.compile import Compiled, compile_model
from dlavm.describe import ENTRY, stream_name
from dlavm.sim.device import Counters
from dlavm.sim.native import NativeDevice
from dlavm.sim.timed import open_timed
from dlavm.support.errors import DlavmError
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.verbs.build import options_of
from dlavm.verbs.common import (
    Subparsers,
    add_model,
    add_verb,
    model_of,
    natural,
    positive,
    print_json,
    table,
    target_of,
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
        "bytes that the commands read and write. v3 only. Cycles equal the RTL's on nano; on boards with wider rows\n"
        "the two have not been compared yet (doc/timing.md).",
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
    if not spec.has("stream", "scalars"):
        raise DlavmError(f"cycles: expected a target with a stream and scalars, got {spec.name}")
    options = options_of(args)
    compiled = compile_model(model_of(args.model, args.weights or "none"), spec, options)
    ctx, chunk = options.sizes(model_of(args.model, "none"), spec)
    if args.d + max(args.p, 1) > ctx:
        raise DlavmError(f"cycles: expected depth and tokens within the context of {ctx} positions, "
                         f"got {args.d + max(args.p, 1)}")
    with open_timed(spec, timing_only=True) as device:
        if args.latency:
            device.set_option("latency", args.latency)
        load(device, compiled)
        prompt = [(min(chunk, args.p - at), args.d + at) for at in range(0, args.p, chunk)]
        rows = [_row(device, compiled, f"pp{args.p}", prompt, args.trace_prompt)] if prompt else []
        rows.append(_row(device, compiled, "tg", [(1, args.d)], args.trace))
    for row in rows:
        row["test"] += f" @ d{args.d}" if args.d else ""
    if args.json:
        print_json({"board": spec.board.name, "clock_mhz": spec.board.clock_mhz, "rows": rows})
    else:
        print(table(COLUMNS, [[_cell(row[name]) for name in COLUMNS] for row in rows], right=range(1, len(COLUMNS))))
    return 0


def load(device: NativeDevice, compiled: Compiled) -> None:
    """Writes the program of a step to its place and points the device at it."""
    words, registers = compiled.words, compiled.spec.registers
    address = compiled.memory.bases[stream_name(ENTRY)]
    device.mem_write(address, np.array(words, "<u4"))
    device.csr_write(registers["PROGRAM"].offset, address // ADDRESS_UNIT)
    device.csr_write(registers["PROGRAM_WORDS"].offset, len(words))


def step(device: NativeDevice, compiled: Compiled, values: Mapping[str, int]) -> Counters:
    """Runs a step with these arguments (those that the program has)."""
    registers = compiled.spec.registers
    for place, arg in enumerate(compiled.program.args):
        device.csr_write(registers["ARG"].offset + 4 * place, values[arg.name])
    device.csr_write(registers["CONTROL"].offset, 1)
    device.run()
    return device.counters()


def _row(
    device: NativeDevice, compiled: Compiled, test: str, steps: list[tuple[int, int]], trace: str | None
) -> dict[str, Any]:
    """`steps`: tokens of each, and how many are in the cache before; `trace`: the file for the commands of the last."""
    board, started = compiled.spec.board, time.process_time()
    last = len(steps) - 1
    counters = []
    for i, (tokens, depth) in enumerate(steps):
        device.set_option("trace", trace if trace and i == last else "")
        values = {"token": tokens, "kv_len": depth, "head_rows": int(i == last), "kv_base": 0}
        counters.append(step(device, compiled, values))
    cycles, moved = sum(c.cycles for c in counters), sum(c.bytes_read + c.bytes_written for c in counters)
    tokens, seconds = sum(tokens for tokens, _ in steps), cycles / (board.clock_mhz * 1e6)
    peak = 1e9 * compiled.spec.space("weights").peak_gbs
    return {
        "test": test, "cycles": cycles, "ms": 1000 * seconds, "tok_s": tokens / seconds,
        "bytes_per_token": moved / tokens, "memory_share": moved / seconds / peak,
        "simulated_s": time.process_time() - started,
    }  # fmt: skip


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if value < 1e4 else f"{value:.0f}"
