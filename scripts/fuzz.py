"""Fuzzes the server of a generated host and the device server with libFuzzer, ASan and UBSan, from seeds of its own.

python scripts/fuzz.py [service] [device-server] [--minutes 10] [--work build/fuzz] [--page] [--json]

Needs clang++ with its libFuzzer. Inputs that were found stay in the work folder, and the next run begins with them. At
the end it says what of the fuzzed files was reached. `--page` writes that to doc/serving.md and doc/devices.md. Exit
code 1 for a finding, whose input is in the work folder; the same command with that file in place of a corpus shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_table import replace_block, table
from fuzz_seeds import device_seeds, device_words, dictionary, service_seeds, service_words

from dlavm.pack.artifact import Artifact
from dlavm.support.errors import DlavmError
from dlavm.support.progress import progress
from dlavm.target import load_target

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ROOT / "tests" / "native"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
COVERAGE = ("-fprofile-instr-generate", "-fcoverage-mapping")
PACKAGES = "Debian: apt-get install clang llvm libclang-rt-14-dev"
CONTEXT, CHUNK = 96, 16  # of the model that is served
# std::chrono::steady_clock::now(), and the function that starts a std::thread
NOW = "_ZNSt6chrono3_V212steady_clock3nowEv"
THREAD = "_ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE"
INPUT_BYTES, INPUT_SECONDS, MEMORY_MB = 8192, 20, 2048  # of one input at most

UNUSED = ("arguments", "generate", "net", "options", "server")  # of the host: programs, sockets, command lines
REMOTE = ("remote/hosted", "remote/peer", "remote/server", "remote/socket", "abi/file", "abi/misuse", "abi/registers",
          "abi/space", "sim/memory")  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A fuzz target: what it is made of, what it begins with, and the files whose coverage counts."""

    name: str
    page: Path
    sources: tuple[Path, ...]
    flags: tuple[str, ...]
    seeds: dict[str, bytes]
    words: list[bytes]
    judged: tuple[str, ...]


def service(work: Path) -> Target:
    """The service of the bundled model, built with a short context."""
    artifact = work / "artifact"
    if not artifact.exists():
        options = {"--target": "v3", "--board": "nano", "--ctx": CONTEXT, "--chunk": CHUNK, "-o": artifact}
        words = [str(word) for option in options.items() for word in option]
        run_quietly([sys.executable, "-m", "dlavm", "build", str(ROOT / "models/stories.py"), *words])
    host, opened = artifact / "host", Artifact.open(artifact)
    manifest, registers = opened.manifest, opened.target.registers
    used = [path for path in sorted(host.glob("*.cpp")) if path.stem not in UNUSED]
    first, names = registers["ARG"].offset, manifest.entries["step"].args
    return Target(
        "service", ROOT / "doc/serving.md",
        (*used, NATIVE / "fuzz_service.cpp", NATIVE / "playing_device.cpp"),
        (f"-I{host}", f"-I{host / 'include'}", f'-DFUZZ_ARTIFACT="{artifact}"',
         *(f"-DREGISTER_{name.upper()}={first + 4 * place}" for place, name in enumerate(names))),
        service_seeds(manifest.model_id, sum(cache.heads * cache.block_bytes for cache in manifest.kv)),
        service_words(manifest.model_id),
        (*(path.name for path in used), "chat_protocol.hpp", "wire.hpp"),
    )  # fmt: skip


def device_server(_work: Path) -> Target:
    registers = load_target("v1", "vcu128").registers
    clib = ROOT / "clib"
    return Target(
        "device-server", ROOT / "doc/devices.md",
        (*(clib / f"src/{name}.cpp" for name in REMOTE), NATIVE / "fuzz_device_server.cpp"),
        (f"-I{clib / 'include'}", f"-I{clib / 'src'}", f"-I{ROOT / 'targets/generated'}", "-pthread",
         f'-DFUZZ_CLOCK="{NOW}"', f'-DFUZZ_THREAD="{THREAD}"',
         f"-Wl,--wrap={NOW},--wrap={THREAD},--wrap=eventfd_write"),
        device_seeds(registers["LAUNCH"].offset, registers["CONTROL"].offset), device_words(),
        (*(f"{name.split('/')[1]}.cpp" for name in REMOTE if name.startswith("remote")), "space.cpp", "memory.cpp",
         "device_protocol.hpp", "wire.hpp"),
    )  # fmt: skip


TARGETS: dict[str, Callable[[Path], Target]] = {"service": service, "device-server": device_server}


def compile_target(target: Target, compiler: str, flags: Sequence[str], program: Path, replay: bool) -> Path:
    """Compiles the target; with `replay` a program that runs files, else one for libFuzzer."""
    objects = program.with_suffix(".o")
    objects.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-std=c++17", "-D_GLIBCXX_ASSERTIONS", *WARNINGS, *flags, f"-I{NATIVE}", *target.flags]
    if compiler.endswith("clang++"):
        command.append("-Wno-unused-command-line-argument")
    sources = (*target.sources, NATIVE / "fuzz_main.cpp") if replay else target.sources

    def one(source: Path) -> str:
        out = objects / f"{source.stem}.o"
        run_quietly([*command, "-c", str(source), "-o", str(out)])
        return str(out)

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(one, sources))
    run_quietly([*command, *made, "-o", str(program)])
    return program


def run_quietly(command: Sequence[str], **options: Any) -> str:
    """Standard output. Raises DlavmError with the last line that tells why it failed."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        lines = done.stderr.splitlines()
        said = [line for line in lines if re.search("error|ERROR|cannot find|failed", line)] or lines or ["an error"]
        raise DlavmError(f"{Path(command[0]).name}: expected to work, got {said[0]}")
    return done.stdout


def write_seeds(target: Target, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, seed in target.seeds.items():
        path = folder / name.replace(" ", "-")
        path.write_bytes(seed)
        paths.append(path)
    return paths


def parse_reached(output: str) -> dict[str, int]:
    """How often each thing was reached, from what a replay prints."""
    return {name: int(count) for name, count in (line.rsplit(" ", 1) for line in output.splitlines())}


def replay(target: Target, compiler: str, work: Path, mutations: int) -> dict[str, int]:
    """Runs the seeds and as many changes of them, without libFuzzer. Raises DlavmError for a finding."""
    program = compile_target(target, compiler, ("-O1", "-g1", *SANITIZERS), work / f"{target.name}-replay", True)
    seeds = write_seeds(target, work / target.name / "seeds")
    return parse_reached(run_quietly([str(program), str(mutations), *map(str, seeds)], timeout=500))


def fuzz(target: Target, compiler: str, work: Path, seconds: int) -> dict[str, Any]:
    """Runs libFuzzer for as long; what it counted. The findings are files of inputs."""
    program = compile_target(target, compiler, ("-O2", "-g", "-fsanitize=fuzzer", *SANITIZERS),
                             work / f"{target.name}-fuzz", False)  # fmt: skip
    folder = work / target.name
    write_seeds(target, folder / "seeds")
    for name in ("corpus", "findings"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "words").write_text(dictionary(target.words))
    command = [str(program), str(folder / "corpus"), str(folder / "seeds"), f"-max_total_time={seconds}",
               f"-dict={folder / 'words'}", f"-max_len={INPUT_BYTES}", f"-timeout={INPUT_SECONDS}",
               f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={folder / 'findings'}/", "-print_final_stats=1"]
    log = folder / "log"
    begin = time.monotonic()
    with log.open("w") as errors, progress(f"fuzzing {target.name}", seconds) as bar:
        process = subprocess.Popen(command, stderr=errors, stdout=errors)
        while process.poll() is None:
            time.sleep(1)
            bar.advance()
    text = log.read_text(errors="replace")
    return {"target": target.name, "seconds": round(time.monotonic() - begin), "seeds": len(target.seeds),
            **final_stats(text), "exit_code": process.returncode,
            "findings": sorted(path.name for path in (folder / "findings").iterdir())}  # fmt: skip


def final_stats(log: str) -> dict[str, int]:
    """Executions, their rate, covered edges and inputs that were kept, from a log of libFuzzer."""
    stats = dict(re.findall(r"^stat::(\w+):\s+(\d+)", log, re.MULTILINE))
    edges, corpus = (re.findall(rf"\b{name}: (\d+)", log) for name in ("cov", "corp"))
    return {"executions": int(stats.get("number_of_executed_units", 0)),
            "executions_per_s": int(stats.get("average_exec_per_sec", 0)),
            "peak_mb": int(stats.get("peak_rss_mb", 0)), "edges": int((edges or ["0"])[-1]),
            "corpus": int((corpus or ["0"])[-1])}  # fmt: skip


def tool(name: str) -> str:
    """A tool of LLVM, with or without a version in its name. Raises DlavmError if it is missing."""
    found = shutil.which(name) or next(filter(None, (shutil.which(f"{name}-{n}") for n in range(25, 10, -1))), None)
    if found is None:
        raise DlavmError(f"{name}: expected to be installed, got none ({PACKAGES})")
    return found


def coverage(target: Target, compiler: str, work: Path) -> dict[str, Any]:
    """What the corpus reaches: lines of each judged file, and how often each thing came."""
    program = compile_target(target, compiler, ("-O1", *COVERAGE), work / f"{target.name}-coverage", True)
    folder = work / target.name
    inputs = [str(path) for part in ("seeds", "corpus") for path in sorted((folder / part).iterdir())]
    raw, data = folder / "coverage.raw", folder / "coverage.data"
    output = run_quietly([str(program), "0", *inputs], env=os.environ | {"LLVM_PROFILE_FILE": str(raw)})
    run_quietly([tool("llvm-profdata"), "merge", "-sparse", str(raw), "-o", str(data)])
    export = [tool("llvm-cov"), "export", str(program), f"-instr-profile={data}", "-summary-only"]
    files = {}
    for entry in json.loads(run_quietly(export))["data"][0]["files"]:
        name = Path(entry["filename"]).name
        if name in target.judged:
            files[name] = {kind: [entry["summary"][kind]["covered"], entry["summary"][kind]["count"]]
                           for kind in ("lines", "branches")}  # fmt: skip
    return {"files": {name: files[name] for name in target.judged if name in files}, "reached": parse_reached(output)}


def page_block(report: dict[str, Any]) -> str:
    """The figures of a run as they stand on a page."""
    share = "{} of {}".format
    rows = [(name, share(*each["lines"]), share(*each["branches"])) for name, each in report["files"].items()]
    return (f"{report['seconds'] / 60:.0f} minutes, {report['executions']:,} inputs "
            f"({report['executions_per_s']:,} a second), {len(report['findings'])} findings. {report['seeds']} seeds "
            f"became {report['corpus']:,} inputs that cover {report['edges']:,} edges:\n\n"
            + table(("file", "lines", "branches"), rows))  # fmt: skip


def one(target: Target, compiler: str, work: Path, seconds: int, page: bool) -> dict[str, Any]:
    report = fuzz(target, compiler, work, seconds) | coverage(target, compiler, work)
    if page:
        text = target.page.read_text(encoding="utf-8")
        target.page.write_text(replace_block(text, f"fuzz {target.name}", page_block(report)), encoding="utf-8")
    return report


def find_compiler() -> str:
    compiler = shutil.which("clang++")
    if compiler is None:
        raise DlavmError(f"clang++: expected to be installed, for libFuzzer, got none ({PACKAGES})")
    return compiler


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="default: all")
    parser.add_argument("--minutes", type=float, default=10, help="for each target (default 10)")
    parser.add_argument("--work", type=Path, default=ROOT / "build/fuzz", help="programs, seeds, corpus, findings")
    parser.add_argument("--page", action="store_true", help="write the figures into the pages of doc/")
    parser.add_argument("--json", action="store_true", help="one JSON object for each target")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    try:
        compiler, work = find_compiler(), chosen.work.resolve()
        reports = [one(TARGETS[name](work), compiler, work, round(60 * chosen.minutes), chosen.page)
                   for name in chosen.targets or TARGETS]  # fmt: skip
    except DlavmError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    for report in reports:
        print(json.dumps(report, indent=1) if chosen.json else f"{report['target']}: {page_block(report)}\n")
    return 1 if any(report["findings"] or report["exit_code"] for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
