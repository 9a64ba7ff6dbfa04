"""What verbs share: argument types, groups of arguments, tables, the one JSON object."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from errno import EISDIR
from os import strerror
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlavm.formats import FORMATS
from dlavm.pack.artifact import Artifact
from dlavm.quant import AUTO, DEFAULT, DEFAULT_KV
from dlavm.runtime.engine import RTL, Waves, engine_forms
from dlavm.support.atomic import MANIFEST_NAME
from dlavm.support.errors import DlavmError
from dlavm.target.layout import KV_FORMATS
from dlavm.target.spec import TargetSpec, load_target

if TYPE_CHECKING:
    from dlavm.frontend import Model

Subparsers = Any  # argparse keeps the type of add_subparsers() to itself
DEFAULT_BOARD = "vcu128"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def add_verb(
    sub: Subparsers, name: str, run: Callable[[argparse.Namespace], int], summary: str, details: str, examples: str,
    json: bool = True,
) -> argparse.ArgumentParser:  # fmt: skip
    """A subparser with `--json` (unless not) and help that ends in examples; `args.run` is the verb."""
    shown = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    parser: argparse.ArgumentParser = sub.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{details.strip()}",
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    if json:
        parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")
    return parser


def add_model(parser: argparse.ArgumentParser, required_target: bool = True) -> None:
    """MODEL and how it is compiled."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a Python model file, FILE.py:SHAPE for one of its shapes, a Hugging Face directory, GGUF or ONNX file",
    )
    add_compilation(parser, required_target)


def add_compilation(parser: argparse.ArgumentParser, required_target: bool) -> None:
    """The options of a compilation. Without `required_target` those that are not given stay None."""
    board, quant, kv = (DEFAULT_BOARD, AUTO, DEFAULT_KV) if required_target else (None, None, None)
    parser.add_argument("--target", required=required_target, metavar="T", help="accelerator generation: v1, v2, v3")
    parser.add_argument("--board", default=board, metavar="B", help=f"board (default {DEFAULT_BOARD})")
    parser.add_argument(
        "--weights",
        type=text,
        metavar="W",
        help="a directory of safetensors instead of the model's own; random[:SEED] for random numbers; none for shapes",
    )
    parser.add_argument("--ctx", type=positive, metavar="N", help="positions in the KV cache (default: the model's)")
    parser.add_argument("--chunk", type=positive, metavar="N", help="tokens a prefill step takes at most")
    parser.add_argument(
        "--quant",
        default=quant,
        metavar="FMT",
        help=f"format of the weights: {', '.join(FORMATS)}; {AUTO} (default) keeps those of a quantised checkpoint and "
        f"makes all others {DEFAULT}; a .json file has formats by globs of tensor names",
    )
    parser.add_argument(
        "--kv",
        default=kv,
        metavar="FMT",
        help=f"format of the KV cache: {', '.join(KV_FORMATS)} (default {DEFAULT_KV})",
    )
    parser.add_argument(
        "--unroll", action="store_true", default=None, help="write every layer out instead of a loop; the same bits"
    )


def add_artifact(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="ARTIFACT", help="a directory that `dlavm build` wrote")


def add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", default="sim", metavar="E", help=f"one of {', '.join(engine_forms())} (default %(default)s)"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of the engine (default: all cores)")


def add_waves(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trace-waves", type=text, metavar="FILE.fst", help="with the engine rtl: write the waves of all its signals"
    )
    parser.add_argument(
        "--trace-cycles",
        type=cycle_window,
        metavar="A:B",
        help=f"cycles of --trace-waves, from A on and before B (default {Waves.begin}:{Waves.end})",
    )


def waves_of(args: argparse.Namespace, engines: Sequence[str]) -> Waves | None:
    """The waves that the arguments ask for; DlavmError where none of the engines has any."""
    if args.trace_waves is None:
        if args.trace_cycles is not None:
            raise DlavmError("--trace-cycles: expected --trace-waves FILE.fst beside it, got none")
        return None
    if RTL not in engines:
        raise DlavmError(f"--trace-waves: expected the engine {RTL}, got {', '.join(map(repr, engines))}")
    file = Path(args.trace_waves)
    if "&" in str(file) or not file.parent.is_dir():
        raise DlavmError(f"--trace-waves: expected a file in a directory that exists, without '&', got {str(file)!r}")
    return Waves(file, *(args.trace_cycles or (Waves.begin, Waves.end)))


def add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-tokens", type=positive, metavar="N", help="tokens to generate at most (default: the model's)"
    )
    parser.add_argument("--greedy", action="store_true", help="always the likeliest token: --temperature 0")
    parser.add_argument("--temperature", type=float, metavar="X", help="0 is greedy (default: the model's)")
    parser.add_argument("--top-k", type=natural, metavar="N", help="choose among the N likeliest tokens; 0: all")
    parser.add_argument(
        "--top-p", type=float, metavar="X", help="choose among the likeliest that sum to this probability"
    )
    parser.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of the random numbers (default 0)"
    )


def refuse_with_artifact(args: argparse.Namespace, *names: str) -> None:
    """Raises DlavmError for options that only compile a MODEL."""
    for name in names:
        if getattr(args, name) is not None:
            raise DlavmError(f"--{name}: expected a MODEL beside it, got an artifact, which is compiled already")


def sampling_of(args: argparse.Namespace) -> dict[str, Any]:
    """The sampler's values among the arguments; None where the model's default counts."""
    if args.greedy and args.temperature:
        raise DlavmError(f"--greedy: expected no --temperature beside it, got {args.temperature!r}")
    temperature = 0.0 if args.greedy else args.temperature
    return {"temperature": temperature, "top_k": args.top_k, "top_p": args.top_p, "seed": args.seed}


def default_limit(defaults: Mapping[str, Any], context: int) -> int:
    """Tokens to generate at most where nobody says: what the model's authors state, else a whole context."""
    stated = defaults.get("max_new_tokens")
    return stated if isinstance(stated, int) and stated > 0 else context


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    return _integer(text, 1)


def natural(text: str) -> int:
    """An argparse type: an integer of at least 0."""
    return _integer(text, 0)


def text(value: str) -> str:
    """An argparse type: a path or a text that is not empty."""
    if not value:
        raise argparse.ArgumentTypeError(f"expected at least one character, got {value!r}")
    return value


def id_list(text: str) -> list[int]:
    """An argparse type: token ids, `1,2,3`."""
    return [natural(part) for part in text.split(",")]


def length_list(text: str) -> list[int]:
    """An argparse type: lengths of at least 1, `1,7,32`."""
    return [positive(part) for part in text.split(",")]


def _integer(text: str, low: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low:
        raise argparse.ArgumentTypeError(f"expected an integer of at least {low}, got {text!r}")
    return value


def cycle_window(text: str) -> tuple[int, int]:
    """An argparse type: `A:B`, A below B."""
    first, colon, last = text.partition(":")
    if not colon or not first.isdecimal() or not last.isdecimal() or not int(first) < int(last) < 1 << 63:
        raise argparse.ArgumentTypeError(f"expected A:B with A below B, got {text!r}")
    return int(first), int(last)


def target_of(args: argparse.Namespace) -> TargetSpec:
    """The target on its board that the arguments name."""
    return load_target(args.target, args.board)


def model_of(path: str, weights: str | None = None) -> Model:
    """The model that an argument names. Raises DlavmError as the front ends do, and for an artifact.

    What a model file prints goes to stderr (dlavm.frontend.python_model): stdout belongs to the verb.
    """
    from dlavm.frontend import load_model

    if is_artifact(path):
        raise DlavmError(f"model: expected a Python model file or a checkpoint directory, got the artifact {path!r}")
    return load_model(path, weights)


def tell_what_lacks(lacks: str) -> None:
    """On stderr, what the memory of the board is too small for in a verb that tells its time all the same."""
    if lacks:
        print(f"timed as if the board had room for it: {lacks}", file=sys.stderr)


def write_text(option: str, path: Path, content: str) -> None:
    """Writes a file that an option names. Raises DlavmError naming option and path where it cannot be written."""
    prepare_file(option, path)
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise DlavmError(f"{option}: {path}: expected a file that can be written, got {error.strerror!r}") from None


def prepare_file(option: str, path: Path) -> None:
    """Makes the directory of a file that an option names: before long work, so that a wrong path is told at once."""
    try:
        if path.is_dir():
            raise IsADirectoryError(EISDIR, strerror(EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DlavmError(f"{option}: {path}: expected a file that can be written, got {error.strerror!r}") from None


def prepare_files(files: Mapping[str, str | None]) -> None:
    """The same for the file of each option that has one. Raises DlavmError for a file that two options name."""
    owners: dict[Path, str] = {}
    for option, file in files.items():
        if not file:
            continue
        prepare_file(option, Path(file))
        other = owners.setdefault(Path(file).resolve(), option)
        if other != option:
            raise DlavmError(f"{option}: {file}: expected another file than that of {other}")


def is_artifact(path: str) -> bool:
    return (Path(path) / MANIFEST_NAME).is_file()


def open_artifact(path: str) -> Artifact:
    """The checked artifact that an argument names."""
    folder = Path(path)
    if not is_artifact(path) and (folder.suffix.startswith(".py") or (folder / "config.json").is_file()):
        raise DlavmError(f"artifact: expected a directory that `dlavm build` wrote, got the model {path!r}")
    return Artifact.open(folder)


def print_json(value: Any) -> None:
    """One JSON object, the only thing on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def size(count: float) -> str:
    """Bytes for people."""
    for unit in UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} {UNITS[-1]}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Columns under a header; those in `right` are aligned to the right."""
    texts = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([line(texts[0]), "  ".join("-" * w for w in widths), *map(line, texts[1:])])
