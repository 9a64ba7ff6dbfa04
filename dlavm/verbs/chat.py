"""`dlavm chat`: a conversation at the terminal."""

from __future__ import annotations

import argparse
import re

from dlavm.runtime.chat import chat
from dlavm.support.errors import DlavmError
from dlavm.verbs.common import Subparsers, add_engine, add_sampling, add_verb, is_artifact, open_artifact, sampling_of

ADDRESS = re.compile(r"[^/\\]*:[0-9]+")


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "chat",
        run,
        "talk with a model",
        "/help lists the commands of the conversation. Lines of a pipe are turns too.",
        """dlavm chat output/stories
        echo "Tell me a story about a cat." | dlavm chat output/stories""",
        json=False,
    )
    parser.add_argument("artifact", metavar="ARTIFACT", help="a directory that `dlavm build` wrote")
    parser.add_argument("--system", metavar="TEXT", help="a system message at the beginning")
    add_sampling(parser)
    add_engine(parser)


def run(args: argparse.Namespace) -> int:
    if ADDRESS.fullmatch(args.artifact) and not is_artifact(args.artifact):
        raise DlavmError(
            f"chat: expected an artifact, got the address {args.artifact!r}: talking to a server comes with the server"
        )
    return chat(
        open_artifact(args.artifact), args.engine, args.threads, args.max_tokens, args.system, **sampling_of(args)
    )
