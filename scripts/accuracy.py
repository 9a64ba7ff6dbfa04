"""Perplexity of the two bundled checkpoints in every weight format and with either KV cache. Writes doc/accuracy.md.

python scripts/accuracy.py [--models A,B] [--formats A,B] [--kv A,B] [--tokens N] [--shared DIR] [--fresh] [--dry-run]

Each model is built for v3 in every format, in those of --kv with an MXINT8 cache too, and the first tokens of its
held-out text go through the float model, through float32 arithmetic on the quantised weights, and through the
simulator. What was measured is kept in output/accuracy, and a run goes on where the last one stopped; `--fresh`
forgets it, as a changed compiler wants.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_page import Row, block
from bench_table import replace_block
from numpy.typing import NDArray

from dlavm.compile import Options, build
from dlavm.formats import BLOCK, FORMATS
from dlavm.frontend import Model, load_model
from dlavm.pack.artifact import Artifact
from dlavm.runtime.session import open_session
from dlavm.support.progress import progress
from dlavm.target import load_target
from dlavm.verbs.floats import FloatSession, model_session, quantised_session
from dlavm.verbs.perplexity import perplexity, read_documents

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "doc" / "accuracy.md"
OUT = ROOT / "output" / "accuracy"
BLOCK_NAME = "formats"
CACHED = 64  # tokens in the cache where the bytes of a step are counted
CACHED_FORMATS = ("int4g128", "int8g128", "mxfp4", "mxint8")
Texts = list[list[int]]


@dataclass(frozen=True)
class Subject:
    """A checkpoint and a text that it was not trained on."""

    name: str
    model: Model
    heldout: Path


def subject(name: str, shared: Path) -> Subject:
    """One of the models that the script knows. Exits where its files are not there."""
    places = {"stories": ROOT / "models" / "stories.py", "stories260K": shared / "models" / "stories260K"}
    heldout = shared / "models" / "stories" / "heldout.txt"
    if name not in places:
        raise SystemExit(f"--models: expected some of {', '.join(places)}, got {name!r}")
    for path in (places[name], heldout):
        if not path.exists():
            raise SystemExit(f"{path}: not there; --shared names the directory with the models")
    return Subject(name, load_model(places[name]), heldout)


class Results:
    """What was measured so far, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = json.loads(path.read_text()) if path.exists() else {"floats": {}, "rows": []}
        self.floats: dict[str, float] = found["floats"]
        self.rows = [Row(**row) for row in found["rows"]]

    def keep(self) -> None:
        rows = [asdict(row) for row in self.rows]
        self.path.write_text(json.dumps({"floats": self.floats, "rows": rows}, indent=1))

    def has(self, case: tuple[str, str, str]) -> bool:
        return any(row.case == case for row in self.rows)


def float_perplexity(session: FloatSession, label: str, texts: Texts) -> float:
    def logits(ids: Sequence[int]) -> NDArray[np.floating[Any]]:
        session.reset()
        return session.logits(ids)

    return perplexity(label, texts, logits)


def measure(one: Subject, format: str, kv: str, limit: int | None) -> Row:
    """Builds one artifact, reads what is needed of it, and removes it."""
    out = OUT / f"{one.name}-{format}-{kv}"
    build(one.model, load_target("v3"), Options(quant=format, kv=kv), out)
    artifact = Artifact.open(out)
    texts = read_documents(artifact, one.heldout, limit)
    label = f"{one.name} {format} {kv}"
    quantised = float_perplexity(quantised_session(artifact), f"{label}, float32", texts)
    with open_session(artifact, "sim", threads=1) as session:

        def logits(ids: Sequence[int]) -> NDArray[np.floating[Any]]:
            session.reset()
            return session.prefill(ids, logits_all=True).logits

        engine = perplexity(f"{label}, simulator", texts, logits)
        session.reset()
        session.prefill(texts[0][:1] * CACHED)
        read = session.step(texts[0][:1], 1).counters.bytes_read
    manifest = artifact.manifest
    cache = sum(kv.heads * kv.block_bytes // BLOCK for kv in manifest.kv)
    shutil.rmtree(out)
    return Row(one.name, format, kv, sum(len(ids) - 1 for ids in texts), len(texts), quantised, engine,
               manifest.memory.weights_bytes, read, cache)  # fmt: skip


def original(one: Subject, limit: int | None) -> float:
    """Perplexity of the checkpoint's own numbers in float32."""
    out = OUT / one.name
    build(one.model, load_target("v3"), Options(), out)  # for its tokenizer and its context
    texts = read_documents(Artifact.open(out), one.heldout, limit)
    shutil.rmtree(out)
    return float_perplexity(model_session(one.model, Options(chunk=512)), f"{one.name}, float weights", texts)


def run(results: Results, subjects: Sequence[Subject], cases: Sequence[tuple[str, str]], limit: int | None) -> None:
    """Measures those cases, format and cache, that `results` lacks."""
    todo = [(one, *case) for case in cases for one in subjects if not results.has((one.name, *case))]
    with progress("formats and caches", len(todo)) as bar:
        for one, format, kv in todo:
            if one.name not in results.floats:
                results.floats[one.name] = original(one, limit)
            results.rows.append(measure(one, format, kv, limit))
            results.keep()
            bar.advance()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="stories,stories260K", metavar="A,B")
    parser.add_argument("--formats", default=",".join(FORMATS), metavar="A,B")
    parser.add_argument("--kv", default=",".join(CACHED_FORMATS), metavar="A,B",
                        help="formats that have an MXINT8 cache too (default %(default)s)")  # fmt: skip
    parser.add_argument("--tokens", type=int, default=2000, metavar="N", help="of the text (default %(default)s)")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", metavar="DIR",
                        help="that has models/stories260K and the text (default: beside the checkout)")  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="measure everything anew")
    parser.add_argument("--dry-run", action="store_true", help="print the tables and leave the page alone")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"results-{args.tokens}.json"
    if args.fresh:
        path.unlink(missing_ok=True)
    results, formats, cached = Results(path), args.formats.split(","), args.kv.split(",")
    cases = [*((format, "fp16") for format in formats), *((format, "mxint8") for format in cached)]
    subjects = [subject(name, args.shared) for name in args.models.split(",")]
    run(results, subjects, cases, args.tokens)
    chosen = [row for one in subjects for case in cases for row in results.rows if row.case == (one.name, *case)]
    text = block(results.floats, chosen)
    print(text)
    if not args.dry_run:
        PAGE.write_text(replace_block(PAGE.read_text(encoding="utf-8"), BLOCK_NAME, text), encoding="utf-8")


if __name__ == "__main__":
    main()
