"""`dlavm chat`: a conversation at the terminal, with a model here or on a server."""

from __future__ import annotations

import argparse
import contextlib
import re
import ssl
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlavm.runtime.backend import Backend, LocalBackend
from dlavm.runtime.chat import Conversation, Repl, Script, history, line_reader, prompt_reader, status
from dlavm.runtime.connection import Address
from dlavm.runtime.remote import RemoteBackend
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import open_session
from dlavm.runtime.tokens import Tokenizer, find_tokenizer, folder_defaults, folder_tokenizer, load_tokenizer
from dlavm.support.errors import DlavmError
from dlavm.verbs.common import (
    Subparsers,
    add_engine,
    add_sampling,
    add_verb,
    default_limit,
    is_artifact,
    open_artifact,
    sampling_of,
    text,
)

ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^/\\:\[\]]*):([0-9]+)")
LOCAL_OPTIONS = ("engine", "threads")
REMOTE_OPTIONS = ("tokenizer", "secret_file", "tls", "ca")
MAX_SECRET = 1024  # bytes, as for the server


@dataclass(frozen=True)
class Partner:
    """Who answers, in which tokens, and how its authors want it sampled."""

    backend: Backend
    tokenizer: Tokenizer
    defaults: Mapping[str, Any]


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "chat",
        run,
        "talk with a model, here or on a server",
        "/help lists the commands of the conversation. Lines of a pipe are turns and commands too.\n"
        "A server (`server` of the artifact's folder host/) is named by its address. The tokenizer stays here: it is\n"
        "that of the artifact in this directory or in ./output which the server's model was built with.\n"
        "With --json each line of stdin gives one JSON object on stdout: the keys of `run --json` with model, kv_len\n"
        'and context; {"command", "text"} of a command; or {"error"}. The exit code is 1 if a line failed.',
        """dlavm chat output/stories
        echo "Tell me a story about a cat." | dlavm chat output/stories
        dlavm chat localhost:8123 --load yesterday.chat
        dlavm chat board.example.org:8123 --tls --secret-file secret.txt --tokenizer output/stories""",
        json=False,
    )
    parser.add_argument(
        "partner", metavar="ARTIFACT|HOST:PORT", help="a directory that `dlavm build` wrote, or a server's address"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, and nothing else, on stdout")
    parser.add_argument("--system", metavar="TEXT", help="a system message at the beginning")
    parser.add_argument(
        "--load", type=text, metavar="FILE", help="go on with a saved chat; options beside it override what it says"
    )
    add_sampling(parser)
    add_engine(parser)
    server = parser.add_argument_group("with HOST:PORT")
    server.add_argument("--tokenizer", type=text, metavar="DIR", help="the artifact, or a folder with tokenizer.json")
    server.add_argument("--secret-file", type=text, metavar="FILE", help="holds the secret that the server asks for")
    server.add_argument("--tls", action="store_true", help="the server is behind TLS")
    server.add_argument("--ca", type=text, metavar="FILE", help="with --tls: certificates to trust")
    given = [*LOCAL_OPTIONS, *REMOTE_OPTIONS]
    # The seed counts where it is given, with --load; its default is in its help.
    parser.set_defaults(seed=None, unset={name: parser.get_default(name) for name in given})


def run(args: argparse.Namespace) -> int:
    with _partner(args) as partner:
        conversation = _conversation(args, partner)
        if sys.stdin.isatty() and sys.stdout.isatty() and not args.json:
            _say(f"{partner.backend.model.name} on {partner.backend.place}; /help lists the commands")
            read = prompt_reader(history=history(_say), toolbar=lambda: status(conversation))
        else:
            read = line_reader(sys.stdin)
        if args.json:
            return 0 if Script(conversation, sys.stdout).run(read) else 1
        Repl(conversation, sys.stdout, sys.stderr).run(read)
        return 0


def _conversation(args: argparse.Namespace, partner: Partner) -> Conversation:
    """A new conversation, or the saved one with what the arguments change."""
    sampling = sampling_of(args)
    sampler = Sampler.from_defaults(partner.defaults, **(sampling | {"seed": args.seed or 0}))
    limit = args.max_tokens or default_limit(partner.defaults, partner.backend.model.context)
    conversation = Conversation(partner.backend, partner.tokenizer, sampler, limit, args.system)
    if args.load is not None:
        conversation.load(Path(args.load))
        for name, value in (sampling | {"max_tokens": args.max_tokens}).items():
            if value is not None:
                conversation.set(name, value)
        if args.system is not None:
            conversation.set_system(args.system)
    return conversation


@contextlib.contextmanager
def _partner(args: argparse.Namespace) -> Iterator[Partner]:
    address = None if is_artifact(args.partner) else ADDRESS.fullmatch(args.partner)
    if address is None:
        if not Path(args.partner).exists():
            raise DlavmError(f"chat: expected the folder of an artifact, or HOST:PORT of a server (IPv6 in brackets), "
                             f"got {args.partner!r}")  # fmt: skip
        _refuse(args, REMOTE_OPTIONS, "HOST:PORT")
        with _local(args) as partner:
            yield partner
    else:
        _refuse(args, LOCAL_OPTIONS, "an artifact")
        with contextlib.closing(RemoteBackend(_address(args, *address.groups()), _say)) as backend:
            folder = find_tokenizer(backend.tokenizer_id, args.tokenizer and Path(args.tokenizer))
            yield Partner(backend, folder_tokenizer(folder), folder_defaults(folder))


@contextlib.contextmanager
def _local(args: argparse.Namespace) -> Iterator[Partner]:
    artifact = open_artifact(args.partner)
    tokenizer = load_tokenizer(artifact)
    if tokenizer is None:
        raise DlavmError(f"chat: {artifact.path}: expected a tokenizer in the artifact, got none; use run --prompt-ids")
    with open_session(artifact, args.engine, args.threads) as session:
        yield Partner(LocalBackend(session, args.engine), tokenizer, artifact.generation)


def _address(args: argparse.Namespace, host: str, port: str) -> Address:
    if not 1 <= int(port) <= 65535:
        raise DlavmError(f"chat: expected a port in 1..65535, got {args.partner!r}")
    if args.ca is not None and not args.tls:
        raise DlavmError(f"--ca: expected --tls beside it, got {args.ca!r} alone")
    secret = "" if args.secret_file is None else _secret(Path(args.secret_file))
    return Address(host.strip("[]") or "localhost", int(port), secret, _tls(args.ca) if args.tls else None)


def _tls(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise DlavmError(f"--ca {ca}: expected a file of certificates, got {error.strerror or str(error)!r}") from None


def _secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_SECRET + 3).decode().rstrip("\r\n")  # with the end of its line, and a byte too many
    except (OSError, UnicodeDecodeError) as error:
        got = error.strerror if isinstance(error, OSError) else "bytes that are no UTF-8"
        raise DlavmError(f"--secret-file {path}: expected a readable text, got {got!r}") from None
    if not secret:
        raise DlavmError(f"--secret-file {path}: expected a secret, got an empty file")
    if len(secret.encode()) > MAX_SECRET:
        raise DlavmError(f"--secret-file {path}: expected at most {MAX_SECRET} bytes, got more")
    return secret


def _refuse(args: argparse.Namespace, names: tuple[str, ...], needed: str) -> None:
    """Raises DlavmError for options that mean nothing beside this partner."""
    for name in names:
        if getattr(args, name) != args.unset[name]:
            raise DlavmError(f"--{name.replace('_', '-')}: expected {needed} beside it, got {args.partner!r}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
