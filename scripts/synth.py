"""Synthesises RTL with yosys and prints the tables of doc/hardware.md, "Feasibility". Needs the extra `rtl`.

python scripts/synth.py [-o FILE] [--only MODULE]...              the blocks, and what the vcu128 needs of them
python scripts/synth.py [-o FILE] --core BOARD [--target TARGET]  a whole core, by its modules

On two cores with other work the first takes 22 minutes, the core of nano 40.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dlavm.rtl.synth import BLOCKS, GROWTH, Block, Synthesis, block_table, feasibility_table, synthesize
from dlavm.rtl.synth_core import core_table, synthesize_core
from dlavm.support.errors import DlavmError
from dlavm.target import load_target


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _blocks(only: list[str] | None) -> str:
    results: dict[Block, Synthesis] = {}
    chosen = [block for block in (*BLOCKS, *GROWTH) if block.module in only] if only else BLOCKS
    for block in chosen:
        begin = time.monotonic()
        results[block] = synthesize(block)
        _report(f"{block.title}: {time.monotonic() - begin:.0f} s")
    text = block_table(results) + "\n"
    return text if only else f"{text}\n{feasibility_table(results)}\n"


def _core(target: str, board: str) -> str:
    done = synthesize_core(load_target(target, board), _report)
    _report(f"{done.seconds:.0f} s, {done.peak_bytes / 1e6:.0f} MB")
    return core_table(done.pieces) + "\n"


def main() -> int:
    """Prints or writes the tables; returns the exit code."""
    parser = argparse.ArgumentParser(description="resource estimates of the RTL")
    parser.add_argument("-o", "--output", type=Path, help="write the tables here instead of printing them")
    what = parser.add_mutually_exclusive_group()
    modules = sorted({block.module for block in (*BLOCKS, *GROWTH)})
    what.add_argument("--only", action="append", choices=modules, metavar="MODULE",
                      help="blocks of these modules, without the table of the board")  # fmt: skip
    what.add_argument("--core", metavar="BOARD", help="the whole core of this board")
    parser.add_argument("--target", default="v3", help="the core's target (%(default)s)")
    args = parser.parse_args()
    output: Path | None = args.output
    try:
        text = _core(args.target, args.core) if args.core else _blocks(args.only)
    except DlavmError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if output is None:
        print(text, end="")
    else:
        output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
