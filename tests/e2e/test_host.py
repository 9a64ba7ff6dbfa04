"""The C++ project of the bundled model: built with cmake, it says what `dlavm run` says, and refuses what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.codegen.cpp import statements
from dlavm.compile import Options, compile_model
from dlavm.frontend import Model
from dlavm.frontend.families import Shape, shape
from dlavm.pack.artifact import Artifact
from dlavm.runtime.session import open_session
from dlavm.support.paths import native_library
from dlavm.target import load_target
from tests.e2e.server_tools import build_host

Command = Callable[..., Any]
Generate = Callable[..., subprocess.CompletedProcess[str]]
CTX = 1024
TOKENS = [0, 430, 263, *range(5, 40)]

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="needs cmake, g++")

PROBE = r"""
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "driver.hpp"
#include "model.hpp"

static void refused(const std::function<void()>& call) {
    try {
        call();
        std::puts("accepted");
    } catch (const std::runtime_error& error) {
        std::puts(error.what());
    }
}

static const host::Tokens kTokens = {TOKENS};

int main(int, char** argv) {
    for (unsigned half = 0; half < 65536; ++half) std::printf("%a ", host::to_float(half));
    std::puts("");
    host::Model model = host::Model::open("sim:", argv[1]);
    refused([&] { model.greedy_next(); });
    host::Sequence one, last = {model::kSequences - 1, 0}, past = {model::kSequences, 0};
    refused([&] { model.step(one, {}); });
    refused([&] { model.step(one, {1, 2}, 3); });
    refused([&] { model.step(one, host::Tokens(model::kChunk + 1, 5)); });
    refused([&] { model.prefill(one, host::Tokens(model::kContext + 1, 5)); });
    refused([&] { model.step(past, {1}); });
    refused([&] { model.read_state(one, 0, nullptr, 2); });
    model.prefill(last, {9, 9});
    one.cached = 40;  // behind it, the last sequence stays as it is
    model.prefill(one, {9, 9});
    one.cached = 0;
    last.cached = 0;
    model.prefill(last, host::Tokens(kTokens.begin(), kTokens.end() - 3));
    std::vector<char> state(model.state_bytes(last.cached));
    for (std::size_t at = 0; at < state.size(); at += 1000)  // pieces that end anywhere
        model.read_state(last, at, &state[at], std::min<std::size_t>(1000, state.size() - at));
    std::fwrite(state.data(), 1, state.size(), std::fopen(argv[2], "wb"));
    one.cached = last.cached;
    for (std::size_t at = 0; at < state.size(); at += 998)
        model.write_state(one, at, &state[at], std::min<std::size_t>(998, state.size() - at));
    std::memset(&state[0], 0xff, 2);
    if (model::kExponentBytes == 0) refused([&] { model.write_state(one, 0, &state[0], 2); });
    model.step(one, host::Tokens(kTokens.end() - 3, kTokens.end()), 2);
    for (float value : model.logits()) std::printf("%a ", value);
    std::puts("");
    for (unsigned token : model.next_tokens()) std::printf("%u ", token);
    std::printf("\n%u %u %d\n", one.cached, model.room(one), model.counters().commands > 0);
}
"""


@pytest.fixture(scope="module")
def prompts(stories_py: Path) -> list[dict[str, Any]]:
    text = (stories_py.parent / "stories" / "golden_greedy.json").read_text()
    cases: list[dict[str, Any]] = json.loads(text)["cases"]
    return cases


@pytest.fixture(scope="module")
def generate(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Generate:
    """`generate("--prompt-ids", ...)` runs the example on the artifact."""
    program = build_host(stories / "host", tmp_path_factory.mktemp("host"), "generate")

    def run(*arguments: object, artifact: Path = stories) -> subprocess.CompletedProcess[str]:
        command = [str(program), "--artifact", str(artifact), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


def listed(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))


@pytest.mark.parametrize(("target", "chunk"), [("v1", 7), ("v2", 7), ("v3", 1)])
def test_every_generation_has_a_driver(
    target: str, chunk: int, dlavm: Command, stories_py: Path, tmp_path: Path
) -> None:
    """Registers written in loops, words patched in a stream, arguments without `token`: the tokens are those of the
    Python session."""
    outcome = dlavm("build", stories_py, "--target", target, "--chunk", chunk, "-o", tmp_path / "a")
    assert outcome.code == 0, outcome.err
    program = build_host(tmp_path / "a" / "host", tmp_path / "build", "generate")
    ids = [0, 430, 263, *range(5, 30)]
    command = [program, "--artifact", tmp_path / "a", "--prompt-ids", listed(ids), "--max-tokens", "12", "--ignore-eos"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    tokens = []
    with open_session(Artifact.open(tmp_path / "a")) as session:
        result = session.prefill(ids)
        while len(tokens) < 12:
            tokens.append(int(result.next_ids[-1]))
            result = session.step(tokens[-1:], 1)
    assert done.stdout.strip() == listed(tokens)


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_a_driver_does_not_grow_with_depth(target: str, repository: Path) -> None:
    """v1 loops over layers; v2 writes them out."""
    sizes = []
    for layers in (3, 6):  # the last one is not like the others
        model = Model(f"deep{layers}", partial(small_llama(layers).graph, "deep"))
        compiled = compile_model(model, load_target(target, "nano"), Options(ctx=32, chunk=4))
        code = compiled.entries["step"].code
        sizes.append(len(statements(code.program, compiled.spec)) if code.program else len(code.words))
    assert sizes[0] == sizes[1] if target == "v1" else sizes[0] < sizes[1]


def small_llama(layers: int) -> Shape:
    sizes = {"vocab_size": 50, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": layers}
    return shape("llama", **sizes, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64)


@pytest.mark.parametrize("case", [0, 1])
def test_tokens_are_those_of_run(
    case: int, generate: Generate, dlavm: Command, stories: Path, prompts: list[dict[str, Any]]
) -> None:
    ids = listed(prompts[case]["prompt_ids"])
    done = generate("--prompt-ids", ids, "--max-tokens", 48, "--ignore-eos", "--option", "threads=1")
    options = ("--greedy", "--max-tokens", 48, "--ignore-eos")
    expected = dlavm("run", stories, "--prompt-ids", ids, *options, "--json").json
    assert (done.returncode, done.stdout) == (0, listed(expected["tokens"]) + "\n"), done.stderr
    assert f"{expected['prompt_tokens']} prompt tokens" in done.stderr
    assert "stopped by length" in done.stderr


def test_an_answer_ends_with_an_end_token(
    generate: Generate, dlavm: Command, stories: Path, prompts: list[dict[str, Any]]
) -> None:
    ids = listed(prompts[0]["prompt_ids"])
    done = generate("--prompt-ids", ids)
    expected = dlavm("run", stories, "--prompt-ids", ids, "--greedy", "--json").json
    assert done.stdout == listed(expected["tokens"]) + "\n"
    assert expected["stop_reason"] == "eos" and "stopped by eos" in done.stderr


def test_a_prompt_of_many_steps_up_to_the_end_of_the_context(
    generate: Generate, dlavm: Command, stories: Path
) -> None:
    ids = listed([0, *(7 + 31 * i % 4000 for i in range(CTX - 5))])
    done = generate("--prompt-ids", ids, "--ignore-eos")
    expected = dlavm("run", stories, "--prompt-ids", ids, "--greedy", "--ignore-eos", "--json").json
    assert done.stdout == listed(expected["tokens"]) + "\n"
    assert expected["stop_reason"] == "context" and "stopped by context" in done.stderr


def test_help(generate: Generate) -> None:
    done = generate("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: generate --prompt-ids 1,2,3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--prompt-ids: expected token ids, got none"),
        (("--prompt-ids",), "--prompt-ids: expected a value, got none"),
        (("--prompt-ids", "1,,2"), "--prompt-ids: expected an integer of at least 0, got ''"),
        (("--prompt-ids", "1,x"), "--prompt-ids: expected an integer of at least 0, got 'x'"),
        (("--prompt-ids", "-1"), "--prompt-ids: expected an integer of at least 0, got '-1'"),
        (("--prompt-ids", 1 << 32), "--prompt-ids: expected an integer of at least 0, got '4294967296'"),
        (("--prompt-ids", "5,4096"), "token 1: expected an id in 0..4095, got 4096"),
        (("--prompt-ids", listed([5] * (CTX + 1))), f"tokens: expected at most {CTX} (context {CTX}, in the cache 0), "
                                                    f"got {CTX + 1}"),
        (("--prompt-ids", "1", "--max-tokens", "0"), "--max-tokens: expected an integer of at least 1, got '0'"),
        (("--prompt-ids", "1", "--device", "pcie"), "device 'pcie': "),
        (("--prompt-ids", "1", "--option", "threads"), "--option: expected NAME=VALUE, got 'threads'"),
        (("--prompt-ids", "1", "--option", "volume=11"), "device option volume: "),
        (("--fast",), "expected an option that --help lists, got '--fast'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value)[:40],
)  # fmt: skip
def test_bad_arguments(arguments: tuple[object, ...], message: str, generate: Generate) -> None:
    done = generate(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"generate: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["weights/ch17.bin", "tables.bin", "program/step.bin"])
def test_a_file_that_is_cut_or_missing(name: str, generate: Generate, stories: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(stories, tmp_path / "copy")
    size = (copy / name).stat().st_size
    os.truncate(copy / name, size - 4)
    done = generate("--prompt-ids", "1", artifact=copy)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"generate: {copy / name}: expected {size} bytes, got {size - 4}\n"
    (copy / name).unlink()
    done = generate("--prompt-ids", "1", artifact=copy)
    assert done.returncode == 2
    assert done.stderr == f"generate: {copy / name}: expected a file of the artifact, got No such file or directory\n"


def test_the_program_of_another_artifact(generate: Generate, stories: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(stories, tmp_path / "copy")
    program = copy / "program" / "step.bin"
    words = np.fromfile(program, "<u4")
    words[5] ^= 1
    words.tofile(program)
    done = generate("--prompt-ids", "1", artifact=copy)
    assert done.returncode == 2
    assert "step.bin: expected CRC-32 0x" in done.stderr and "another artifact" in done.stderr


def test_the_build_names_the_folder_and_its_files_are_listed(
    dlavm: Command, stories: Path, stories_py: Path, tmp_path: Path
) -> None:
    outcome = dlavm("build", stories_py, "--target", "v3", "--board", "nano", "--ctx", 64, "-o", tmp_path / "a")
    assert f"{tmp_path / 'a' / 'host'}: C++ driver" in outcome.out
    listed_files = {name for name in Artifact.open(stories).manifest.files if name.startswith("host/")}
    found = {path.relative_to(stories).as_posix() for path in (stories / "host").rglob("*") if path.is_file()}
    assert listed_files == found and "host/include/dlavm/device.h" in found


def test_the_library_is_asked_for(stories: Path, tmp_path: Path) -> None:
    """A path that was mended in the environment counts in the same build folder."""

    def configure(library: str) -> subprocess.CompletedProcess[str]:
        command = ["cmake", "-S", str(stories / "host"), "-B", str(tmp_path)]
        environment = {**os.environ, "DLAVM_LIBRARY": library}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    assert "got none" in configure("").stderr
    wrong = configure("/nowhere/libdlavm.so")
    assert wrong.returncode != 0
    assert "expected the path of libdlavm.so" in wrong.stderr and "/nowhere/libdlavm.so" in wrong.stderr
    assert configure(str(native_library())).returncode == 0


@pytest.mark.parametrize("cache", ["fp16", "mxint8"])
def test_the_driver_under_sanitizers(
    cache: str, dlavm: Command, stories: Path, stories_py: Path, tmp_path: Path
) -> None:
    """Logits equal those of a session; misuse is refused; numbers of every fp16; nothing leaks or overflows."""
    if cache != "fp16":
        stories = tmp_path / "artifact"
        outcome = dlavm("build", stories_py, "--target", "v3", "--kv", cache, "-o", stories)
        assert outcome.code == 0, outcome.err
    source = tmp_path / "probe.cpp"
    source.write_text(PROBE.replace("TOKENS", ", ".join(map(str, TOKENS))))
    host, library = stories / "host", native_library()
    sources = [str(host / f"{name}.cpp") for name in ("driver", "program", "bus", "files")]
    command = ["g++", "-std=c++17", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{host}",
               f"-I{host / 'include'}", *sources, str(source), str(library),
               f"-Wl,-rpath,{library.parent}", "-o", str(tmp_path / "probe")]
    built = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in built.stderr and "asan" in built.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert built.returncode == 0, built.stderr
    done = probe(tmp_path / "probe", stories)
    if "LeakSanitizer has encountered a fatal error" in done.stderr:  # where processes may not be traced
        done = probe(tmp_path / "probe", stories, ASAN_OPTIONS="detect_leaks=0")
    assert done.returncode == 0, done.stderr
    every, *refused, logits, following, counts = done.stdout.splitlines()
    artifact = Artifact.open(stories)
    count = artifact.manifest.sequences.count
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(numbers(every), halves.astype(np.float32))
    assert refused == [
        "greedy_next: expected a step with head_rows of at least 1 before, got none",
        "tokens: expected at least one, got none",
        "step: head_rows: expected 0..2, got 3",
        "step: expected 1..128 tokens, got 129",
        f"tokens: expected at most {CTX} (context {CTX}, in the cache 0), got {CTX + 1}",
        f"sequence: expected a place in 0..{count - 1}, got {count}",
        "state: expected whole numbers within 0 bytes, got 2 bytes at 0",
        *(["state: expected finite numbers, got one that is not"] if cache == "fp16" else []),
    ]
    with open_session(artifact) as session:
        session.prefill(TOKENS[:-3])
        assert (tmp_path / "state").read_bytes() == session.save_state()
        expected = session.step(TOKENS[-3:], 2)
    np.testing.assert_array_equal(numbers(logits), expected.logits.astype(np.float32).reshape(-1))
    assert following.split() == [str(token) for token in expected.next_ids]
    assert counts == f"{len(TOKENS)} {CTX - len(TOKENS)} 1"


def probe(program: Path, artifact: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = [program, artifact, program.with_name("state")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def numbers(line: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([float.fromhex(word) for word in line.split()], np.float32)
