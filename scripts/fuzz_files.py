"""Fuzzes the readers of checkpoints with atheris (libFuzzer for Python): GGUF, safetensors, quantised checkpoints.

python scripts/fuzz_files.py [gguf] [safetensors] [quantized] [--minutes 2] [--work build/fuzz-files] [--json]

Needs the package atheris. Whatever a file says, a reader may raise one DlavmError, no other exception; it takes at most
20 s and 2 GB. Inputs that were found stay in the work folder, and the next run begins with them. Exit code 1 for a
finding, whose input is in the work folder. `--replay FILE` runs one input of a target.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the seeds are made by helpers of the tests
LIMITS = ("-rss_limit_mb=2048", "-timeout=20", "-max_len=16384", "-print_final_stats=1")
FP8 = {"quant_method": "fp8", "weight_block_size": [32, 32]}
MOST_ZEROS = 1 << 18
OUTCOMES = "outcomes.json"  # of a run: how often inputs were read, and how often refused for what


def read_all(path: Path) -> str:
    """Reads a model and every tensor of it. Returns what the refusal was about, or `read`."""
    from dlavm.frontend import load_model
    from dlavm.support.errors import DlavmError

    try:
        model = load_model(path)
        graph = model.graph(8, 2)
        weights = model.needed_weights()
        for param in graph.params:
            for name, shape in param.tensors:
                values, grid = weights.get(name), weights.grid(name)
                assert values.shape == shape and (grid is None or grid.shape == shape)
    except DlavmError as error:
        return category(str(error))
    return "read"


def category(message: str) -> str:
    """The kind of a refusal: what it says but for names, numbers and quoted parts."""
    said = message.partition(": ")[2] or message
    said = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\([^)]*\)|[\w.|-]*[0-9._][\w.|-]*", "", said)
    return " ".join(said.split())[:60]


def padded(data: bytes) -> bytes:
    """A file from its head, so that inputs are short: four bytes say how many zeros stand behind the others."""
    return data[4:] + bytes(int.from_bytes(data[:4], "little") % MOST_ZEROS)


def gguf_input(data: bytes, folder: Path) -> str:
    path = folder / "model.gguf"
    path.write_bytes(padded(data))
    return read_all(path)


def safetensors_input(data: bytes, folder: Path) -> str:
    """The bytes are the head of model.safetensors; config.json is that of a small Llama."""
    from tests.unit.quantized_llama import CONFIG

    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 1, "quantization_config": FP8}))
    (folder / "model.safetensors").write_bytes(padded(data))
    return read_all(folder)


def quantized_input(data: bytes, folder: Path) -> str:
    """The bytes say what to change of a checkpoint that is sound (`fuzz_checkpoints.py`)."""
    from fuzz_checkpoints import changed_checkpoint

    changed_checkpoint(data, folder)
    return read_all(folder)


def gguf_seeds() -> list[bytes]:
    from fuzz_checkpoints import gguf_files

    from dlavm.frontend.gguf_file import GgufFile

    heads = []
    with TemporaryDirectory() as folder:
        for raw in gguf_files():
            (path := Path(folder) / "a.gguf").write_bytes(raw)
            start = min(tensor.offset for tensor in GgufFile(path).tensors.values())
            heads.append((len(raw) - start).to_bytes(4, "little") + raw[:start])
    return heads


def safetensors_seeds() -> list[bytes]:
    from fuzz_checkpoints import safetensors_files

    heads = []
    for raw in safetensors_files():
        start = 8 + int.from_bytes(raw[:8], "little")
        heads.append((len(raw) - start).to_bytes(4, "little") + raw[:start])
    return heads


def quantized_seeds() -> list[bytes]:
    return [bytes([method, *range(change, change + 40)]) for method in range(8) for change in (0, 60, 120)]


TARGETS: dict[str, tuple[Callable[[bytes, Path], str], Callable[[], list[bytes]]]] = {
    "gguf": (gguf_input, gguf_seeds),
    "safetensors": (safetensors_input, safetensors_seeds),
    "quantized": (quantized_input, quantized_seeds),
}


def child(name: str, work: Path, arguments: list[str]) -> None:
    """The fuzzing process; does not return."""
    import atheris

    # An editable install finds dlavm by a hook of its own, in front of the one that instruments what is imported.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__name__.startswith("ScikitBuild")]
    with atheris.instrument_imports(include=["dlavm.frontend"]):
        import dlavm.frontend  # noqa: F401
    run, _ = TARGETS[name]
    outcomes: Counter[str] = Counter()
    scratch = TemporaryDirectory(prefix="fuzz-files-")
    last = [time.monotonic()]

    def one(data: bytes) -> None:
        outcomes[run(data, Path(scratch.name))] += 1
        if time.monotonic() > last[0] + 2:
            (work / OUTCOMES).write_text(json.dumps(outcomes.most_common()))
            last[0] = time.monotonic()

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def fuzz(name: str, minutes: float, work: Path) -> dict[str, Any]:
    """Runs one target in a process of its own; what it found, with the end of its log for a finding."""
    corpus = work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name][1]()):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    command = [sys.executable, __file__, name, "--child", str(work), "--", *LIMITS, f"-artifact_prefix={work}/",
               f"-max_total_time={int(60 * minutes)}", str(corpus)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    (work / "log.txt").write_text(done.stderr)
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    edges = max(map(int, re.findall(r"\bcov: (\d+)", done.stderr)), default=0)
    outcomes = json.loads((work / OUTCOMES).read_text()) if (work / OUTCOMES).is_file() else []
    return {
        "target": name,
        "ok": done.returncode == 0 and edges > 0,
        "edges": edges,  # of the readers; none means that they were not instrumented, and nothing was learnt
        "executions": int(found[1]) if found else 0,
        "read": dict(outcomes).get("read", 0),
        "kinds_of_refusals": len([what for what, _ in outcomes if what != "read"]),
        "log": "" if done.returncode == 0 else (done.stdout + done.stderr)[-3000:],
    }


def main(argv: list[str]) -> int:
    """Fuzzes the targets one by one, or says in one line why not."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of checkpoints.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default all)")
    parser.add_argument("--minutes", type=float, default=2.0, help="for each target (default 2)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz-files", help="corpora and findings")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    own, _, rest = (argv, "", []) if "--" not in argv else (argv[: argv.index("--")], "", argv[argv.index("--") + 1 :])
    args = parser.parse_args(own)
    names = args.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        print(f"fuzz_files: error: target expected one of {tuple(TARGETS)!r}, got {unknown.pop()!r}", file=sys.stderr)
        return 2
    if args.child:
        child(names[0], args.child, rest)
    if args.replay:
        with TemporaryDirectory() as folder:
            print(TARGETS[names[0]][0](args.replay.read_bytes(), Path(folder)))
        return 0
    rows = [fuzz(name, args.minutes, args.work / name) for name in names]
    if args.json:
        print(json.dumps({"ok": all(row["ok"] for row in rows), "targets": rows}))
    for row in rows if not args.json else ():
        print("{target:12} {executions:8} inputs, {read} read, {kinds_of_refusals} kinds of refusals".format(**row))
        print(row["log"], end="")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
