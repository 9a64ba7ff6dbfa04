"""Cycles of the timed simulator beside those of the Verilated core: `make timing` writes the table of doc/timing.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from dlavm.compile import Options, build
from dlavm.frontend import load_model
from dlavm.pack.artifact import Artifact
from dlavm.rtl.model import library
from dlavm.runtime.session import open_session
from dlavm.sim.native import NativeDevice
from dlavm.sim.timed import open_timed
from dlavm.support.paths import data_root
from dlavm.target import TargetSpec, load_target

sys.path.insert(0, str(data_root()))  # the tests' programs

from tests.ops.programs import MAKERS, Case, random_case  # noqa: E402
from tests.rtl.cores import execute, placed, write  # noqa: E402
from tests.rtl.timed_programs import concurrent_case, many_rows_case, single_case  # noqa: E402

BEGIN, END = "<!-- begin calibration, written by make timing -->\n", "<!-- end calibration -->\n"
SEEDS = 20
PROMPT, STEPS = (1, 203, 207, 261, 300), 3
BOARDS = ("nano", "kv260")  # the smallest size and one in the middle
MODELS = (("`llama_tiny`", "llama.py:llama_tiny", "v1", "fp16"),
          ("`llama_tiny`", "llama.py:llama_tiny", "v2", "fp16"),
          ("stories, cache fp16", "stories.py", "v3", "fp16"),
          ("stories, cache mxint8", "stories.py", "v3", "mxint8"))  # fmt: skip
Pairs = list[tuple[int, int]]  # cycles: core, timed
Row = tuple[str, str, str, Pairs]  # board, target, what


def pairs_of(spec: TargetSpec, sets: Mapping[str, list[Case]]) -> Iterator[Row]:
    """Cycles of programs whose operands lie in the spaces of their roles. The devices are not reset in between."""
    with NativeDevice(spec, f"rtl:{library(spec)}") as core, open_timed(spec) as timed:
        timed.set_option("check_hazards", 0)
        for name, cases in sets.items():
            pairs = []
            for case in (placed(spec, case) for case in cases):
                for device in (core, timed):
                    write(device, spec, case)
                    execute(device, spec, case)
                pairs.append((core.counters().cycles, timed.counters().cycles))
            yield spec.board.name, spec.name, name, pairs


def programs(board: str) -> Iterator[Row]:
    """Random commands of each kind alone and programs of all engines at once on v3; random programs on the others."""
    spec, seeds = load_target("v3", board), range(SEEDS)
    ops = sorted({make.__name__.upper() for make in MAKERS})
    sets = {op: [single_case(spec, op, seed) for seed in seeds] for op in ops}
    sets["LINEAR of up to 256 rows"] = [many_rows_case(spec, seed) for seed in seeds]
    sets["all engines at once"] = [concurrent_case(spec, seed) for seed in seeds]
    yield from pairs_of(spec, sets)
    for name in ("v1", "v2"):
        spec = load_target(name, board)
        yield from pairs_of(spec, {"random programs": [random_case(spec, seed, 8) for seed in seeds]})


def steps(board: str) -> Iterator[Row]:
    """A prompt of five tokens, then tokens one by one: the bundled model, and two layers of odd sizes."""
    with tempfile.TemporaryDirectory() as folder:
        for what, name, target, kv in MODELS:
            out = Path(folder) / f"{target}-{kv}"
            model = load_model(str(data_root() / "models" / name), "random" if ":" in name else None)
            build(model, load_target(target, board), Options(ctx=128, kv=kv), out)
            artifact, ids, pairs = Artifact.open(out), list(PROMPT), []
            with open_session(artifact, "rtl") as core, open_session(artifact, "timed") as timed:
                for _ in range(1 + STEPS):
                    results = [session.step(ids, 1) for session in (core, timed)]
                    pairs.append((results[0].counters.cycles, results[1].counters.cycles))
                    ids = [int(results[0].next_ids[-1])]
            yield board, target, f"{what}: prompt of {len(PROMPT)}", pairs[:1]
            yield board, target, f"{what}: {STEPS} tokens", pairs[1:]


def calibration() -> str:
    """The table as it stands in doc/timing.md."""
    lines = ["| board | target | program | runs | cycles of the core | of the simulator | mean error | worst |",
             "|---|---|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    rows = (row for board in BOARDS for rows in (programs(board), steps(board)) for row in rows)
    for board, target, name, pairs in progress(rows):
        core, timed = np.array(pairs).T
        errors = 100 * np.abs(timed / core - 1)
        lines.append(f"| {board} | {target} | {name} | {len(pairs)} | {core.sum():,} | {timed.sum():,} "
                     f"| {errors.mean():.2f} % | {errors.max():.2f} % |")  # fmt: skip
    return "\n".join(lines) + "\n"


def progress(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows; says on stderr which one there is, as a core takes minutes to build."""
    for row in rows:
        print(*row[:3], file=sys.stderr)
        yield row


def main() -> int:
    """Writes the table into doc/timing.md, or with --check compares it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 where the file would change")
    check = parser.parse_args().check
    path = data_root() / "doc" / "timing.md"
    text = path.read_text()
    before, rest = text.split(BEGIN)
    now = before + BEGIN + calibration() + END + rest.split(END)[1]
    if check:
        return int(now != text)
    path.write_text(now)
    return 0


if __name__ == "__main__":
    sys.exit(main())
