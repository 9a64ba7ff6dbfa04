"""Synthesises the RTL blocks with yosys and prints the tables of doc/hardware.md, "Feasibility".

python scripts/synth.py [-o FILE] [--only MODULE]...      about four minutes for all; needs the extra `rtl`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dlavm.rtl.synth import BLOCKS, Block, Synthesis, block_table, feasibility_table, synthesize
from dlavm.support.errors import DlavmError


def main() -> int:
    """Prints or writes the tables; returns the exit code."""
    parser = argparse.ArgumentParser(description="resource estimates of the RTL blocks")
    parser.add_argument("-o", "--output", type=Path, help="write the tables here instead of printing them")
    parser.add_argument("--only", action="append", choices=sorted({block.module for block in BLOCKS}), metavar="MODULE",
                        help="blocks of these modules, without the table of the board")  # fmt: skip
    args = parser.parse_args()
    output: Path | None = args.output
    blocks = [block for block in BLOCKS if not args.only or block.module in args.only]
    results: dict[Block, Synthesis] = {}
    try:
        for block in blocks:
            results[block] = synthesize(block)
            print(f"{block.title}: done", file=sys.stderr)
        text = block_table(results) + "\n"
        if not args.only:
            text += f"\n{feasibility_table(results)}\n"
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
