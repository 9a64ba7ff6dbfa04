"""`dlavm check`: everything that stands in the way of a build, at once."""

from __future__ import annotations

import argparse

from dlavm.compile import check
from dlavm.verbs.build import options_of
from dlavm.verbs.common import Subparsers, add_model, add_verb, model_of, print_json, target_of

SHOWN = 3  # places that a line lists before it only counts


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "check",
        run,
        "name every op that cannot be compiled, with the place and the reason",
        "Nothing is written. The exit code is 1 if there is any problem. Names and shapes of weights are checked;\n"
        "their values are not read, so that a NaN is found by build.",
        """dlavm check models/stories.py --target v3
        dlavm check models/stories.py --target v1 --json""",
    )
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    problems = check(model_of(args.model, args.weights), target_of(args), options_of(args))
    if args.json:
        print_json({"ok": not problems, "problems": problems})
    elif problems:
        print("\n".join(grouped(problems)))
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} on {args.target}, {args.board}")
    else:
        print(f"no problems: {args.model} can be built for {args.target} on {args.board}")
    return 1 if problems else 0


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
