"""How scripts/learn.py tells its chapters: a heading, what the chapter says and shows, a pause."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Sequence

from dlavm.support.errors import DlavmError
from dlavm.verbs import BROKEN_PIPE, INTERRUPTED

WIDTH = 116
Chapter = Callable[[], None]


def show(text: str) -> None:
    """Prints output of the library, indented; long lines are broken."""
    print()
    for line in text.rstrip().splitlines():
        pieces = textwrap.wrap(line, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False)
        print("\n".join(pieces))


def claim(text: str, holds: bool) -> None:
    """Says that something holds. Raises DlavmError where it does not."""
    if not holds:
        raise DlavmError(f"learn: expected that {text}, got the opposite")
    print(f"  checked: {text}")


def main(description: str, chapters: Sequence[Chapter], argv: Sequence[str] | None = None) -> int:
    """Tells the chapters that `argv` asks for; returns the exit code."""
    args = _arguments(description, len(chapters), argv)
    chosen = [args.chapter] if args.chapter else range(1, len(chapters) + 1)
    pause = sys.stdin.isatty() and sys.stdout.isatty() and not args.no_pause
    try:
        for number in chosen:
            if number != chosen[0] and pause and not args.list:
                input("\nEnter for the next chapter ")
            _tell(number, chapters[number - 1], args.list)
        sys.stdout.flush()
    except DlavmError as error:
        print(error, file=sys.stderr)
        return 1
    except EOFError:  # the reader has enough
        print()
    except KeyboardInterrupt:
        print()
        return INTERRUPTED
    except BrokenPipeError:  # as in `learn.py | head`; Python flushes again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return 0


def _tell(number: int, chapter: Chapter, heading_only: bool) -> None:
    title, _, prose = (inspect.getdoc(chapter) or "").partition("\n\n")
    heading = f"{number}. {title}"
    if heading_only:
        print(heading)
        return
    print(f"\n{heading}\n{'=' * len(heading)}\n\n{prose}")
    chapter()


def _arguments(description: str, chapters: int, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description,
                                     epilog="Exit code: 0, or 1 if something that the tour claims is not so.")
    parser.add_argument("--chapter", type=int, choices=range(1, chapters + 1), metavar="N",
                        help=f"tell this one alone, of 1..{chapters}")
    parser.add_argument("--list", action="store_true", help="print the headings")
    parser.add_argument("--no-pause", action="store_true",
                        help="do not wait for Enter between chapters, as when output goes to a pipe or a file")
    return parser.parse_args(argv)
