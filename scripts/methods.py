"""Perplexity of methods and formats of `dlavm quantize`. Writes the tables of doc/accuracy.md that are marked for it.

python scripts/methods.py NAME CHECKPOINT HELDOUT [--formats a,b] [--methods a,b] [--limit N] [--dry-run]

What is calibrated with is text that the model itself writes, sampled at temperature 1; HELDOUT is only judged by.
Everything is kept in output/methods/NAME, and a run goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_table import replace_block, table

from dlavm.compile import Options as BuildOptions
from dlavm.compile import build
from dlavm.frontend import Model, load_model
from dlavm.pack.artifact import Artifact
from dlavm.quantize import Options, quantize_model
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session, open_session
from dlavm.runtime.tokens import Tokenizer
from dlavm.target import load_target
from dlavm.verbs.floats import model_session, model_tokenizer
from dlavm.verbs.perplexity import documents, perplexity

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "doc" / "accuracy.md"
OUT = ROOT / "output" / "methods"
FORMATS = "int4g128,int4g32,int4g128z,int4g32z,int8g128,fp8g128,mxfp4,mxfp6,mxfp8,mxint8"
METHODS = "rtn,gptq,awq,awq+gptq"
SAMPLES, LENGTH = 64, 256


def main() -> None:
    args = arguments()
    folder = OUT / args.name
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(args.checkpoint)
    length = min(LENGTH, model.max_ctx or LENGTH)
    samples = written_samples(model, folder / "samples.json", length)
    heldout = read_heldout(model, Path(args.heldout), args.limit)
    results = Results(folder / "results.json", heldout)
    results.measure("float", args.checkpoint)
    for format in args.formats.split(","):
        for method in args.methods.split(","):
            out = folder / f"{method}-{format}"
            if not out.exists():
                results.sizes[format] = quantize_model(model, Options(method, (format,)), samples, out)
            results.measure(f"{method} {format}", out)
    block = results.block(args, len(samples), length)
    if args.dry_run:
        print(block)
    else:
        page = replace_block(PAGE.read_text(encoding="utf-8"), f"methods {args.name}", block)
        PAGE.write_text(page, encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the model: doc/accuracy.md has a block `methods NAME`")
    parser.add_argument("checkpoint")
    parser.add_argument("heldout", help="a text that the model was not trained on")
    parser.add_argument("--formats", default=FORMATS)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--limit", type=int, help="documents of the held-out text")
    parser.add_argument("--dry-run", action="store_true", help="print the block")
    return parser.parse_args()


def written_samples(model: Model, path: Path, length: int) -> list[list[int]]:
    """Windows of documents that the model writes in the simulator, each begun with a bos token; the same each time."""
    if not path.exists():
        artifact = path.with_name("artifact")
        build(model, load_target("v3", "nano"), BuildOptions(ctx=length, chunk=1), artifact)
        with open_session(Artifact.open(artifact), "sim") as session:
            path.write_text(json.dumps([write(model, session, length, seed) for seed in range(SAMPLES)]))
    return list(json.loads(path.read_text()))


def write(model: Model, session: Session, length: int, seed: int) -> list[int]:
    """One window: documents one behind the other."""
    bos, stop = int(str(model.config["bos_token_id"])), model.config["eos_token_ids"]
    sampler, ids = Sampler(temperature=1.0, seed=seed), [bos]
    session.reset()
    while len(ids) < length:
        token = sampler.sample(session.prefill([ids[-1]]).logits[-1])
        ids.append(bos if token in (stop or ()) else token)  # type: ignore[operator]
    return ids


def read_heldout(model: Model, path: Path, limit: int | None) -> list[list[int]]:
    tokenizer = model_tokenizer(model)
    assert isinstance(tokenizer, Tokenizer)
    bos = model.config.get("bos_token_id")
    texts = []
    for document in documents(path.read_text(encoding="utf-8"))[:limit]:
        ids = tokenizer.encode(document)
        texts.append((ids if ids[:1] == [bos] else [int(str(bos)), *ids])[: model.max_ctx])
    return texts


class Results:
    """Perplexities by row, and what `quantize` said of each."""

    def __init__(self, path: Path, heldout: Sequence[Sequence[int]]) -> None:
        self.path, self.heldout = path, heldout
        found = json.loads(path.read_text()) if path.exists() else {"perplexity": {}, "sizes": {}}
        self.perplexity: dict[str, float] = found["perplexity"]
        self.sizes: dict[str, dict[str, Any]] = found["sizes"]

    def measure(self, row: str, checkpoint: str | Path) -> None:
        """Float32 arithmetic on the weights that a build takes."""
        if row not in self.perplexity:
            session = model_session(load_model(checkpoint), BuildOptions(chunk=512))

            def logits(ids: Sequence[int]) -> np.ndarray[Any, Any]:
                session.reset()
                return session.logits(ids)

            self.perplexity[row] = perplexity(row, self.heldout, logits)
        self.path.write_text(json.dumps({"perplexity": self.perplexity, "sizes": self.sizes}, indent=1))
        print(f"{row}: {self.perplexity[row]:.4f}", flush=True)

    def block(self, args: argparse.Namespace, samples: int, length: int) -> str:
        methods, plain = args.methods.split(","), self.perplexity["float"]
        rows = [["float weights", "", "", f"{plain:.4f}", *[""] * (len(methods) - 1)]]
        for format in args.formats.split(","):
            size = self.sizes[format]
            found = [self.perplexity[f"{method} {format}"] for method in methods]
            rows.append([format, f"{size['bits_per_weight']:.3f}", f"{size['quantised_bytes'] / 1e6:.2f} MB",
                         *(f"{p:.4f} ({100 * (p / plain - 1):+.2f} %)" for p in found)])  # fmt: skip
        tokens = sum(len(ids) - 1 for ids in self.heldout)
        told = f"{len(self.heldout)} documents, {tokens:,} predicted tokens; calibration: {samples} x {length} tokens."
        return told + "\n\n" + table(["format", "bits a weight", "weights read a token", *methods], rows)


if __name__ == "__main__":
    main()
