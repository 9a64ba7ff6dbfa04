"""`dlavm run`: one prompt, one answer, as it comes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from dlavm.compile import Options
from dlavm.runtime.generate import Generation, Summary, generate
from dlavm.runtime.profile import read_profile
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session, open_session
from dlavm.runtime.tokens import StreamDecoder, Tokenizer, load_tokenizer
from dlavm.support.errors import DlavmError
from dlavm.target.spec import Board
from dlavm.verbs import INTERRUPTED, floats
from dlavm.verbs.common import (
    Subparsers,
    add_engine,
    add_sampling,
    add_verb,
    add_waves,
    default_limit,
    id_list,
    is_artifact,
    model_of,
    open_artifact,
    positive,
    print_json,
    refuse_with_artifact,
    sampling_of,
    text,
    waves_of,
)

FLOAT_ENGINE = "reference-float"


@dataclass(frozen=True)
class Source:
    """What answers: a session, how it speaks, where it stops, how its authors want it sampled."""

    session: Session
    engine: str
    tokenizer: Tokenizer | None
    stop_ids: tuple[int, ...]
    defaults: Mapping[str, Any]
    limit: int


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "run",
        run,
        "answer one prompt",
        "The text comes on stdout as it is generated, a summary on stderr at the end: its rates are this computer's,\n"
        "and where the engine counts cycles it has the board's time for all steps, too. Sampling follows the model's\n"
        "own defaults; the seed is 0 unless given, so that the same command gives the same text.\n"
        "With `--engine reference --float` the model is evaluated in float32 with numpy instead: an artifact with the\n"
        "numbers that it holds, a MODEL (file or checkpoint directory) with its original weights.",
        """dlavm run output/stories --prompt "Tell me a story about a dog and a ball."
        dlavm run output/stories --prompt "Once upon a time" --raw --greedy --max-tokens 64
        dlavm run output/stories --prompt-ids 0,2,1762,506 --engine reference --json
        dlavm run output/stories-nano --engine rtl --prompt "Once" --max-tokens 1 --trace-waves waves.fst
        dlavm run path/to/checkpoint --engine reference --float --prompt-ids 1 --greedy""",
    )
    parser.add_argument(
        "artifact", metavar="ARTIFACT", help="a directory that `dlavm build` wrote (or MODEL with --float)"
    )
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument(
        "--prompt", metavar="TEXT", help="a user's turn, or a document's beginning where there is no chat template"
    )
    prompt.add_argument("--prompt-ids", type=id_list, metavar="1,2,3", help="token ids")
    parser.add_argument("--raw", action="store_true", help="take --prompt as it is, without the chat template")
    parser.add_argument(
        "--float", action="store_true", dest="is_float", help="float32 evaluation, with --engine reference"
    )
    parser.add_argument(
        "--stop", action="append", default=[], type=text, metavar="STR", help="end before this text (repeatable)"
    )
    parser.add_argument("--ignore-eos", action="store_true", help="go on after an end-of-text token")
    parser.add_argument(
        "--weights", type=text, metavar="DIR", help="with MODEL: directory of safetensors instead of its own"
    )
    parser.add_argument("--ctx", type=positive, metavar="N", help="with MODEL: positions in the cache")
    add_sampling(parser)
    add_engine(parser)
    add_waves(parser)


def run(args: argparse.Namespace) -> int:
    with _source(args) as source:
        if args.stop and source.tokenizer is None:
            raise DlavmError(f"--stop {args.stop[0]!r}: expected a model with a tokenizer, got one without")
        ids = _prompt_ids(args, source.tokenizer)
        sampler = Sampler.from_defaults(source.defaults, **sampling_of(args))
        answer = generate(
            source.session,
            ids,
            sampler,
            args.max_tokens or source.limit,
            stop_ids=() if args.ignore_eos else source.stop_ids,
            stop_strings=args.stop,
            decoder=StreamDecoder(source.tokenizer) if source.tokenizer else None,
        )
        interrupted = _stream(answer, silent=args.json, has_text=source.tokenizer is not None)
        if args.json:
            print_json(_report(answer.summary, source))
        else:
            board = source.session.artifact.target.board if answer.summary.cycles else None
            print(summary_line(answer.summary, source.engine, board), file=sys.stderr)
    return INTERRUPTED if interrupted else 0


def _report(summary: Summary, source: Source) -> dict[str, Any]:
    """With the counters of the last step, where the engine counts cycles."""
    report = summary.report(source.engine)
    if summary.cycles:
        session = source.session
        report["last_step"] = read_profile(session.device, session.artifact.target).report()
    return report


def _stream(answer: Generation, silent: bool, has_text: bool) -> bool:
    """Writes the answer as it comes; True if the user interrupted it."""
    try:
        for token in answer:
            if not silent:
                sys.stdout.write(token.text if has_text else f"{token.id} ")
                sys.stdout.flush()
        return False
    except KeyboardInterrupt:
        answer.close()
        return True
    finally:
        if not silent:
            print(flush=True)


def summary_line(summary: Summary, engine: str, board: Board | None) -> str:
    """A run in one line. Its times are this computer's; on an engine that counts cycles also that of the `board`."""
    traffic = f", {summary.bytes_read_per_token / 1e6:.2f} MB read a token" if summary.bytes_read_per_token else ""
    if board is not None:
        traffic += f", {summary.cycles:,} cycles: {summary.cycles / (1e3 * board.clock_mhz):.4g} ms of {board.name}"
    return (
        f"[{engine}: {summary.prompt_tokens} prompt tokens, first token after {summary.ttft_s:.3f} s, "
        f"{len(summary.tokens)} tokens at {summary.decode_tok_s:.1f} tok/s{traffic}, stopped by {summary.stop_reason}]"
    )


def _prompt_ids(args: argparse.Namespace, tokenizer: Tokenizer | None) -> list[int]:
    if args.prompt_ids is not None:
        return list(args.prompt_ids)
    if tokenizer is None:
        raise DlavmError("--prompt: expected a model with a tokenizer, got one without; use --prompt-ids")
    return tokenizer.prompt_ids(args.prompt, raw=args.raw)


@contextlib.contextmanager
def _source(args: argparse.Namespace) -> Iterator[Source]:
    if is_artifact(args.artifact):
        refuse_with_artifact(args, "ctx", "weights")
    waves = waves_of(args, [FLOAT_ENGINE if args.is_float else args.engine])
    if args.is_float:
        if args.engine != "reference":
            raise DlavmError(f"--float: expected --engine reference, got {args.engine!r}")
        yield _float_artifact(args) if is_artifact(args.artifact) else _float_model(args)
        return
    artifact = open_artifact(args.artifact)
    model = artifact.manifest.model
    with open_session(artifact, args.engine, args.threads, waves) as session:
        yield Source(
            session,
            args.engine,
            load_tokenizer(artifact),
            model.eos_token_ids,
            artifact.generation,
            default_limit(artifact.generation, model.ctx),
        )


def _float_artifact(args: argparse.Namespace) -> Source:
    artifact = open_artifact(args.artifact)
    model = artifact.manifest.model
    return Source(
        cast(Session, floats.quantised_session(artifact)),
        FLOAT_ENGINE,
        load_tokenizer(artifact),
        model.eos_token_ids,
        artifact.generation,
        default_limit(artifact.generation, model.ctx),
    )


def _float_model(args: argparse.Namespace) -> Source:
    model = model_of(args.artifact, args.weights)
    session = floats.model_session(model, Options(ctx=args.ctx))
    defaults = floats.model_defaults(model)
    eos = model.config.get("eos_token_ids")
    stop_ids = tuple(int(str(token)) for token in eos) if isinstance(eos, list) else ()
    return Source(
        cast(Session, session),
        FLOAT_ENGINE,
        floats.model_tokenizer(model),
        stop_ids,
        defaults,
        default_limit(defaults, session.ctx),
    )
