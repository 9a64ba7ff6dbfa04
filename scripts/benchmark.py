"""Speed and memory of the bundled model and of a 1.1B shape with random weights, beside llama.cpp where that is
installed. Writes doc/benchmarks.md and doc/benchmarks.json, says what got worse than the committed figures
(bench_gate.py) and then ends with 1.

python scripts/benchmark.py [--models stories 1.1b] [--rounds N] [--dry-run]

Every engine is a process of its own (bench_worker.py). In each round each engine measures once, in turn: what else the
machine does meets all of them alike, and ratios are taken within a round. The first round only warms up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_gate
from bench_gate import Figure
from bench_table import number, ratios, replace_block, spread, table
from random_checkpoint import SHAPES, write_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
PAGE = ROOT / "doc" / "benchmarks.md"
OUT = ROOT / "output" / "bench"
TESTS = (("prompt", 128), ("generate", 64))
PACKAGES = ("gguf", "llama_cpp")  # what the peer needs
CTX = 1024  # of both
PAUSE_S = 0.02  # longer than any thread pool spins after its last job
MB = 1e6


@dataclass(frozen=True)
class Case:
    """A model that is measured. `model`: what `dlavm build` takes; `checkpoint`: the same weights, of which the peer's
    file is made. `reference`: whether the numpy reference takes part."""

    model: Path
    checkpoint: Path
    rounds: int
    reference: bool


CASES = {
    "stories": Case(ROOT / "models" / "stories.py", ROOT / "models" / "stories", 15, True),
    "1.1b": Case(OUT / "1.1b", OUT / "1.1b", 7, False),
}


class WorkerError(Exception):
    """An engine that could not be measured; the text is the last line it wrote."""


class Worker:
    """An engine in a process of its own. A context manager that ends the process."""

    def __init__(self, engine: str, path: Path, threads: int) -> None:
        self.engine, self.threads = engine, threads
        self.seconds: dict[str, list[float]] = {mode: [] for mode, _ in TESTS}
        self.peak_bytes = 0
        command = [sys.executable, str(SCRIPTS / "bench_worker.py"), engine, str(path), str(threads)]
        self._errors = OUT / f"{engine}-{threads}.log"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)},
            )  # fmt: skip
        about = self._answer()
        self.name, self.simd = str(about["engine"]), str(about.get("simd", ""))

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def measure(self, mode: str, count: int, keep: bool) -> None:
        """One measurement; kept in `seconds` unless it is there to warm up."""
        assert self._process.stdin is not None
        time.sleep(PAUSE_S)
        print(f"{mode} {count}", file=self._process.stdin, flush=True)
        answer = float(self._answer()["seconds"])
        if keep:
            self.seconds[mode].append(answer)

    def finish(self) -> None:
        """Ends the process and notes its peak memory."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.peak_bytes = int(self._answer()["peak_bytes"])
        self._process.stdin = None  # communicate() would write to it

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._errors.read_text().strip().splitlines()
            raise WorkerError(said[-1] if said else f"{self.engine} ended without a word")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass
class Results:
    """What one run has measured."""

    build: dict[str, Any]  # the object of `dlavm build --json`, and wall_s
    workers: list[Worker]
    gguf_bytes: int = 0
    left_out: list[str] = field(default_factory=list)
    load: str = ""

    def find(self, engine: str, threads: int) -> Worker | None:
        """The engine with so many threads, if it was measured."""
        return next((w for w in self.workers if (w.engine, w.threads) == (engine, threads)), None)


def build_artifact(model: Path, out: Path) -> dict[str, Any]:
    """Compiles the model for v3 on the vcu128 in a process of its own."""
    command = [sys.executable, "-m", "dlavm", "build", str(model), "--target", "v3", "--ctx", str(CTX),
               "-o", str(out), "--json"]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return {**report, "wall_s": time.perf_counter() - start}


def build_peer(checkpoint: Path, out: Path) -> str:
    """Writes the peer's file; returns why there will be no peer, or nothing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return f"llama.cpp: {' and '.join(missing)} not installed (`pip install -e .[bench]`)"
    command = [sys.executable, str(SCRIPTS / "make_gguf.py"), str(checkpoint), str(out)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    return f"llama.cpp: {done.stderr.strip().splitlines()[-1]}" if done.returncode else ""


def measure(name: str, rounds: int, threads: list[int]) -> Results:
    """Builds, then measures all engines in turn, round by round."""
    case = CASES[name]
    if name in SHAPES and not (case.model / "model.safetensors.index.json").is_file():
        write_checkpoint(case.model, SHAPES[name])
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    artifact, peer = OUT / f"{name}.artifact", OUT / f"{name}.gguf"
    results = Results(build_artifact(case.model, artifact), [], load=load)
    reason = build_peer(case.checkpoint, peer)
    engines = [("sim", artifact), ("sim-unchecked", artifact)]
    if reason:
        results.left_out.append(reason)
    else:
        results.gguf_bytes = peer.stat().st_size
        engines.insert(1, ("llama", peer))  # beside the engine that it is compared with
    plan = [(engine, path, t) for t in threads for engine, path in engines]
    _play(results, plan, rounds, warm=True)
    _play(results, [("reference", artifact, 1)] * case.reference, 1, warm=False)
    return results


def _play(results: Results, plan: list[tuple[str, Path, int]], rounds: int, warm: bool) -> None:
    workers: list[Worker] = []
    try:
        for engine, path, threads in plan:
            try:
                workers.append(Worker(engine, path, threads))
            except WorkerError as error:
                results.left_out.append(f"{engine}, {threaded(threads)}: {error}")
        for turn in range(-warm, rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
            for mode, count in TESTS:
                for worker in workers:
                    worker.measure(mode, count, keep=turn >= 0)
        for worker in workers:
            worker.finish()
    finally:
        for worker in workers:
            worker.__exit__()
    results.workers += workers


def report(results: Results, threads: list[int]) -> str:
    """The block of the page: machine, rates, build and memory."""
    parts = [machine(results, threads), speed_table(results, threads), memory_table(results)]
    parts += [f"Left out: {reason}." for reason in results.left_out]
    return "\n\n".join(parts)


def machine(results: Results, threads: list[int]) -> str:
    """One line that says where the figures come from."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    rounds = max(len(w.seconds["prompt"]) for w in results.workers)
    simd = next((w.simd for w in results.workers if w.engine == "sim"), "none")
    return (f"{processor()}, {cores} cores, {memory:.0f} GiB; SIMD path of the simulator: {simd}; Python "
            f"{platform.python_version()}; threads: {' and '.join(map(str, threads))}; medians of {rounds} rounds "
            f"(least to largest); load of the machine before the run (1, 5, 15 minutes): {results.load}.")  # fmt: skip


def threaded(count: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{count} thread{'s' * (count != 1)}"


def processor() -> str:
    """The processor as it calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def speed_table(results: Results, threads: list[int]) -> str:
    """Rates of every engine, each pair of engines with the ratio of the two."""
    rows = []
    for count in threads:
        ours, peer, unchecked = (results.find(name, count) for name in ("sim", "llama", "sim-unchecked"))
        rows += [speed_row(worker) for worker in (ours, peer) if worker]
        if ours and peer:
            # Of times, so that the peer's stand above.
            cells = [spread(ratios(peer.seconds[mode], ours.seconds[mode])) for mode, _ in TESTS]
            rows.append(["**dlavm sim / llama.cpp**", str(count), *cells, ""])
        rows += [speed_row(unchecked)] if unchecked else []
    rows += [speed_row(w) for w in results.workers if w.engine == "reference"]
    tests = [f"{mode} {count}, tok/s" for mode, count in TESTS]
    return table(["engine", "threads", *tests, "ms a generated token"], rows)


def speed_row(worker: Worker) -> list[str]:
    """An engine's rates in tokens a second."""
    cells = [spread([count / s for s in worker.seconds[mode]]) for mode, count in TESTS]
    mode, count = TESTS[1]
    return [worker.name, str(worker.threads), *cells, spread([1000 * s / count for s in worker.seconds[mode]])]


def memory_table(results: Results) -> str:
    """What a build takes and what a run holds."""
    build = results.build
    weights = build["weights_bytes"] / MB
    rows = [
        ["`dlavm build`: compile, s", number(build["compile_s"])],
        ["`dlavm build`: pack, s", number(build["pack_s"])],
        ["`dlavm build`: the whole command, s", number(build["wall_s"])],
        ["`dlavm build`: peak memory, MB", number(build["peak_rss_bytes"] / MB)],
        ["artifact: weights, MB", number(weights)],
    ]
    for worker in (w for w in results.workers if w.engine != "sim-unchecked"):
        peak, own = worker.peak_bytes / MB, results.gguf_bytes / MB if worker.engine == "llama" else weights
        text = f"{number(peak)} (weights + {number(peak - own)})"
        rows.append([f"{worker.name}, {threaded(worker.threads)}: peak memory of the process, MB", text])
    if results.gguf_bytes:
        rows.insert(5, ["GGUF file, Q4_0, MB", number(results.gguf_bytes / MB)])
    return table(["build and memory", "value"], rows)


def figures(name: str, results: Results, threads: list[int]) -> dict[str, Figure]:
    """What the gate compares of a model: ratios to the peer and peaks of memory."""
    found = {f"{name}: build, peak MB": Figure(round(results.build["peak_rss_bytes"] / MB, 1), "less", 0.1)}
    for count in threads:
        ours, peer = results.find("sim", count), results.find("llama", count)
        if ours:
            found[f"{name}: sim, {threaded(count)}, peak MB"] = Figure(round(ours.peak_bytes / MB, 1), "less", 0.1)
        for mode, tokens in TESTS if ours and peer else ():
            rounds = ratios(peer.seconds[mode], ours.seconds[mode])
            found[f"{name}: sim / llama.cpp, {threaded(count)}, {mode} {tokens}"] = bench_gate.ratio(rounds)
    return found


def gate(measured: dict[str, Figure], write: bool) -> int:
    """Says what changed against the committed figures; `write` puts the new ones in their place. 1 if any got worse."""
    committed = bench_gate.read()
    worse, better = bench_gate.changes(committed, measured)
    lines = [f"worse   {line}" for line in worse] + [f"better  {line}" for line in better]
    lines += [f"absent  {name}: not measured in this run, kept" for name in bench_gate.missing(committed, measured)]
    print("\n".join(lines or ["no figure of doc/benchmarks.json changed"]), file=sys.stderr)
    if write:
        bench_gate.FIGURES.write_text(bench_gate.text({**committed, **measured}))
    return int(bool(worse))


def main() -> int:
    """Measures, compares and writes the page."""
    parser = argparse.ArgumentParser(description="Measure dlavm beside llama.cpp; writes doc/benchmarks.md.")
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--rounds", type=int, help="measurements of each kind (default: 15 of a small model, 7)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 and 2")
    parser.add_argument("--dry-run", action="store_true", help="print the tables and leave page and figures alone")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    measured, text = bench_gate.counts(), PAGE.read_text()
    for name in args.models:
        results = measure(name, args.rounds or CASES[name].rounds, args.threads)
        block = report(results, args.threads)
        print(block)
        text = replace_block(text, name, block)
        measured |= figures(name, results, args.threads)
    if not args.dry_run:
        PAGE.write_text(text)
    return gate(measured, write=not args.dry_run)


if __name__ == "__main__":
    sys.exit(main())
