"""What the generators of committed files share: names, templates, and `--check` against writing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

import jinja2

from dlavm.support.paths import data_root


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.lower().split("_"))


def template_environment(package: str) -> jinja2.Environment:
    """Templates of `package`/templates, where a name that is not defined is an error."""
    env = jinja2.Environment(loader=jinja2.PackageLoader(package, "templates"), trim_blocks=True,
                             lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    env.filters.update(camel=camel)
    return env


def generator_main(module: str, doc: str | None, render: Callable[[], Mapping[str, str]],
                   argv: list[str] | None = None) -> int:
    """The command line of a generator. `render` gives path relative to the repository -> text.

    Writes the files that differ; with --check only names them and returns 1 where there are any.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=doc)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 where a file is not up to date")
    check = parser.parse_args(argv).check
    stale = []
    for relative, text in render().items():
        path = data_root() / relative
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(relative)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for relative in stale:
        print(f"{relative}: {'not up to date, regenerate with `make gen`' if check else 'written'}", file=sys.stderr)
    return int(check and bool(stale))
