"""`dlavm quantize`: a float model becomes a quantised checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlavm.formats import FORMATS
from dlavm.frontend import Model
from dlavm.frontend.jsonfile import read_json
from dlavm.quantize import METHODS, Options, quantize_model
from dlavm.quantize.partial import SUFFIX
from dlavm.runtime.tokens import Tokenizer
from dlavm.support.errors import DlavmError
from dlavm.target.spec import load_target
from dlavm.verbs.common import DEFAULT_BOARD, Subparsers, add_verb, model_of, positive, print_json, size, table, text
from dlavm.verbs.floats import model_tokenizer
from dlavm.verbs.perplexity import documents

DEFAULT_FORMAT, DEFAULT_TARGET = "int4g128", "v3"
SAMPLES, LENGTH = 64, 512


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "quantize",
        run,
        "quantise the weights of a float model into a new checkpoint",
        "The checkpoint is a Hugging Face directory that `dlavm build` takes as it is: compressed-tensors where that\n"
        "has the format, else in a form of its own. It is written whole or not at all. What is done is kept in\n"
        "DIR.partial; the same command goes on from there after an interruption, and gives the same bytes.\n\n"
        "methods: rtn rounds to nearest. gptq makes good for the errors of the first columns in the later ones, by\n"
        "what the layer's inputs are for a text. awq scales the channels of large inputs up before rounding, and what\n"
        "makes them down, where that is a norm or another linear layer. awq+gptq does both. All but rtn need a text.",
        """dlavm quantize path/to/checkpoint -o output/model-int4 --calibration train.txt
        dlavm quantize path/to/checkpoint -o output/model-rtn --method rtn --format int4g32z
        dlavm quantize path/to/checkpoint -o output/model-mx --method awq+gptq --format mxfp4 --calibration train.txt
        dlavm quantize path/to/checkpoint -o output/model-mixed --budget 4.5 --target v3 --calibration train.txt
        dlavm quantize path/to/checkpoint -o output/model --format int4g128,int8g128 --budget 5 --calibration train.txt
        dlavm quantize path/to/checkpoint -o output/model --exclude 'lm_head*' --calibration ids.json""",
    )
    parser.add_argument("model", metavar="MODEL", help="what `dlavm build` takes, with float weights")
    parser.add_argument("-o", "--output", required=True, type=text, metavar="DIR", help="where the checkpoint goes")
    parser.add_argument("--weights", type=text, metavar="W", help="as `dlavm build` takes it")
    parser.add_argument(
        "--method", default="gptq", choices=tuple(METHODS), help="how weights are rounded (default %(default)s)"
    )
    parser.add_argument(
        "--format", type=text, metavar="FMT",
        help=f"number format (default {DEFAULT_FORMAT}); with --budget those to choose from, with commas between: "
        + ", ".join(FORMATS),
    )  # fmt: skip
    parser.add_argument(
        "--target", metavar="T", help=f"with --budget: choose from what this target has (default {DEFAULT_TARGET})"
    )
    parser.add_argument(
        "--calibration", type=text, metavar="FILE",
        help="a text like those that the model is for, not one that it is judged by; or NAME.json, lists of token ids",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=positive, default=SAMPLES, metavar="N", help="parts of the text (default %(default)s)"
    )
    parser.add_argument(
        "--length", type=positive, metavar="L", help=f"tokens of each (default {LENGTH}, or the model's context)"
    )
    parser.add_argument(
        "--budget", type=float, metavar="BITS", help="bits a weight on average; each layer gets a format of its own"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], type=text, metavar="GLOB", help="tensors to leave as they are"
    )
    parser.add_argument(
        "--act-order", action="store_true", help="gptq: columns in the order of their inputs' size; groups stay"
    )


def run(args: argparse.Namespace) -> int:
    model = model_of(args.model, args.weights)
    options = Options(args.method, _formats(args), args.budget, tuple(args.exclude), args.act_order)
    out = Path(args.output)
    try:
        report = quantize_model(model, options, _samples(model, args), out)
    except KeyboardInterrupt:
        state = out.with_name(out.name + SUFFIX)
        if state.is_dir():
            print(f"dlavm: interrupted; what is done is in {state}, and the same command goes on", file=sys.stderr)
        raise
    if args.json:
        print_json(report)
    else:
        print(summary(report))
    return 0


def _formats(args: argparse.Namespace) -> tuple[str, ...]:
    """One or, under a budget, those that are named or that the target has."""
    named = tuple(args.format.split(",")) if args.format else ()
    if args.budget is None:
        if len(named) > 1:
            raise DlavmError(f"--format: expected one format without --budget, got {args.format!r}")
        if args.target:
            raise DlavmError(f"--target: expected --budget beside it, got {args.target!r}")
        return named or (DEFAULT_FORMAT,)
    if named and args.target:
        raise DlavmError(f"--target: expected no --format beside it, got {args.target!r}")
    if named:
        return named
    spec = load_target(args.target or DEFAULT_TARGET, DEFAULT_BOARD)
    return tuple(name for name in FORMATS if spec.has(name))


def _samples(model: Model, args: argparse.Namespace) -> list[list[int]]:
    """Parts of the calibration text, all of the same length; none without a text.

    Raises DlavmError for a model without a tokenizer, a file that cannot be read, and a text that is too short.
    """
    if args.calibration is None:
        return []
    path = Path(args.calibration)
    length = args.length or min(LENGTH, model.max_ctx or LENGTH)
    vocab = int(model.graph(1, 1).outputs["logits"].type.shape[-1])
    if path.suffix == ".json":
        return _windows(_read_ids(path, vocab), None, args.samples, length, path)
    tokenizer = model_tokenizer(model)
    if tokenizer is None:
        expectation = "expected token ids (NAME.json) for a model without a tokenizer"
        raise DlavmError(f"--calibration: {expectation}, got {str(path)!r}")
    bos = model.config.get("bos_token_id")
    bos = bos if isinstance(bos, int) else None
    return _windows(_encode(path, tokenizer), bos, args.samples, length, path)


def _encode(path: Path, tokenizer: Tokenizer) -> list[list[int]]:
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DlavmError(f"--calibration: {path}: expected a readable text, got {error.strerror!r}") from None
    except UnicodeDecodeError:
        raise DlavmError(f"--calibration: {path}: expected a text in UTF-8, got other bytes") from None
    return [tokenizer.encode(document) for document in documents(content)]


def _read_ids(path: Path, vocab: int) -> list[list[int]]:
    documents = read_json(path).get("ids")
    if not isinstance(documents, list) or not all(
        isinstance(ids, list) and all(isinstance(i, int) and 0 <= i < vocab for i in ids) for ids in documents
    ):
        raise DlavmError(f"--calibration: {path}: ids expected lists of token ids in 0..{vocab - 1}")
    return documents


def _windows(texts: Sequence[Sequence[int]], bos: int | None, count: int, length: int, path: Path) -> list[list[int]]:
    """At most `count` windows of `length` tokens, spread evenly over all texts one behind the other; each begins with
    the bos token. One shorter window where all together are shorter than one."""
    ids = [token for text in texts for token in text]
    own = length - (bos is not None)
    if len(ids) < 2 or own < 1:
        raise DlavmError(f"--calibration: {path}: expected a text of at least two tokens, got {len(ids)}")
    count = max(1, min(count, len(ids) // own))
    starts = [(len(ids) - own) * i // max(1, count - 1) if len(ids) > own else 0 for i in range(count)]
    return [([bos] if bos is not None else []) + ids[start : start + own] for start in starts]


def summary(report: dict[str, Any]) -> str:
    """A run in a table and a few lines."""
    rows = [
        (row["name"], row["format"], f"{row['bits_per_weight']:.3f}", _percent(row["weight_error"]),
         _percent(row["output_error"]), "yes" if row["scaled"] else "")
        for row in report["tensors"]
    ]  # fmt: skip
    calibration = report["calibration"]
    told = f"{calibration['samples']} x {calibration['length']} tokens" if calibration["samples"] else "none"
    lines = [
        ("checkpoint", f"{report['checkpoint']} ({size(report['checkpoint_bytes'])})"),
        ("method", f"{report['method']}, {', '.join(report['formats'])}"),
        ("weights", f"{size(report['quantised_bytes'])}, {report['bits_per_weight']:.3f} bits each"),
        ("calibration", told),
        ("time", f"{report['seconds']:.1f} s, {size(report['peak_rss_bytes'])} of memory"),
    ]
    header = ("tensor", "format", "bits", "weight error", "output error", "scaled")
    return "\n".join([table(header, rows, right=(2, 3, 4)), "", *(f"{name + ':':13} {value}" for name, value in lines)])


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3f} %"
