"""Importing a checkpoint of the size of Llama-2-7B: rate, resident memory, and a build that is killed and goes on.

python scripts/large_import.py [--layers 32] [--work DIR] [--kill-at 0.5] [--page] [--json]

Writes a random checkpoint in shards (13 GB with 32 layers), builds it for v3 in a process of its own and reads that
process's peak of resident memory; beside it, the rate at which the same files are read and as many bytes are written,
which is what limits a build. With `--kill-at` a second build is killed at that part of the first one's time and
started again; its artifact must have the same bytes. `--page` writes the figures into doc/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench_table import replace_block, table
from random_checkpoint import SHAPES, write_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "doc" / "benchmarks.md"
CHUNK = 64 << 20
GB = 1e9


@dataclass(frozen=True)
class Figures:
    layers: int
    checkpoint_bytes: int
    weights_bytes: int
    build_s: float
    pack_s: float
    peak_rss_bytes: int
    read_gb_s: float
    write_gb_s: float
    resumed_s: float | None = None


def build_command(checkpoint: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "dlavm", "build", str(checkpoint), "--target", "v3", "-o", str(out), "--json"]


def build(checkpoint: Path, out: Path) -> tuple[dict[str, float], float]:
    started = time.perf_counter()
    done = subprocess.run(build_command(checkpoint, out), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout), time.perf_counter() - started


def killed_and_resumed(checkpoint: Path, out: Path, after_s: float) -> float:
    """Seconds of the second build, which takes up what a killed one left."""
    process = subprocess.Popen(build_command(checkpoint, out), stdout=subprocess.DEVNULL)
    time.sleep(after_s)
    process.kill()
    process.wait()
    if out.exists():
        raise SystemExit(f"{out}: expected nothing of a killed build under the final name")
    return build(checkpoint, out)[1]


def forget(checkpoint: Path) -> None:
    """Takes the shards out of the page cache: what is measured next reads the disk."""
    os.sync()
    for path in checkpoint.glob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_rate(checkpoint: Path) -> float:
    """Bytes a second of reading every shard once in large pieces."""
    forget(checkpoint)
    total, started, buffer = 0, time.perf_counter(), bytearray(CHUNK)
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total / (time.perf_counter() - started)


def write_rate(folder: Path, size: int) -> float:
    """Bytes a second of writing `size` bytes to disk."""
    path, block = folder / "written.bin", os.urandom(CHUNK)
    started = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(max(1, size // CHUNK)):
            file.write(block)
        os.fsync(file.fileno())
    rate = path.stat().st_size / (time.perf_counter() - started)
    path.unlink()
    return rate


def same_files(one: Path, other: Path) -> bool:
    """Whether two artifacts list the same files with the same hashes."""
    return (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def measure(work: Path, layers: int, kill_at: float | None) -> Figures:
    checkpoint, out = work / f"llama-{layers}", work / "artifact"
    size = write_checkpoint(checkpoint, replace(SHAPES["7b"], layers=layers))
    forget(checkpoint)
    report, seconds = build(checkpoint, out)
    resumed = None
    if kill_at is not None:
        again = work / "resumed"
        resumed = killed_and_resumed(checkpoint, again, seconds * kill_at)
        if not same_files(out, again):
            raise SystemExit(f"{again}: expected the bytes of {out}, got others")
    weights = int(report["weights_bytes"])
    return Figures(layers, size, weights, seconds, report["pack_s"], int(report["peak_rss_bytes"]),
                   read_rate(checkpoint) / GB, write_rate(work, weights) / GB, resumed)  # fmt: skip


def page(f: Figures) -> str:
    resumed = "-" if f.resumed_s is None else f"{f.resumed_s:.0f} s"
    rows = [
        ["checkpoint", f"{f.layers} layers, {f.checkpoint_bytes / GB:.1f} GB fp16 in shards"],
        ["build", f"{f.build_s:.0f} s, of which packing {f.pack_s:.0f} s"],
        ["rate", f"{f.checkpoint_bytes / GB / f.pack_s:.2f} GB of checkpoint a second"],
        ["peak of resident memory", f"{f.peak_rss_bytes / GB:.2f} GB"],
        ["packed weights", f"{f.weights_bytes / GB:.2f} GB"],
        ["the disk alone", f"reads {f.read_gb_s:.2f} GB/s, writes {f.write_gb_s:.2f} GB/s"],
        ["killed half way and started again", resumed],
    ]
    return table(["what", "measured"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "large-import")
    parser.add_argument("--kill-at", type=float, default=None)
    parser.add_argument("--page", action="store_true", help="write the figures into doc/benchmarks.md")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        figures = measure(args.work, args.layers, args.kill_at)
    finally:
        shutil.rmtree(args.work, ignore_errors=True)
    print(json.dumps(asdict(figures)) if args.json else page(figures))
    if args.page:
        PAGE.write_text(replace_block(PAGE.read_text(), "large import", page(figures)))


if __name__ == "__main__":
    main()
