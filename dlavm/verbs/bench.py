"""`dlavm bench`: speed of prompts (pp) and of generation (tg), in rows like those of llama-bench."""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlavm.profile.path import critical_path
from dlavm.profile.record import Record, read_record
from dlavm.runtime.engine import RTL
from dlavm.runtime.session import Session, StepResult, open_session
from dlavm.sim.native import NativeDevice
from dlavm.support.errors import DlavmError
from dlavm.support.progress import progress
from dlavm.target.spec import Board
from dlavm.verbs.common import (
    Subparsers,
    add_artifact,
    add_engine,
    add_verb,
    natural,
    open_artifact,
    positive,
    print_json,
    table,
)

SHARES = ("memory_share", "matrix_share", "control_share")  # known on the timed engine only
ENERGY = "tok_j"  # a column where the board's file states its power
SIMULATED = ("timed", RTL)  # engines, also as URLs, whose speed is that of the board, by their cycles
COLUMNS = (
    "test",
    "engine",
    "tok_s",
    "tok_s_min",
    "tok_s_max",
    "ttft_s",
    "bytes_per_token",
    "cycles",
    "clock_mhz",
    *SHARES,
)


PROMPT, GENERATE, REPEAT = 128, 64, 5


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "bench",
        run,
        "measure prompt and generation speed",
        "ppN runs a prompt of N tokens, tgN generates N tokens one by one, both after `-d` tokens in the cache:\n"
        "medians, least and largest of the repetitions. On `timed` and `rtl` the speed is the board's, from the\n"
        "cycles of the steps and its clock; on all others it is what this computer sees. On `timed` there are the\n"
        "share of the memory's peak, and of the last step's cycles those in which the matrix engine has a command and\n"
        "those in which nothing runs because no command is there (not on v1). tok_j, tokens a joule, is there where\n"
        "the board's file states a power.",
        """dlavm bench output/stories
        dlavm bench output/stories -p 512 -n 128 -d 256 -o csv
        dlavm bench output/stories --engine timed -p 16 -n 4""",
    )
    add_artifact(parser)
    parser.add_argument("-p", type=natural, metavar="N", help=f"tokens of the prompt (default {PROMPT}, or what fits)")
    parser.add_argument("-n", type=natural, metavar="N", help=f"tokens to generate (default {GENERATE}, or what fits)")
    parser.add_argument(
        "-d", type=natural, default=0, metavar="N", help="tokens in the cache before (default %(default)s)"
    )
    parser.add_argument(
        "--repeat", type=positive, metavar="N", help=f"repetitions (default {REPEAT}; 1 on timed and rtl)"
    )
    parser.add_argument(
        "-o", choices=("md", "json", "csv"), default="md", dest="form", help="form (default %(default)s)"
    )
    add_engine(parser)


def run(args: argparse.Namespace) -> int:
    artifact = open_artifact(args.artifact)
    _check_room(args, artifact.manifest.model.ctx)
    args.repeat = args.repeat or (1 if _is_simulated(args.engine) else REPEAT)
    with open_session(artifact, args.engine, args.threads) as session:
        rows = [row for row in (_prompt_row(args, session), _generation_row(args, session)) if row]
    if args.json or args.form == "json":
        print_json({"rows": rows})
    else:
        print(_csv(rows) if args.form == "csv" else markdown(rows))
    return 0


def _is_simulated(engine: str) -> bool:
    return engine.partition(":")[0] in SIMULATED


def _check_room(args: argparse.Namespace, ctx: int) -> None:
    """Fills in -p and -n where they were not given. Raises DlavmError where given ones do not fit."""
    room = max(0, ctx - args.d)
    args.p = min(PROMPT, room) if args.p is None else args.p
    args.n = min(GENERATE, room) if args.n is None else args.n
    if not args.p and not args.n:
        raise DlavmError("bench: expected -p or -n of at least 1, got 0 for both")
    needed = args.d + max(args.p, args.n)
    if needed > ctx:
        raise DlavmError(f"bench: expected depth and tokens within the context of {ctx} positions, got {needed}")


def _prompt_row(args: argparse.Namespace, session: Session) -> dict[str, Any] | None:
    ids = _ids(session, args.p)
    return _row(args, session, f"pp{args.p}", args.p, lambda: [session.prefill(ids)]) if args.p else None


def _generation_row(args: argparse.Namespace, session: Session) -> dict[str, Any] | None:
    ids = _ids(session, args.n)
    return _row(args, session, f"tg{args.n}", args.n, lambda: [session.step([i], 1) for i in ids]) if args.n else None


def _ids(session: Session, count: int) -> list[int]:
    """Any ids do: speed does not depend on them."""
    return [(7 * place + 1) % session.model.vocab_size for place in range(count)]


def _row(
    args: argparse.Namespace, session: Session, test: str, tokens: int, work: Callable[[], list[StepResult]]
) -> dict[str, Any]:
    seconds: list[float] = []
    results: list[StepResult] = []
    board, simulated = session.artifact.target.board, _is_simulated(args.engine)
    warm_up = 0 if simulated else 1  # caches and page tables
    has_record = args.engine == "timed" and session.artifact.target.has("stream")  # commands of a host leave none
    with progress(test, args.repeat + warm_up) as bar:
        for repetition in range(args.repeat + warm_up):
            session.reset()
            if args.d:
                session.prefill(_ids(session, args.d), head_rows=0)
            start = time.perf_counter()
            results, record = _recorded(session, work) if has_record else (work(), None)
            took = sum(r.counters.cycles for r in results) / (1e6 * board.clock_mhz)
            if repetition >= warm_up:
                seconds.append(took if simulated else time.perf_counter() - start)
            bar.advance()
    cycles = sum(r.counters.cycles for r in results)
    rate = tokens / statistics.median(seconds)
    row = {
        "test": test + (f" @ d{args.d}" if args.d else ""), "engine": args.engine,
        "tok_s": rate, "tok_s_min": tokens / max(seconds), "tok_s_max": tokens / min(seconds),
        "ttft_s": statistics.median(seconds) if test.startswith("pp") else None,
        "bytes_per_token": sum(r.counters.bytes_read for r in results) / tokens,
        "cycles": cycles or None, "clock_mhz": board.clock_mhz,
        **(_shares(session, results, record) if args.engine == "timed" else dict.fromkeys(SHARES)),
    }  # fmt: skip
    return row | energy(board, rate if simulated else None)


def _recorded(session: Session, work: Callable[[], list[StepResult]]) -> tuple[list[StepResult], Record]:
    """The results, and the record of the last step."""
    device = session.device
    assert isinstance(device, NativeDevice)
    with tempfile.TemporaryDirectory(prefix="dlavm-bench-") as folder:
        file = Path(folder) / "record"
        device.set_option("profile", str(file))
        try:
            return work(), read_record(file)
        finally:
            device.set_option("profile", "")


def _shares(session: Session, results: list[StepResult], record: Record | None) -> dict[str, float | None]:
    """SHARES; of the last step's None without its record."""
    spec = session.artifact.target
    cycles = sum(r.counters.cycles for r in results)
    moved = sum(r.counters.bytes_read + r.counters.bytes_written for r in results)
    peak = spec.space("weights").peak_gbs * 1e9 / (spec.board.clock_mhz * 1e6)
    memory = moved / (cycles * peak)
    if record is None:
        return dict(zip(SHARES, (memory, None, None), strict=True))
    matrix = sum(command.cycles for command in record.commands if command.engine == "matrix")
    path = critical_path(record, spec.enums["engine"])
    return dict(zip(SHARES, (memory, matrix / record.cycles, path.control / record.cycles), strict=True))


def energy(board: Board, rate: float | None) -> dict[str, float]:
    """Tokens a joule at `rate` tokens a second, as a column; none where the board's file states no power."""
    return {ENERGY: rate / board.power_watts} if rate is not None and board.power_watts else {}


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return [*COLUMNS, *([ENERGY] if any(ENERGY in row for row in rows) else [])]


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table with the columns that any row has a value for."""
    columns = [c for c in _columns(rows) if any(row.get(c) is not None for row in rows)]
    lines = table(
        columns, [[_cell(row.get(c)) for c in columns] for row in rows], right=range(2, len(columns))
    ).splitlines()
    widths = [len(part) for part in lines[1].split("  ")]
    return "\n".join(_markdown_line(line, widths) for line in lines)


def _markdown_line(line: str, widths: list[int]) -> str:
    cells, at = [], 0
    for width in widths:
        cells.append(line[at : at + width].ljust(width))
        at += width + 2
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return (
        f"{value:.4g}"
        if isinstance(value, float) and value < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")
