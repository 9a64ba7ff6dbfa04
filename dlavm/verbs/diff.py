"""`dlavm diff`: what changed between two builds."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlavm.support.errors import DlavmError
from dlavm.task.roll import merged_name
from dlavm.verbs.common import Subparsers, add_verb, is_artifact, open_artifact, print_json, table
from dlavm.view.differences import Change, differences

STAGES = ("graph", "task", "asm")
HASH_DIGITS = 12
SHORT = 60  # characters of two statements on one line
MAX_LINES = 40  # of a section; --json has all


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "diff",
        run,
        "show what changed between two builds",
        "Target and options, graph nodes, instructions by opcode, memory, weights by format, size and content, files.\n"
        "With `--stage` a unified diff of that text; then A and B may be text files too, such as those that\n"
        "DLAVM_DUMP=DIR writes. The exit code is 0 if nothing changed, 1 if something did.",
        """dlavm diff output/before output/after
        dlavm diff output/before output/after --stage task
        dlavm diff dump/graph-02-cse.txt dump/graph-03-fuse_epilogue.txt
        dlavm diff output/before output/after --json""",
    )
    parser.add_argument("a", metavar="A", help="an artifact, or a text file")
    parser.add_argument("b", metavar="B", help="the same, for what came later")
    parser.add_argument("--stage", choices=STAGES, help="the text of this stage, line by line")


def run(args: argparse.Namespace) -> int:
    if args.stage or not (is_artifact(args.a) or is_artifact(args.b)):
        return _diff_texts(args)
    found = differences(open_artifact(args.a), open_artifact(args.b))
    is_equal = not any(found.values())
    if args.json:
        sections = {name: [change.plain() for change in changes] for name, changes in found.items()}
        print_json({"equal": is_equal, "a": args.a, "b": args.b, **sections})
    elif is_equal:
        print(f"no difference: {args.a} and {args.b} are equal")
    else:
        print("\n\n".join(_section(name, changes) for name, changes in found.items() if changes))
    return 0 if is_equal else 1


def _diff_texts(args: argparse.Namespace) -> int:
    a, b = (_text(path, args.stage).splitlines() for path in (args.a, args.b))
    lines = list(difflib.unified_diff(a, b, args.a, args.b, lineterm=""))
    if args.json:
        print_json({"equal": not lines, "a": args.a, "b": args.b, "diff": lines})
    elif lines:
        print("\n".join(lines))
    return 1 if lines else 0


def _text(path: str, stage: str | None) -> str:
    """A text file, or the text of a stage of an artifact."""
    file = Path(path)
    if file.is_dir():
        if stage is None:
            raise DlavmError(f"diff: expected two artifacts or two text files, got the directory {path!r}")
        file = open_artifact(path).file(f"{stage}.txt")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "bytes that are no UTF-8"
        raise DlavmError(f"{path}: expected an artifact or a text file, got {reason!r}") from None


# -- for people ----------------------------------------------------------------------------------------------------


def _section(name: str, changes: Sequence[Change]) -> str:
    groups = _groups(changes)
    counts = [f"{n} {kind}" for kind in ("added", "removed", "changed") if (n := sum(c.kind == kind for c in changes))]
    shown = groups[:MAX_LINES]
    body = _texts(shown) if name == "graph" else _table(shown)
    rest = [f"... and {len(groups) - MAX_LINES} more lines"] if len(groups) > MAX_LINES else []
    return "\n".join([f"{name}: {', '.join(counts)}", *body, *rest])


def _groups(changes: Sequence[Change]) -> list[list[Change]]:
    """Changes that are the same but for numbers in names, such as those of all layers, together."""
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(_family(change), []).append(change)
    return list(groups.values())


def _family(change: Change) -> str:
    """What a change is in every layer: the numbers of names left out, those of values too where they follow a name."""
    values = json.dumps([_without_contents(change.a), _without_contents(change.b)])
    return re.sub(r"\d+", "*", change.name) + re.sub(r"(?<=[A-Za-z._])\d+|layer \d+", "*", values)


def _without_contents(fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if fields is None else {k: v for k, v in fields.items() if k not in ("sha256", "where")}


def _title(group: Sequence[Change]) -> str:
    return merged_name([c.name for c in group]) + (f" ({len(group)} times)" if len(group) > 1 else "")


def _texts(groups: Sequence[Sequence[Change]]) -> list[str]:
    lines = []
    for group in groups:
        a, b = (_statement(fields) for fields in (group[0].a, group[0].b))
        one_line = len(a) + len(b) < SHORT and group[0].kind == "changed"
        lines += [f"  {_title(group)}: {a} -> {b}"] if one_line else [f"  {_title(group)}"]
        if not one_line:
            lines += [f"    {sign} {text}" for sign, text in (("-", a), ("+", b)) if text]
    return lines


def _statement(fields: Mapping[str, Any] | None) -> str:
    """A statement of a graph with its place in the model."""
    if fields is None:
        return ""
    return fields["text"] + (f" @ {fields['where']}" if fields.get("where") else "")


def _table(groups: Sequence[Sequence[Change]]) -> list[str]:
    fields = list(dict.fromkeys(key for g in groups for side in (g[0].a, g[0].b) for key in side or ()))
    rows = [(_title(g), g[0].kind, *(_cell(g, field) for field in fields)) for g in groups]
    return [f"  {line}" for line in table(("name", "", *fields), rows).splitlines()]


def _cell(group: Sequence[Change], field: str) -> str:
    """The field before and after; empty where each of a group has its own."""
    change = group[0]
    if field == "sha256" and len(group) > 1:
        return ""
    a, b = ((side or {}).get(field) for side in (change.a, change.b))
    if a == b or change.a is None or change.b is None:
        return _shown(a if change.b is None else b, field)
    delta = f" ({b - a:+,})" if isinstance(a, int) and isinstance(b, int) and field != "address" else ""
    return f"{_shown(a, field)} -> {_shown(b, field)}{delta}"


def _shown(value: Any, field: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value[:HASH_DIGITS] if re.fullmatch(r"[0-9a-f]{64}", value) else value
    if field == "address":
        return f"0x{value:x}"
    if field == "shape":
        return "x".join(map(str, value)) or "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)
