"""Perplexity of real checkpoints in every weight format. Writes doc/accuracy.md.

python scripts/accuracy.py [--models stories,stories260K] [--formats A,B] [--tokens N] [--page] [--json]

Each checkpoint is built for v3 once a format and its held-out text goes through the float model, through float32
arithmetic on the quantised weights and through the simulator. `--page` writes the tables between the markers of the
page. What needs ../shared/models is left out where that is not there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench_table import replace_block, table

from dlavm.formats import FORMATS
from dlavm.support.progress import progress

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "models"
PAGE = ROOT / "doc" / "accuracy.md"
HELDOUT = SHARED / "stories" / "heldout.txt"
MODELS = {"stories": ROOT / "models" / "stories.py", "stories260K": SHARED / "stories260K"}
MB = 1e6


@dataclass(frozen=True)
class Row:
    """One build: its perplexities, its size, what a token reads from memory."""

    model: str
    format: str
    kv: str
    float: float
    quantised: float
    engine: float
    weights_mb: float
    token_mb: float


def dlavm(*arguments: object) -> dict[str, object]:
    """The object that a verb prints with --json."""
    command = [sys.executable, "-m", "dlavm", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if not done.stdout:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def measure(model: str, fmt: str, kv: str, work: Path, tokens: int | None) -> Row:
    out = work / f"{model}-{fmt}-{kv}"
    built = dlavm("build", MODELS[model], "--target", "v3", "--quant", fmt, "--kv", kv, "-o", out)
    some = ("--ppl-tokens", tokens) if tokens else ()
    ppl = dlavm("verify", out, "--engines", "sim", "--prompts", 1, "--tokens", 1, "--ppl", HELDOUT, *some,
                "--model", MODELS[model])["ppl"]  # fmt: skip
    rows = dlavm("bench", out, "-p", 1, "-n", 16)["rows"]
    shutil.rmtree(out)
    assert isinstance(ppl, dict) and isinstance(rows, list)
    token_bytes = next(row["bytes_per_token"] for row in rows if row["test"].startswith("tg"))
    return Row(model, fmt, kv, ppl["float"], ppl["quantised"], ppl["engine"],
               int(str(built["weights_bytes"])) / MB, token_bytes / MB)  # fmt: skip


def cases(models: list[str], formats: list[str]) -> Iterator[tuple[str, str, str]]:
    """Every format with an fp16 cache; the default one with an MXINT8 cache too."""
    for model in models:
        yield from ((model, fmt, "fp16") for fmt in formats)
        yield (model, formats[0], "mxint8")


def page(rows: list[Row]) -> str:
    """A table a model."""
    parts = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        lines = [
            [row.format, row.kv, f"{row.quantised:.4f}", f"{row.quantised / row.float - 1:+.2%}", f"{row.engine:.4f}",
             f"{row.engine / row.quantised - 1:+.4%}", f"{row.weights_mb:.2f}", f"{row.token_mb:.2f}"]
            for row in own
        ]  # fmt: skip
        head = ["weights", "KV cache", "quantised", "against float", "simulator", "against quantised", "weights, MB",
                "read a token, MB"]  # fmt: skip
        parts.append(f"**{model}**: the float model has {own[0].float:.4f}.\n\n{table(head, lines)}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--formats", default=",".join(["int4g128", *(f for f in FORMATS if f != "int4g128")]))
    parser.add_argument("--tokens", type=int, help="of the text, at most")
    parser.add_argument("--page", action="store_true", help="write the tables into doc/accuracy.md")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    models = [model for model in args.models.split(",") if MODELS[model].exists()]
    if not HELDOUT.exists():
        raise SystemExit(f"{HELDOUT}: not there")
    work = ROOT / "build" / "accuracy"
    todo = list(cases(models, args.formats.split(",")))
    rows = []
    with progress("perplexity", len(todo)) as bar:
        for model, fmt, kv in todo:
            rows.append(measure(model, fmt, kv, work, args.tokens))
            bar.advance()
    print(json.dumps([asdict(row) for row in rows]) if args.json else page(rows))
    if args.page:
        PAGE.write_text(replace_block(PAGE.read_text(), "formats", page(rows)))


if __name__ == "__main__":
    main()
