"""The errors that reach a person: bad input, a check that failed."""

from __future__ import annotations


class DlavmError(Exception):
    """Bad usage or bad input. The command line prints the message, without a traceback, and exits with 2.

    A message names the op or file, the field, what was expected, and ends in `got {x!r}`.
    """

    exit_code = 2


class CheckFailed(DlavmError):  # noqa: N818 - it reports a result, not a mistake of the caller
    """The input was fine and the answer is no: bits differ, a bar is missed, a file is stale. Exit 1."""

    exit_code = 1


class Problems(DlavmError):  # noqa: N818 - several of them
    """Everything that is wrong with an input: `problems` are places and what is wrong there, the message tells all."""

    def __init__(self, message: str, problems: list[tuple[str, str]]) -> None:
        super().__init__(message)
        self.problems = problems
