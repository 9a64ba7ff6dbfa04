"""Bad models and damaged artifacts: one line that names what is wrong, exit 2, nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

Command = Callable[..., Any]
Q_PROJ = "model.layers.3.self_attn.q_proj.weight"


def refused(outcome: Any, *words: object) -> None:
    assert outcome.code == 2, outcome.out
    assert outcome.out == ""
    assert outcome.err.startswith("dlavm: error: ")
    assert outcome.err.count("\n") == 1
    for word in words:
        assert str(word) in outcome.err, outcome.err


def build_refused(dlavm: Command, model: Path, out: Path, *options: object, words: tuple[object, ...]) -> None:
    refused(dlavm("build", model, "--target", "v3", "-o", out / "artifact", *options), *words)
    assert not out.exists() or not list(out.iterdir())


@pytest.fixture
def model_file(stories_py: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    """A copy of the story model's file with a text replaced, its weights where they were."""

    def change(old: str, new: str) -> Path:
        text = stories_py.read_text()
        assert old in text
        path = tmp_path / "changed.py"
        path.write_text(text.replace(old, new).replace('"stories"  #', f'"{stories_py.with_suffix("")}"  #'))
        return path

    return change


@pytest.fixture
def weights(stories_py: Path, tmp_path: Path) -> Callable[..., Path]:
    """A weights directory in which tensors were replaced, added, or (None) left out."""

    def change(**tensors: np.ndarray | None) -> Path:
        folder = tmp_path / "weights"
        folder.mkdir()
        loaded = load_file(stories_py.parent / "stories" / "model.safetensors")
        loaded |= {name.replace("__", "."): value for name, value in tensors.items()}
        kept = {name: value for name, value in loaded.items() if value is not None}
        save_file(kept, folder / "model.safetensors")
        return folder

    return change


def test_a_shape_error_names_line_and_layer(
    dlavm: Command, model_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    wrong = model_file('f"{path}.self_attn.o_proj", DIM)', 'f"{path}.self_attn.o_proj", DIM + (layer == 5))')
    build_refused(dlavm, wrong, tmp_path / "out", words=("changed.py:", "layer 5", "257"))


@pytest.mark.parametrize(
    ("new", "word"),
    [("1 / 0", "ZeroDivisionError"), ("import nothing_like_this", "nothing_like_this"), ("def", "changed.py:")],
)
def test_a_model_file_that_fails(
    new: str, word: str, dlavm: Command, model_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    wrong = model_file("EPS = 1e-5", f"EPS = 1e-5\n{new}")
    build_refused(dlavm, wrong, tmp_path / "out", words=("changed.py:", word))


def test_a_missing_weight(dlavm: Command, stories_py: Path, weights: Callable[..., Path], tmp_path: Path) -> None:
    folder = weights(**{Q_PROJ.replace(".", "__"): None})
    build_refused(dlavm, stories_py, tmp_path / "out", "--weights", folder, words=("missing", Q_PROJ))


def test_an_extra_weight(dlavm: Command, stories_py: Path, weights: Callable[..., Path], tmp_path: Path) -> None:
    folder = weights(model__layers__8__extra=np.zeros(4, np.float16))
    build_refused(dlavm, stories_py, tmp_path / "out", "--weights", folder, words=("extra", "model.layers.8.extra"))


def test_a_weight_of_the_wrong_shape(
    dlavm: Command, stories_py: Path, weights: Callable[..., Path], tmp_path: Path
) -> None:
    folder = weights(**{Q_PROJ.replace(".", "__"): np.zeros((256, 255), np.float16)})
    words = (Q_PROJ, "[256, 256]", "[256, 255]")
    build_refused(dlavm, stories_py, tmp_path / "out", "--weights", folder, words=words)


def test_a_weight_that_is_not_finite(
    dlavm: Command, stories_py: Path, weights: Callable[..., Path], tmp_path: Path
) -> None:
    folder = weights(**{Q_PROJ.replace(".", "__"): np.full((256, 256), np.nan, np.float16)})
    build_refused(dlavm, stories_py, tmp_path / "out", "--weights", folder, words=(Q_PROJ, "finite"))
    command = ("check", stories_py, "--target", "v3", "--weights", folder, "--json")
    assert dlavm(*command).code == 0
    outcome = dlavm(*command, "--values")
    assert outcome.code == 1
    assert [problem["where"] for problem in outcome.json["problems"]] == [Q_PROJ]


def test_a_stop_string_needs_a_tokenizer(dlavm: Command, stories_py: Path, weights: Callable[..., Path]) -> None:
    options = ("--weights", weights(), "--float", "--engine", "reference", "--prompt-ids", 1, "--stop", "x")
    refused(dlavm("run", stories_py, *options), "--stop 'x': expected a model with a tokenizer")


def test_a_truncated_checkpoint(
    dlavm: Command, stories_py: Path, weights: Callable[..., Path], tmp_path: Path
) -> None:
    file = weights() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    build_refused(dlavm, stories_py, tmp_path / "out", "--weights", file.parent, words=("model.safetensors",))


def test_a_context_beyond_the_model(dlavm: Command, stories_py: Path, tmp_path: Path) -> None:
    build_refused(dlavm, stories_py, tmp_path / "out", "--ctx", 4096, words=("ctx", 1024, 4096))


def test_a_context_beyond_the_board(
    dlavm: Command, model_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    long = model_file("MAX_CTX = 1024", "MAX_CTX = 1 << 20")
    options = ("--ctx", 65536, "--board", "nano")
    build_refused(dlavm, long, tmp_path / "out", *options, words=("hbm", "nano", "--ctx", 128 << 20))


def test_an_output_that_is_somebody_elses(dlavm: Command, stories_py: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    refused(dlavm("build", stories_py, "--target", "v3", "-o", tmp_path), "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_model_without_weights(
    dlavm: Command, model_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = model_file("WEIGHTS = ", "OTHER = ")
    build_refused(dlavm, path, tmp_path / "out", words=("--weights",))


@pytest.fixture
def copy(stories: Path, tmp_path: Path) -> Path:
    """An artifact that a test may damage."""
    path = tmp_path / "stories"
    shutil.copytree(stories, path)
    return path


def edit_manifest(path: Path, **keys: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | keys))


@pytest.mark.parametrize("file", ["weights/ch00.bin", "tables.bin", "program/step.bin", "tokenizer/tokenizer.json"])
def test_a_flipped_byte_names_the_file(file: str, dlavm: Command, copy: Path) -> None:
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)
    refused(dlavm("run", copy, "--prompt", "x"), file)


@pytest.mark.parametrize("file", ["weights/ch31.bin", "program/step.bin"])
def test_a_truncated_or_missing_file_is_named(file: str, dlavm: Command, copy: Path) -> None:
    data = (copy / file).read_bytes()
    (copy / file).write_bytes(data[:-1])
    refused(dlavm("verify", copy), file, len(data), len(data) - 1)
    (copy / file).unlink()
    refused(dlavm("bench", copy), file)


def test_an_artifact_of_another_target_version(dlavm: Command, copy: Path) -> None:
    edit_manifest(copy, target_hash="0" * 64)
    refused(dlavm("run", copy, "--prompt", "x"), "0" * 64, "rebuild")


def test_an_artifact_of_another_format(dlavm: Command, copy: Path) -> None:
    edit_manifest(copy, format=99)
    refused(dlavm("dump", copy, "--stage", "asm"), "format", 99)
    (copy / "manifest.json").write_text("{")
    refused(dlavm("chat", copy), "manifest.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prompt", "x", "--engine", "fpga"), ("'fpga'", "sim")),
        (("--prompt-ids", "1,9999"), ("9999", "4095")),
        (("--prompt", "x", "--top-p", 2), ("top_p", "2.0")),
        (("--prompt", "x", "--temperature", "nan"), ("temperature", "nan")),
        (("--prompt", "x", "--greedy", "--temperature", 1), ("--greedy",)),
        (("--prompt", "word " * 3000), ("prompt", "1024")),
        (("--prompt", "x", "--stop", ""), ("stop",)),
    ],
)
def test_bad_options_of_run(
    options: tuple[object, ...], words: tuple[object, ...], dlavm: Command, stories: Path
) -> None:
    refused(dlavm("run", stories, "--raw", *options), *words)


def test_bench_beyond_the_context(dlavm: Command, stories: Path) -> None:
    refused(dlavm("bench", stories, "-p", 1000, "-d", 100), "1024", "1100")
    refused(dlavm("bench", stories, "-p", 0, "-n", 0), "-p")
