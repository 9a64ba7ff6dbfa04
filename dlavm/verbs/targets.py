"""`dlavm targets`: the generations and boards, what each can do and what is still missing."""

from __future__ import annotations

import argparse
from typing import Any

from dlavm.compile import Options, compile_model
from dlavm.formats import FORMATS
from dlavm.frontend import Model, load_model
from dlavm.graph import OPS
from dlavm.lower import missing_rules
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.target import TargetSpec, load_target
from dlavm.target.sizes import matrix_lanes, vector_lanes
from dlavm.target.spec import list_boards, list_targets
from dlavm.verbs.common import DEFAULT_BOARD, Subparsers, add_verb, print_json, size, table

PROBE = "models/stories.py"


def add_parser(sub: Subparsers) -> None:
    add_verb(
        sub,
        "targets",
        run,
        "list accelerator generations and boards",
        "What each generation can do, which graph ops have no lowering rule for it yet, and whether `dlavm build` can\n"
        "produce a program for it.",
        """dlavm targets
        dlavm targets --json""",
    )


def run(args: argparse.Namespace) -> int:
    probe = load_model(data_root() / PROBE)
    targets, boards = [_target(name, probe) for name in list_targets()], [_board(name) for name in list_boards()]
    if args.json:
        print_json({"targets": targets, "boards": boards})
    else:
        print("\n".join([*map(_target_text, targets), _board_table(boards)]))
    return 0


def build_problem(model: Model, spec: TargetSpec) -> str:
    """Why `dlavm build` cannot compile a plain Llama model for a target, tried rather than told; empty where it can."""
    try:
        compile_model(model, spec, Options())
    except DlavmError as error:
        return str(error)
    return ""


def _target(name: str, probe: Model) -> dict[str, Any]:
    spec = load_target(name, DEFAULT_BOARD)
    problem = build_problem(probe, spec)
    return {
        "name": name, "doc": spec.doc.strip(),
        "capabilities": sorted(spec.capabilities), "commands": list(spec.commands),
        "weight_formats": [name for name in FORMATS if spec.has(name)],
        "ops_without_rule": missing_rules(list(OPS), spec), "can_build": not problem, "problem": problem,
        "hash": {board: load_target(name, board).hash for board in list_boards()},
    }  # fmt: skip


def _board(name: str) -> dict[str, Any]:
    """Lanes of the newest generation: the memory of the weights decides them, and a generation names that."""
    spec = load_target(list_targets()[-1], name)
    board = spec.board
    return {
        "name": name, "doc": board.doc.strip(), "clock_mhz": board.clock_mhz, "matrix_lanes": matrix_lanes(spec),
        "vector_lanes": vector_lanes(spec),
        "memories": [{"name": m.name, "channels": m.channels, "port_bytes": m.port_bytes, "peak_gbs": m.peak_gbs,
                      "capacity_bytes": m.capacity} for m in board.memories.values()],
    }  # fmt: skip


def _target_text(target: dict[str, Any]) -> str:
    doc = " ".join(target["doc"].split())
    lines = [f"{target['name']}: {doc}",
             f"  build         {'yes' if target['can_build'] else 'no: ' + target['problem']}",
             f"  capabilities  {', '.join(c for c in target['capabilities'] if c not in FORMATS)}",
             f"  weights       {', '.join(target['weight_formats'])}",
             f"  commands      {', '.join(target['commands'])}",
             f"  no rule for   {', '.join(target['ops_without_rule']) or '-'}"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _board_table(boards: list[dict[str, Any]]) -> str:
    header = ("board", "memory", "channels", "GB/s", "capacity", "clock MHz", "lanes matrix", "vector")
    rows = [(board["name"], m["name"], m["channels"], f"{m['peak_gbs']:.1f}", size(m["capacity_bytes"]),
             f"{board['clock_mhz']:g}", board["matrix_lanes"], board["vector_lanes"])
            for board in boards for m in board["memories"]]  # fmt: skip
    return table(header, rows, right=range(2, len(header)))
