"""`dlavm check`: everything that stands in the way of a build, at once."""

from __future__ import annotations

import argparse
import re

from dlavm.check import check
from dlavm.frontend import split_shape
from dlavm.support.errors import DlavmError
from dlavm.verbs.build import options_of
from dlavm.verbs.common import Subparsers, add_model, add_verb, model_of, print_json, target_of
from dlavm.verbs.values import value_problems

SHOWN = 3  # places that a line lists before it only counts


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "check",
        run,
        "name everything that cannot be compiled, with the place and the reason",
        "Options, graph, names, shapes and types of weights, every op on the target, the board's memory: all at once,\n"
        "but for a graph that cannot be built, which hides what comes behind it. Nothing is written. The exit code is\n"
        "1 if there is any problem, 2 if the model cannot be read. Notes say what nothing depends on; they are no\n"
        "problems. Values of weights are read only with `--values`: without it, a NaN or a number that fp16 cannot\n"
        "hold is found by build.",
        """dlavm check models/stories.py --target v3
        dlavm check models/stories.py --target v3 --values
        dlavm check models/stories.py --target v1 --json
        dlavm check models/qwen2.py:qwen2_72b --target v3 --weights none""",
    )
    add_model(parser)
    parser.add_argument("--values", action="store_true", help="read and quantise every weight too, as build does")


def run(args: argparse.Namespace) -> int:
    spec = target_of(args)
    try:
        model = model_of(args.model, args.weights)
    except DlavmError as error:
        if not args.json:
            raise
        problem = {"where": args.model, "what": str(error), "hint": "mend the model or its weights"}
        print_json({"ok": False, "problems": [placed(problem, args.model)], "notes": []})
        return error.exit_code
    if args.values and model.shapes_only:
        raise DlavmError(f"--values: expected weights to read, got --weights {args.weights}")
    found = check(model, spec, options_of(args))
    problems = found.problems
    if args.values and not problems:
        problems = value_problems(model, spec, options_of(args))
    problems = [placed(problem, args.model) for problem in problems]
    if args.json:
        print_json({"ok": not problems, "problems": problems, "notes": found.notes})
        return 1 if problems else 0
    print("".join(f"note: {note['where']}: {note['what']}\n" for note in found.notes), end="")
    if problems:
        print("\n".join(grouped(problems)))
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} on {args.target}, {args.board}")
    else:
        rest = "" if args.values else "; the values of its weights were not read (--values)"
        rest = "; names and shapes of its weights were not compared" if model.shapes_only else rest
        print(f"no problems: {args.model} can be built for {args.target} on {args.board}{rest}")
    return 1 if problems else 0


def placed(problem: dict[str, str], model: str) -> dict[str, str]:
    """The problem with the model's file, and the line if its text begins with one, as the place."""
    found = re.fullmatch(rf"({re.escape(str(split_shape(model)[0]))}[^:]*(?::\d+)?): (.+)", problem["what"], re.DOTALL)
    return problem | {"where": found[1], "what": found[2]} if found else problem


def grouped(problems: list[dict[str, str]]) -> list[str]:
    """A line for each kind of problem: the places of all layers that have it are listed behind each other."""
    places: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        places.setdefault((problem["what"], problem.get("hint", "")), []).append(problem["where"])
    lines = []
    for (what, hint), where in places.items():
        more = f" and {len(where) - SHOWN} more places" if len(where) > SHOWN else ""
        lines.append(f"{', '.join(where[:SHOWN])}{more}: {what}{f' ({hint})' if hint else ''}")
    return lines
