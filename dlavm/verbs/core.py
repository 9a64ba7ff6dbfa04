"""`dlavm core`: the RTL of a target on a board, as a library of Verilator or as files for a board's tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from dlavm.runtime.engine import RTL
from dlavm.support.errors import DlavmError
from dlavm.target.spec import TargetSpec
from dlavm.verbs.common import Subparsers, add_verb, is_artifact, open_artifact, print_json, target_of, text


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "core",
        run,
        "build the RTL of a target and board for Verilator, or write it for a board's tools",
        "Prints the URL of a device, the Verilated core: for --engine, `dlavm device-server --device` and the\n"
        "generated host. It is built once (minutes) and kept in the user's cache; `--engine rtl` does so by itself.\n"
        "With --waves it can write waves: behind URL?trace=FILE.fst&cycles=A:B it does, of the cycles A to B - 1.\n"
        "With --shell it writes instead a top with standard AXI ports, first constraints, the sources and their list\n"
        "(doc/hardware.md); no board has run them yet.",
        """dlavm core output/stories-nano
        build/host/server --device $(dlavm core output/stories-nano) --artifact output/stories-nano
        dlavm device-server --device $(dlavm core --target v3 --board nano)
        dlavm core --target v3 --board kv260 --shell output/kv260""",
    )
    parser.add_argument("artifact", nargs="?", metavar="ARTIFACT", help="whose target and board it is for")
    parser.add_argument("--target", type=text, metavar="T", help="instead of an artifact: the generation")
    parser.add_argument("--board", type=text, metavar="B", help="with --target: the board")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--waves", action="store_true", help="a library that can write waves; it is slower")
    action.add_argument("--shell", type=text, metavar="DIR", help="write files for a board's tools to a directory")


def run(args: argparse.Namespace) -> int:
    spec = _spec(args)
    if args.shell:
        from dlavm.rtl.shell import top_name, write_shell

        files = [str(path) for path in write_shell(spec, Path(args.shell))]
        report = {"top": top_name(spec), "files": files}
        lines = files
    else:
        from dlavm.rtl.model import library

        path = library(spec, waves=args.waves)
        report = {"url": f"{RTL}:{path}", "library": str(path), "waves": args.waves}
        lines = [f"{RTL}:{path}"]
    if args.json:
        print_json(report | {"target": spec.name, "board": spec.board.name, "target_hash": spec.hash})
    else:
        print("\n".join(lines))
    return 0


def _spec(args: argparse.Namespace) -> TargetSpec:
    if args.artifact is None:
        if not (args.target and args.board):
            raise DlavmError("core: expected an ARTIFACT, or --target and --board, got neither")
        return target_of(args)
    if args.target or args.board:
        raise DlavmError("core: expected an ARTIFACT or --target and --board, got both")
    if not is_artifact(args.artifact):
        raise DlavmError(f"artifact: expected a directory that `dlavm build` wrote, got {args.artifact!r}")
    return open_artifact(args.artifact).target
