"""`dlavm plan`: the memory planner alone, on a CSV of buffers."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlavm.memory import Interval, lower_bound, validate
from dlavm.memory.csv import read_csv, to_csv
from dlavm.memory.native import Limits
from dlavm.memory.plan import Search, search, shortage
from dlavm.support import env
from dlavm.support.errors import CheckFailed, DlavmError
from dlavm.support.progress import progress
from dlavm.verbs.common import Subparsers, add_verb, natural, positive, print_json, text, write_text

UNLIMITED = 1 << 62  # nodes, where seconds end the search


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "plan",
        run,
        "place buffers in memory",
        "FILE.csv has the columns id,lower,upper,size: `size` bytes that are needed at the times lower <= t < upper.\n"
        "Without --capacity the smallest peak is wanted; with it, any plan within so many bytes. Every plan is\n"
        "checked by a validator that knows nothing of the planner. Exit code 1: the capacity was not reached (the\n"
        "message says whether it is proven that it cannot be), or the file's own plan is wrong.",
        """dlavm plan buffers.csv
        dlavm plan buffers.csv --capacity 1048576 --time-limit 10 -o placed.csv
        dlavm plan placed.csv --validate-only --capacity 1048576""",
    )
    parser.add_argument("file", metavar="FILE.csv", type=text, help="the buffers")
    parser.add_argument("--capacity", type=natural, metavar="N", help="bytes that there are")
    parser.add_argument("--align", type=positive, default=1, metavar="N", help="offsets are multiples of N (default 1)")
    parser.add_argument("--time-limit", type=_seconds, metavar="S", help="seconds (default: a number of search nodes)")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads (default: all cores)")
    parser.add_argument("-o", "--output", type=text, metavar="OUT.csv", help="write the buffers with their offsets")
    parser.add_argument("--validate-only", action="store_true", help="check the offsets that FILE.csv has")


def run(args: argparse.Namespace) -> int:
    intervals, offsets = read_csv(Path(args.file))
    if args.validate_only:
        return _validate_only(args, intervals, offsets)
    nodes = None if args.time_limit is None else UNLIMITED
    limits = Limits(nodes, args.time_limit, args.threads or env.THREADS.get())
    start = time.perf_counter()
    with progress(f"planning {len(intervals)} buffers"):
        found = search(intervals, args.align, args.capacity, limits)
    seconds = time.perf_counter() - start
    validate(intervals, found.plan.offsets, args.align, found.plan.peak)
    _show(args, {**_numbers(found), "valid": True, "seconds": seconds})
    if args.capacity is not None and found.plan.peak > args.capacity:
        raise CheckFailed(
            f"{args.file}: expected a plan within {args.capacity} bytes, got {found.plan.peak} ({shortage(found)})"
        )
    if args.output:
        write_text("--output", Path(args.output), to_csv(intervals, found.plan.offsets))
    return 0


def _seconds(value: str) -> float:
    """An argparse type: more than 0 seconds."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {value!r}")
    return seconds


def _validate_only(args: argparse.Namespace, intervals: Sequence[Interval], offsets: Mapping[str, int]) -> int:
    if args.output or args.time_limit is not None or args.threads is not None:
        raise DlavmError("--validate-only: expected no --output, --time-limit or --threads, got one of them")
    if intervals and not offsets:
        raise DlavmError(f"{args.file}: expected a column offset, got none")
    try:
        validate(intervals, offsets, args.align, args.capacity)
    except DlavmError as error:
        raise CheckFailed(f"{args.file}: {error}") from None
    peak = max((offsets[i.name] + i.size for i in intervals), default=0)
    bound = lower_bound(intervals, args.align)
    status = "optimal" if peak == bound else "feasible"
    _show(args, {"peak": peak, "lower_bound": bound, "optimal": peak == bound, "status": status, "valid": True})
    return 0


def _numbers(found: Search) -> dict[str, Any]:
    made = found.plan
    return {"peak": made.peak, "lower_bound": made.lower_bound, "optimal": made.optimal, "status": found.status,
            "end": found.end, "nodes": found.nodes}  # fmt: skip


def _show(args: argparse.Namespace, report: dict[str, Any]) -> None:
    if args.json:
        print_json(report)
        return
    over = report["peak"] / report["lower_bound"] if report["lower_bound"] else 1.0
    line = f"peak {report['peak']} bytes, {over:.4f} of the lower bound {report['lower_bound']}"
    line += f": {report['status']}, valid"
    if "nodes" in report:
        line += f"; {report['nodes']} nodes in {report['seconds']:.3f} s, search {report['end']}"
    print(line)
