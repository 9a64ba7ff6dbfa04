"""The generated C++ project: what model.hpp states, its layout, and that it compiles whatever a model has or lacks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dlavm import __version__
from dlavm.codegen import Code, generate
from dlavm.codegen.cpp import expression, statements
from dlavm.codegen.host import HostContext, HostFile, HostPatch, HostPort, HostTable, render_host
from dlavm.describe import host_context
from dlavm.pack.manifest import Manifest
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.sym import Var, lt, minimum, select
from dlavm.target import load_target
from dlavm.task import parse_program
from tests.unit.fake_runtime import CHUNK, IDS, LOGITS, NEXT, STREAM, VOCAB, manifest

# .cpp and .hpp
PAIRS = ("arguments", "bus", "connection", "driver", "files", "net", "options", "program", "sampling", "service",
         "turn")  # fmt: skip
SINGLE = ("conversation.hpp", "generate.cpp", "messages.cpp", "model.hpp", "server.cpp", "turns.cpp", "version.hpp")
HEADERS = tuple(f"include/dlavm/{name}" for name in ("chat_protocol.hpp", "device.h", "wire.hpp"))
SOURCES = (*(f"{name}.{kind}" for name in PAIRS for kind in ("cpp", "hpp")), *SINGLE, *HEADERS)
FILES = ("CMakeLists.txt", "README.md", "dlavm-server.service", *SOURCES)
# What a model lacks can break these.
USE_MODEL = ("bus.cpp", "driver.cpp", "messages.cpp", "options.cpp", "program.cpp", "turns.cpp")
CODES = {"step": Code("scalars", [0x04030201] * 8)}


@pytest.fixture(scope="module")
def context() -> HostContext:
    """A small model on nano; its hash stays when the tables of the target change."""
    spec = replace(load_target("v3", "nano"), expanded={"target": "small"})
    return host_context(hashed(manifest()), spec, CODES)


def hashed(one: Manifest) -> Manifest:
    """With hashes of its files, made up."""
    names = [name for name, _ in one.sized_files()]
    return replace(one, files={name: f"{place:064x}" for place, name in enumerate(names)}, target_hash="0" * 64)


def wide(context: HostContext) -> HostContext:
    """Many channels and end tokens."""
    images = tuple(HostFile(f"weights/ch{c:02d}.bin", 0x1000, 4096 * 123456, c) for c in range(32))
    return replace(context, images=images, eos_token_ids=tuple(range(100, 140)), vocab_size=151936)


def bare(context: HostContext) -> HostContext:
    """Without tables, end tokens and argmax on the device."""
    return replace(context, blobs=(), eos_token_ids=(), next=None)


def patched(context: HostContext) -> HostContext:
    """A stream with words that depend on the arguments, another one for a token, rows from a table."""
    kv_len, token = Var("kv_len", 0, 63), Var("token", 1, 16)
    values = (kv_len * 4 + 7, minimum(token - 3, 1), (token + 31) // 32 - kv_len % 3, select(lt(kv_len, 9), token, 0))
    patches = tuple(HostPatch(expression(value), (place, 7 - place)) for place, value in enumerate(values))
    stream = replace(context.streams[0], patches=patches)
    short = replace(stream, name="decode", tokens=1, bounds={**stream.bounds, "token": (1, 1)})
    table = HostTable("weights/ids.bin", 300)
    rows = HostPort(IDS, CHUNK, 64, 128)
    spec = load_target("v2", "nano")
    return replace(context, control="patches", streams=(short, stream), table=table, ids=rows, spec=spec)


def registers(context: HostContext) -> HostContext:
    """Commands of a small program, in loops and conditions."""
    text = """\
program p(token: 1..16, kv_len: 0..63)
launch COPY src=64 dst=128 rows_o=token rows_i=1 dim=8
for t in (token + 3) // 4:
  let n: 1..4 = min(4, token - 4 * t)
  if lt(2, n):
    launch ACT src=64 dst=128+t rows_o=n rows_i=1 dim=8
"""
    spec = load_target("v1", "nano")
    program = generate(parse_program(text), spec, {}).program
    assert program is not None
    lines = tuple(statements(program, spec))
    return replace(context, control="registers", streams=(), statements=lines, next=None, spec=spec)


CASES: dict[str, Callable[[HostContext], HostContext]] = {
    "plain": lambda c: c, "wide": wide, "bare": bare, "patched": patched, "registers": registers,
}  # fmt: skip


def write(folder: Path, context: HostContext) -> Path:
    for name, text in render_host(context).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_golden(context: HostContext, golden: Callable[[str, str], None]) -> None:
    golden("host/model.hpp", render_host(context)["model.hpp"])
    for case in ("plain", "patched", "registers"):
        golden(f"host/program-{case}.cpp", render_host(CASES[case](context))["program.cpp"])


def test_the_context_repeats_the_manifest(context: HostContext) -> None:
    assert [b.path for b in context.blobs] == ["tables.bin"]
    (stream,) = context.streams
    assert (context.control, stream.path, stream.words) == ("scalars", "program/step.bin", 8)
    assert stream.crc32 == zlib.crc32(STREAM)
    assert context.logits == HostPort(LOGITS, CHUNK, VOCAB, 2 * VOCAB + 8)
    assert context.next == HostPort(NEXT, CHUNK, 1, 4)


def test_the_program_is_not_among_the_blobs(context: HostContext) -> None:
    one = manifest()
    program = one.programs["step"]
    both = replace(one, blobs=(*one.blobs, replace(one.blobs[0], file=program.file)))
    assert host_context(hashed(both), context.spec, CODES).blobs == context.blobs


def test_files(context: HostContext) -> None:
    files = render_host(context)
    assert sorted(files) == sorted(FILES)
    assert files == render_host(replace(context))
    assert all(files[name] == (data_root() / "clib" / name).read_text() for name in HEADERS)
    assert f'"{__version__}"' in files["version.hpp"]
    assert all(text.endswith("\n") and str(data_root()) not in text for text in files.values())


def test_only_model_and_readme_are_particular_to_a_model(context: HostContext) -> None:
    other = replace(context, name="other", ctx=32, chunk=8)
    before, after = render_host(context), render_host(other)
    assert {name for name in before if before[name] != after[name]} == {"model.hpp", "program.cpp", "README.md"}


@pytest.mark.parametrize("case", CASES)
def test_layout(case: str, context: HostContext, repository: Path, tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("clang-format")
    tool = str(beside) if beside.is_file() else shutil.which("clang-format")
    if tool is None:
        pytest.skip("needs clang-format")
    folder = write(tmp_path, CASES[case](context))
    sources = [str(folder / name) for name in SOURCES]
    style = f"--style=file:{repository / '.clang-format'}"
    run = subprocess.run([tool, style, "--dry-run", "--Werror", *sources], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("case", CASES)
def test_it_compiles_without_warnings(case: str, context: HostContext, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    folder = write(tmp_path, CASES[case](context))
    sources = [name for name in SOURCES if name.endswith(".cpp")]
    if case != "plain":  # what depends on the model, with the headers read once: each file alone is the plain case's
        sources = ["all.cpp"]
        (folder / "all.cpp").write_text("".join(f'#include "{name}"\n' for name in USE_MODEL))
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion",
               "-Werror", f"-I{folder / 'include'}", *(str(folder / name) for name in sources)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_an_argument_that_the_driver_does_not_know(context: HostContext) -> None:
    stream = replace(context.streams[0], bounds={"token": (1, 2), "beam": (0, 1)})
    with pytest.raises(DlavmError, match="arguments: expected some of token, kv_len, head_rows, kv_base, got 'beam'"):
        render_host(replace(context, streams=(stream,)))
