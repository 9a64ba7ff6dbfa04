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
from dlavm.codegen.host import HostContext, HostFile, HostPort, has_host, render_host
from dlavm.describe import host_context
from dlavm.pack.manifest import Manifest
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.target import load_target
from tests.unit.fake_runtime import CHUNK, LOGITS, NEXT, STREAM, VOCAB, manifest

PAIRS = ("arguments", "connection", "driver", "net", "options", "sampling", "service", "turn")  # .cpp and .hpp
SINGLE = ("conversation.hpp", "generate.cpp", "messages.cpp", "model.hpp", "server.cpp", "turns.cpp", "version.hpp")
HEADERS = tuple(f"include/dlavm/{name}" for name in ("chat_protocol.hpp", "device.h", "wire.hpp"))
SOURCES = (*(f"{name}.{kind}" for name in PAIRS for kind in ("cpp", "hpp")), *SINGLE, *HEADERS)
FILES = ("CMakeLists.txt", "README.md", "dlavm-server.service", *SOURCES)
USE_MODEL = ("driver.cpp", "messages.cpp", "options.cpp", "turns.cpp")  # what a model lacks can break these
WORDS = [0x04030201] * 8


@pytest.fixture(scope="module")
def context() -> HostContext:
    """A small model on nano; its hash stays when the tables of the target change."""
    spec = replace(load_target("v3", "nano"), expanded={"target": "small"})
    return host_context(hashed(manifest()), spec, WORDS)


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


CASES: dict[str, Callable[[HostContext], HostContext]] = {"plain": lambda c: c, "wide": wide, "bare": bare}


def write(folder: Path, context: HostContext) -> Path:
    for name, text in render_host(context).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_golden(context: HostContext, golden: Callable[[str, str], None]) -> None:
    golden("host/model.hpp", render_host(context)["model.hpp"])


def test_the_context_repeats_the_manifest(context: HostContext) -> None:
    assert [b.path for b in context.blobs] == ["tables.bin"]
    assert (context.program.path, context.program.words) == ("program/step.bin", 8)
    assert context.program.crc32 == zlib.crc32(STREAM)
    assert context.logits == HostPort(LOGITS, CHUNK, VOCAB, 2 * VOCAB + 8)
    assert context.next == HostPort(NEXT, CHUNK, 1, 4)


def test_the_program_is_not_among_the_blobs(context: HostContext) -> None:
    one = manifest()
    program = one.programs["step"]
    both = replace(one, blobs=(*one.blobs, replace(one.blobs[0], file=program.file)))
    assert host_context(hashed(both), context.spec, WORDS).blobs == context.blobs


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
    assert {name for name in before if before[name] != after[name]} == {"model.hpp", "README.md"}


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
    sources = [name for name in SOURCES if name.endswith(".cpp")] if case == "plain" else USE_MODEL
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion",
               "-Werror", f"-I{folder / 'include'}", *(str(folder / name) for name in sources)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("target", "expected"), [("v1", False), ("v2", False), ("v3", True)])
def test_the_driver_is_chosen_by_capability(target: str, expected: bool, context: HostContext) -> None:
    spec = load_target(target, "nano")
    assert has_host(spec) is expected
    if not expected:
        with pytest.raises(DlavmError, match=f"target {target}: expected the capabilities stream, scalars"):
            render_host(replace(context, spec=spec))


def test_an_argument_that_the_driver_does_not_know(context: HostContext) -> None:
    with pytest.raises(DlavmError, match="arguments: expected some of token, kv_len, head_rows, kv_base, got 'beam'"):
        render_host(replace(context, arguments=("token", "beam")))
