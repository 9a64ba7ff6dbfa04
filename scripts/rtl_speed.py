"""Cycles a second of the Verilated core, by how it was compiled. Prints the table of doc/hardware.md, "On Verilator".

python scripts/rtl_speed.py [--board nano] [--rounds 5]      some minutes a row; on a machine that does nothing else
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from dlavm.compile import Options
from dlavm.compile import build as build_artifact
from dlavm.frontend import load_model
from dlavm.pack.artifact import Artifact
from dlavm.rtl.model import Flags, build
from dlavm.runtime.session import Session, open_session
from dlavm.support.paths import data_root
from dlavm.target import load_target

PROMPT = [1, 203, 207, 261, 300]
WAYS = (Flags(), Flags("-O1"), Flags("-O3"), Flags(threads=2))


def title(flags: Flags) -> str:
    """As the table names it."""
    used = " (what is used)" if flags == Flags() else ""
    return f"{flags.optimize}, {flags.threads} thread{'s' * (flags.threads > 1)}{used}"


def rate(session: Session) -> float:
    """Cycles a second of wall time, of a prefill of PROMPT."""
    session.reset()
    start = time.perf_counter()
    result = session.prefill(PROMPT)
    return result.counters.cycles / (time.perf_counter() - start)


def main() -> int:
    """Builds every way, measures in turns, prints medians with the least and the largest."""
    parser = argparse.ArgumentParser(description="Cycles a second of the Verilated core.")
    parser.add_argument("--board", default="nano", help="default: nano")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    args = parser.parse_args()
    spec = load_target("v3", args.board)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        out = Path(folder) / "stories"
        build_artifact(load_model(str(data_root() / "models" / "stories.py"), None), spec, Options(ctx=128), out)
        sessions, seconds = [], []
        for number, flags in enumerate(WAYS):
            place = Path(folder) / str(number)
            place.mkdir()
            print(f"building: {title(flags)}", file=sys.stderr)
            start = time.perf_counter()
            path = build(spec, place, flags=flags)
            seconds.append(time.perf_counter() - start)
            sessions.append(stack.enter_context(open_session(Artifact.open(out), f"rtl:{path}")))
        rates = [[rate(session) for session in sessions] for _ in range(args.rounds)]
    print("| C++ compiled with | built in, s | cycles a second | least | most |\n|---|---:|---:|---:|---:|")
    for flags, took, found in zip(WAYS, seconds, zip(*rates, strict=True), strict=True):
        print(f"| {title(flags)} | {took:.0f} | {median(found):,.0f} | {min(found):,.0f} | {max(found):,.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
