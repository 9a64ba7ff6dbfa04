"""The command line: finds the verb, runs it, turns what it raises into one line and an exit code.

0 good, 1 the check failed, 2 bad usage or bad input, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from dlavm import __version__
from dlavm.support import env
from dlavm.support.errors import DlavmError
from dlavm.verbs import BROKEN_PIPE, INTERRUPTED

VERBS = ("build", "check", "run", "chat", "verify", "bench", "cycles", "profile", "sweep", "dump", "diff", "plan",
         "quantize", "targets", "doctor", "device-server", "core")  # fmt: skip


class Parser(argparse.ArgumentParser):
    """argparse, with errors in the one line that all others have too."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


class UsageError(DlavmError):
    """Arguments that argparse refuses."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `dlavm ARGV` and returns the exit code; messages go to stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    try:
        try:
            args = parser(arguments).parse_args(arguments)
            return int(args.run(args))
        finally:
            sys.stdout.flush()  # here, where a reader that left is noticed quietly
    except DlavmError as error:
        return _report(error, error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout again when it ends, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        named = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else ""
        return _report(error, DlavmError.exit_code, named)
    except MemoryError as error:
        return _report(error, DlavmError.exit_code)
    except Exception as error:
        kind = f"internal: {type(error).__name__}: {error}; DLAVM_DEBUG=1 shows where, please report it"
        return _report(error, DlavmError.exit_code, kind)


def parser(arguments: Sequence[str] = ()) -> Parser:
    """The parser; only the verb that `arguments` begin with is imported, or all where they begin with none."""
    top = Parser(
        prog="dlavm",
        description="Compiles language models for FPGA-style accelerators and runs them.",
        epilog="`dlavm VERB --help` has examples. Exit codes: 0 good, 1 the check failed, 2 bad usage or input.",
    )
    top.add_argument("--version", action="version", version=f"dlavm {__version__}")
    sub = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    chosen = [v for v in VERBS if list(arguments[:1]) == [v]]
    for verb in chosen or VERBS:
        importlib.import_module(f"dlavm.verbs.{verb.replace('-', '_')}").add_parser(sub)
    return top


def _open_closed_streams() -> None:
    """The null device for each standard stream that the caller closed (`dlavm ... >&-`), which Python shows as None.

    In this order, so that each takes the descriptor that is free and no later file does.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _report(error: BaseException, code: int, text: str = "") -> int:
    try:
        debug = env.DEBUG.get()
    except DlavmError:
        debug = False
    if debug:
        traceback.print_exception(error)
    line = " ".join((text or str(error)).split()) or type(error).__name__
    print(f"dlavm: error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
