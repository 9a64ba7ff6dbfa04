"""verify: engines against each other, golden runs, perplexity; and that it does find what is wrong."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.runtime import engine
from dlavm.sim.native import NativeDevice
from dlavm.target.spec import TargetSpec

Command = Callable[..., Any]
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "stories-v3-vcu128.json"
QUICK = ("--engines", "sim", "--prompts", "3", "--tokens", 2)


def test_engines_agree_to_the_bit_and_with_float(dlavm: Command, stories: Path) -> None:
    outcome = dlavm("verify", stories, "--prompts", "1,9", "--tokens", 4, "--json")
    assert outcome.err == ""
    report = outcome.json
    assert outcome.code == 0, report["problems"]
    assert report["ok"]
    assert report["engines"] == ["reference", "sim"]
    assert (report["steps"], report["mismatches"], report["problems"]) == (13, 0, [])
    assert report["bytes_compared"] > 13 * 10_000_000
    assert report["token_agreement"] >= 0.9
    assert report["max_logit_error"] < 0.2


def test_a_model_of_odd_sizes_on_a_small_board(dlavm: Command, shared: Path, tmp_path: Path) -> None:
    """Heads of 8 elements and 172 rows: neither blocks of 32 nor groups of 128 come out even."""
    model = shared / "models" / "stories260K"
    assert dlavm("build", model, "--target", "v3", "--board", "nano", "-o", tmp_path / "small").code == 0
    outcome = dlavm("verify", tmp_path / "small", "--prompts", "1,20", "--tokens", 6, "--json")
    assert outcome.code == 0, outcome.json["problems"]
    assert outcome.json["token_agreement"] >= 0.9


def test_the_summary_for_people(dlavm: Command, stories: Path) -> None:
    outcome = dlavm("verify", stories, *QUICK)
    assert outcome.code == 0
    assert re.fullmatch(r"engines .*\nfloat model .*\nok after .* s\n", outcome.out)


def test_without_the_float_model(dlavm: Command, stories: Path) -> None:
    outcome = dlavm("verify", stories, *QUICK, "--no-float", "--json")
    assert outcome.code == 0
    assert outcome.json["token_agreement"] is None
    assert "float" not in dlavm("verify", stories, *QUICK, "--no-float").out


def test_golden_run(dlavm: Command, stories: Path, request: pytest.FixtureRequest) -> None:
    """A failure here means that bits moved: logits, KV cache or activations. If that is meant: --update-golden."""
    arguments = ("verify", stories, "--engines", "sim", "--prompts", "7", "--tokens", 16, "--golden", GOLDEN, "--json")
    update = ("--update",) if request.config.getoption("--update-golden") else ()
    report = dlavm(*arguments, *update).json
    assert report["golden"]["difference"] is None
    assert len(json.loads(GOLDEN.read_text())["steps"]) == 16


@pytest.mark.parametrize(
    ("key", "step", "message"),
    [("logits", 2, "step 2 (decode): logits differ"), ("memory", 0, "step 0 (prefill): memory differs")],
)
def test_a_moved_bit_names_the_first_step(
    key: str, step: int, message: str, dlavm: Command, stories: Path, tmp_path: Path
) -> None:
    path = tmp_path / "golden.json"
    assert dlavm("verify", stories, *QUICK[:-1], 4, "--golden", path, "--update").code == 0
    golden = json.loads(path.read_text())
    assert len(golden["steps"]) == 4
    for later in range(step, 4):
        golden["steps"][later][key] = "0" * 64
    path.write_text(json.dumps(golden))
    outcome = dlavm("verify", stories, *QUICK, "--golden", path, "--json")
    assert outcome.code == 1
    assert message in outcome.json["golden"]["difference"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"board": "nano"}, "'nano'"),
        ({"ctx": 7}, "got 7"),
        ({"steps": []}, "steps: expected a list of at least one step, got []"),
        ({"step_count": 17}, "step 16: expected 17 steps, got 16"),
        ({"step_count": None}, "step_count"),
        ({"prompt_ids": [0, "a"]}, "golden.json: prompt_ids: token 1: expected an id in 0..4095, got 'a'"),
        ({"prompt_ids": [4096]}, "golden.json: prompt_ids: token 0: expected an id in 0..4095, got 4096"),
        ({"prompt_ids": []}, "prompt_ids: expected a list of at least one token, got []"),
        ({"steps": [{"token": 1}]}, "step 0"),
        ({"format": 9}, "format"),
    ],
)
def test_a_golden_file_that_does_not_fit(
    change: dict[str, Any], word: str, dlavm: Command, stories: Path, tmp_path: Path
) -> None:
    path = tmp_path / "golden.json"
    path.write_text(json.dumps(json.loads(GOLDEN.read_text()) | change))
    outcome = dlavm("verify", stories, *QUICK, "--golden", path)
    assert (outcome.code, outcome.out) == (2, "")
    assert word in outcome.err


def test_a_missing_golden_file(dlavm: Command, stories: Path, tmp_path: Path) -> None:
    outcome = dlavm("verify", stories, *QUICK, "--golden", tmp_path / "none.json")
    assert outcome.code == 2
    assert "--update" in outcome.err
    assert not list(tmp_path.iterdir())


class Faulty(NativeDevice):
    """Flips one bit of what a step wrote last."""

    address = 0

    def run(self, max_commands: int | None = None) -> int:
        commands = super().run(max_commands)
        byte = np.frombuffer(self.mem_read(self.address, 1), np.uint8) ^ 1
        self.mem_write(self.address, byte.tobytes())
        return int(commands)


@pytest.mark.parametrize("role", ["kv", "activations", "output", "weights", "tables"])
def test_one_flipped_bit_anywhere_is_found(
    role: str, dlavm: Command, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((stories / "manifest.json").read_text())
    tensor = next(t for t in manifest["tensors"] if t["role"] == role)
    monkeypatch.setattr(Faulty, "address", tensor["address"] + tensor["bytes"] // 2)

    def faulty(spec: TargetSpec, threads: int | None) -> Faulty:
        return Faulty(spec, threads=threads)

    monkeypatch.setattr(engine, "ENGINES", {**engine.ENGINES, "faulty": faulty})
    outcome = dlavm("verify", stories, "--engines", "sim,faulty", "--prompts", "2", "--tokens", 1, "--json")
    report = outcome.json
    assert outcome.code == 1
    assert not report["ok"]
    assert report["mismatches"] > 0
    assert any(tensor["name"] in problem.get("tensors", ()) for problem in report["problems"])


def test_a_golden_file_that_lost_its_last_step(dlavm: Command, stories: Path, tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    golden = json.loads(GOLDEN.read_text())
    path.write_text(json.dumps(golden | {"steps": golden["steps"][:-1]}))
    outcome = dlavm("verify", stories, *QUICK, "--golden", path)
    assert outcome.code == 2
    assert "golden.json: step 15: expected 16 steps, got 15" in outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("verify", "--golden"), "--golden: {}: expected a file, got a directory"),
        (("verify", *QUICK, "--update", "--golden"), "--golden: {}: expected a file that can be written"),
        (("verify", "--ppl"), "--ppl: {}: expected a readable text file, got 'Is a directory'"),
        (("dump", "--stage", "asm", "-o"), "-o: {}: expected a file that can be written, got 'Is a directory'"),
    ],
)
def test_a_directory_where_a_file_belongs(
    options: tuple[object, ...], words: str, dlavm: Command, stories: Path, tmp_path: Path
) -> None:
    verb, *rest = options
    outcome = dlavm(verb, stories, *rest, tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert words.format(tmp_path) in outcome.err
    assert "Errno" not in outcome.err


def test_perplexity(dlavm: Command, stories: Path, shared: Path) -> None:
    text = shared / "models" / "stories" / "heldout.txt"
    outcome = dlavm("verify", stories, *QUICK, "--ppl", text, "--ppl-tokens", 1500, "--json")
    report = outcome.json
    assert outcome.code == 0
    ppl = report["ppl"]
    assert ppl["tokens"] == 1500
    assert 3.5 < ppl["float"] < 6
    assert 1 < ppl["quantised"] / ppl["float"] < 1.06
    assert abs(ppl["engine"] / ppl["quantised"] - 1) <= 0.001
    assert ppl["engine_vs_quantised"] == ppl["engine"] / ppl["quantised"] - 1


def test_perplexity_needs_a_text_and_the_right_model(
    dlavm: Command, stories: Path, tmp_path: Path, shared: Path
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    assert "at least two tokens" in dlavm("verify", stories, *QUICK, "--ppl", empty).err
    assert "none.txt" in dlavm("verify", stories, *QUICK, "--ppl", tmp_path / "none.txt").err
    empty.write_text("Once upon a time there was a dog.")
    outcome = dlavm("verify", stories, *QUICK, "--ppl", empty, "--model", shared / "models" / "stories260K")
    assert outcome.code == 2


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--engines", "sim,fpga"), "fpga"),
        (("--engines", "sim,sim"), "different"),
        (("--update",), "--golden"),
        (("--no-float", "--ppl", "x.txt"), "--ppl"),
        (("--tokens", 5000), "5000"),
        (("--prompts", "1020", "--tokens", 64), "1020"),
    ],
)
def test_bad_options(options: tuple[object, ...], word: str, dlavm: Command, stories: Path) -> None:
    outcome = dlavm("verify", stories, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert word in outcome.err


def test_engines_that_agree_on_garbage_fail(dlavm: Command, stories: Path, tmp_path: Path) -> None:
    """Both engines run the same artifact: a wrong table in it shows against the float model only."""
    broken = tmp_path / "broken"
    shutil.copytree(stories, broken)
    tables = bytearray((broken / "tables.bin").read_bytes())
    tables[: len(tables) // 2] = bytes(len(tables) // 2)
    (broken / "tables.bin").write_bytes(tables)
    manifest = (broken / "manifest.json").read_text()
    old = json.loads(manifest)["files"]["tables.bin"]
    (broken / "manifest.json").write_text(manifest.replace(old, hashlib.sha256(tables).hexdigest()))
    outcome = dlavm("verify", broken, "--prompts", "7", "--tokens", 4, "--json")
    assert outcome.code == 1
    assert outcome.json["mismatches"] == 0 and not outcome.json["ok"]
    assert "of the float model, got an error of" in outcome.json["float_problem"]


def test_defaults_fit_a_small_context(dlavm: Command, stories_py: Path, tmp_path: Path) -> None:
    assert dlavm("build", stories_py, "--target", "v3", "--board", "nano", "--ctx", 16, "-o", tmp_path / "s").code == 0
    assert dlavm("verify", tmp_path / "s", "--engines", "sim", "--json").code == 0
    assert dlavm("verify", tmp_path / "s", *QUICK[:2], "--no-float", "--prompts", 12, "--json").code == 0
    golden = ("verify", tmp_path / "s", *QUICK[:2], "--no-float", "--golden", tmp_path / "g.json", "--json")
    assert dlavm(*golden, "--update").code == 0
    assert dlavm(*golden).code == 0
    rows = dlavm("bench", tmp_path / "s", "--repeat", 1, "--json").json["rows"]
    assert [row["test"] for row in rows] == ["pp16", "tg16"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--ppl-tokens", 5), "--ppl-tokens: expected --ppl FILE"),
        (("--model", "x"), "--model: expected --ppl FILE"),
        (("--weights", "x"), "--weights: expected --ppl FILE"),
        (("--weights", "x", "--ppl", "x"), "--weights: expected --model MODEL"),
    ],
)
def test_options_that_would_do_nothing(options: tuple[object, ...], word: str, dlavm: Command, stories: Path) -> None:
    outcome = dlavm("verify", stories, *options)
    assert outcome.code == 2 and word in outcome.err


@pytest.mark.parametrize(
    "command",
    [("run", "--prompt", "x", "--ctx", 5), ("run", "--prompt", "x", "--weights", "d"),
     *(("dump", "--stage", "memory", option, value) for option, value in (
         ("--ctx", 5), ("--chunk", 5), ("--target", "v3"), ("--board", "vcu128"), ("--quant", "int4g128"),
         ("--weights", "d")))],
)  # fmt: skip
def test_options_of_a_model_beside_an_artifact(command: tuple[object, ...], dlavm: Command, stories: Path) -> None:
    verb, *options = command
    outcome = dlavm(verb, stories, *options)
    assert outcome.code == 2 and "expected a MODEL beside it, got an artifact" in outcome.err
