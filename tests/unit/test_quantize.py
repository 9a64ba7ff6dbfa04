"""`dlavm quantize`: checkpoints that builds take without loss, interrupted runs, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.formats import FORMATS
from dlavm.formats import quantize as round_to_nearest
from dlavm.frontend import load_model
from dlavm.graph import evaluate, new_state
from dlavm.graph.parts import joined
from dlavm.quantize.partial import Partial
from tests.unit.quantize_helpers import INNER, VOCAB, checkpoint, files, quantize, tensors, text

Q = "model.layers.0.self_attn.q_proj.weight"
HEAD = "lm_head.weight"
SMALL = ("--samples", 6, "--length", 24)


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def logits(path: Path, ids: list[int]) -> np.ndarray:
    """Of a checkpoint, in float32 with the weights that a build takes."""
    model = load_model(path)
    graph = model.graph(len(ids), len(ids))
    weights = model.needed_weights()
    params = {p.name: joined(p, weights.get).astype(np.float32) for p in graph.params}
    inputs = {"ids": np.array(ids, np.int32), "kv_len": 0}
    return np.asarray(evaluate(graph, params, inputs, new_state(graph))["logits"])


def output_error(model: Path, quantised: Path) -> float:
    ids = np.random.default_rng(9).integers(2, VOCAB, 48).tolist()
    wanted = logits(model, ids)
    return float(np.linalg.norm(logits(quantised, ids) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_build_takes_every_format_as_it_is(name: str, tmp_path: Path) -> None:
    """Also those whose groups do not divide the rows of `down_proj`; the head gets weights of its own."""
    model, out = checkpoint(tmp_path / "model"), tmp_path / "out"
    assert quantize(model, out, "--method", "rtn", "--format", name) == 0
    config = json.loads((out / "config.json").read_text())
    integers = FORMATS[name].element.float_type is None and name != "mxint8" and INNER % FORMATS[name].group == 0
    assert config["quantization_config"]["quant_method"] == ("compressed-tensors" if integers else "dlavm")
    assert config["tie_word_embeddings"] is False and (out / "tokenizer.json").is_file()
    source, floats = load_model(out).needed_weights(), tensors()
    for matrix, of in ((Q, Q), (HEAD, "model.embed_tokens.weight"), ("model.layers.1.mlp.down_proj.weight",) * 2):
        wanted = round_to_nearest(floats[of], FORMATS[name])
        grid = source.grid(matrix)
        assert source.note(matrix) == "" and grid is not None
        np.testing.assert_array_equal(grid.values(), wanted.values())
    np.testing.assert_array_equal(source.get("model.embed_tokens.weight"), floats["model.embed_tokens.weight"])
    assert source.grid("model.norm.weight") is None and load_model(out).graph(8, 4)


@pytest.mark.parametrize("method", ["gptq", "awq", "awq+gptq"])
def test_each_method_loses_less_than_rounding_to_nearest(method: str, tmp_path: Path) -> None:
    model, words = checkpoint(tmp_path / "model"), text(tmp_path)
    for name in ("rtn", method):
        assert quantize(model, tmp_path / name, "--method", name, "--calibration", words, *SMALL) == 0
    assert output_error(model, tmp_path / method) < 0.93 * output_error(model, tmp_path / "rtn")


def test_what_the_json_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, words, out = checkpoint(tmp_path / "model"), text(tmp_path), tmp_path / "out"
    assert quantize(model, out, "--calibration", words, *SMALL, "--json") == 0
    found = report(capsys)
    assert found["checkpoint"] == str(out) and found["method"] == "gptq" and found["formats"] == ["int4g128"]
    assert found["calibration"] == {"samples": 6, "length": 24} and found["resumed_units"] == 0
    assert found["peak_rss_bytes"] > 1 << 20 and found["seconds"] > 0
    total = sum(np.prod(row["shape"]) for row in found["tensors"])
    assert found["weights"] == total and len(found["tensors"]) == 15
    assert found["quantised_bytes"] == sum(row["bytes"] for row in found["tensors"])
    assert found["bits_per_weight"] == pytest.approx(8 * found["quantised_bytes"] / total)
    for row in found["tensors"]:
        assert row["format"] == "int4g128" and 4.1 < row["bits_per_weight"] < 4.3
        assert 0.01 < row["output_error"] < row["weight_error"] < 0.5 and row["scaled"] is False


def test_the_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = checkpoint(tmp_path / "model"), tmp_path / "out"
    assert quantize(model, out, "--method", "rtn", "--exclude", "*self_attn*", "--exclude", HEAD) == 0
    shown = capsys.readouterr().out
    assert "mlp.up_proj.weight" in shown and "self_attn" not in shown and "4.125 bits each" not in shown
    assert f"checkpoint:   {out}" in shown and "calibration:  none" in shown
    config = json.loads((out / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    source = load_model(out).needed_weights()
    assert source.grid(Q) is None
    np.testing.assert_array_equal(source.get(Q), tensors()[Q])


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C in the midst of the next unit, behind some."""
    commit = Partial.commit
    left = [after]

    def stop(self: Partial, *args: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        commit(self, *args)

    monkeypatch.setattr(Partial, "commit", stop)


@pytest.mark.parametrize("options", [("--method", "awq+gptq"), ("--budget", 5, "--format", "int4g32,int8g32"),
                                     ("--act-order",)])  # fmt: skip
def test_a_run_that_was_interrupted_goes_on_and_gives_the_same_bytes(
    options: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, words, out = checkpoint(tmp_path / "model"), text(tmp_path), tmp_path / "out"
    chosen = ("--calibration", words, *SMALL, *options)
    assert quantize(model, tmp_path / "whole", *chosen, "--json") == 0
    whole = report(capsys)
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, after=3)
        assert quantize(model, out, *chosen) == 130
    told = capsys.readouterr()
    assert told.out == "" and f"{out}.partial" in told.err and "the same command goes on" in told.err
    assert not out.exists() and (tmp_path / "out.partial").is_dir()
    assert quantize(model, out, *chosen, "--json") == 0
    resumed = report(capsys)
    assert resumed["resumed_units"] == 3 and resumed["tensors"] == whole["tensors"]
    assert files(out) == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out", "text.txt", "whole"]


def test_another_run_does_not_take_the_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, words, out = checkpoint(tmp_path / "model"), text(tmp_path), tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, after=1)
        assert quantize(model, out, "--calibration", words, *SMALL) == 130
    capsys.readouterr()
    assert quantize(model, out, "--calibration", words, *SMALL, "--format", "int8g64") == 2
    assert "got one with another formats; remove the directory" in capsys.readouterr().err
    (tmp_path / "model" / "model.safetensors").touch()
    assert quantize(model, out, "--calibration", words, *SMALL) == 2
    assert "got one with another model; remove the directory" in capsys.readouterr().err
    (tmp_path / "out.partial" / "state.json").write_text('{"settings": 3}')
    assert quantize(model, out, "--calibration", words, *SMALL) == 2
    assert "remove the directory" in capsys.readouterr().err
    (tmp_path / "out.partial" / "state.json").write_text("{")
    assert quantize(model, out, "--calibration", words, *SMALL) == 2
    assert "state.json: expected JSON" in capsys.readouterr().err


def test_two_runs_of_one_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = checkpoint(tmp_path / "model"), tmp_path / "out"
    with Partial(out, {}):
        assert quantize(model, out, "--method", "rtn") == 2
    assert "expected no other run of this output, got one at work" in capsys.readouterr().err
    assert not out.exists()


def test_a_budget_gives_layers_formats_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, words, out = checkpoint(tmp_path / "model"), text(tmp_path), tmp_path / "out"
    budget = ("--calibration", words, *SMALL, "--budget", 6, "--format", "int4g32,int8g32")
    assert quantize(model, out, *budget, "--json") == 0
    found = report(capsys)
    assert found["formats"] == ["int4g32", "int8g32"] and 5.5 < found["bits_per_weight"] <= 6
    mapping = json.loads((out / "formats.json").read_text())  # for `build --quant`, so by tensors of the model itself
    mapping[HEAD] = mapping.pop("model.embed_tokens.weight")
    assert mapping == {row["name"]: row["format"] for row in found["tensors"]}
    attention = [mapping[f"model.layers.0.self_attn.{p}_proj.weight"] for p in "qkv"]
    assert len(set(attention)) == 1  # layers of the same input are of the same format
    source = load_model(out).needed_weights()
    assert {name: source.dtype(name) for name in mapping} == mapping
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    assert {len(group["targets"]) > 0 for group in config["config_groups"].values()} == {True}
    assert output_error(model, out) < 0.9 * plain_error(model, tmp_path / "plain", "int4g32")


def plain_error(model: Path, out: Path, format: str) -> float:
    assert quantize(model, out, "--method", "rtn", "--format", format) == 0
    return output_error(model, out)


def test_a_target_says_what_a_budget_chooses_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, words = checkpoint(tmp_path / "model"), text(tmp_path)
    budget = ("--method", "rtn", "--calibration", words, "--samples", 2, "--length", 8, "--budget", 6)
    assert quantize(model, tmp_path / "out", *budget, "--target", "v3", "--json") == 0
    found = report(capsys)
    assert len(found["formats"]) > 1 and found["bits_per_weight"] <= 6
    assert quantize(model, tmp_path / "v9", *budget, "--target", "v9") == 2
    assert "v9" in capsys.readouterr().err


BAD: dict[str, tuple[tuple[object, ...], str]] = {
    "no text": ((), "--method gptq: expected a text to calibrate with (--calibration FILE), got none"),
    "no text for a budget": (("--method", "rtn", "--budget", 5), "--budget: expected a text to calibrate with"),
    "unknown format": (("--format", "int5"), "weight format: expected one of"),
    "two formats": (("--format", "int4g32,int8g32"), "expected one format without --budget"),
    "target without budget": (("--target", "v3"), "--target: expected --budget beside it"),
    "unknown method": (("--method", "magic"), "invalid choice: 'magic'"),
    "a budget below all": (
        ("--calibration", "TEXT", "--budget", 4, "--format", "int4g32,int8g32"),
        "--budget: expected at least 4.5 bits a weight, what the smallest of int4g32, int8g32 takes, got 4",
    ),
    "a text that is missing": (("--calibration", "missing.txt"), "missing.txt: expected a readable text"),
    "an empty text": (("--calibration", "EMPTY"), "expected a text of at least two tokens, got 0"),
    "a text of other bytes": (("--calibration", "BYTES"), "expected a text in UTF-8, got other bytes"),
    "ids beyond the vocabulary": (("--calibration", "IDS"), f"ids expected lists of token ids in 0..{VOCAB - 1}"),
    "everything excluded": (("--method", "rtn", "--exclude", "*"), "expected linear layers to quantise, got none"),
    "a glob that fits nothing": (
        ("--method", "rtn", "--exclude", "*self_attn*", "--exclude", "*.typo"),
        "--exclude: expected globs that fit a linear layer's weight, got '*.typo'",
    ),
    "too long": (("--calibration", "TEXT", "--length", 65), "ctx expected at most 64 positions, got 65"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, message = BAD[case]
    text(tmp_path).rename(tmp_path / "TEXT")
    (tmp_path / "EMPTY").write_text(" \n ")
    (tmp_path / "BYTES").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "IDS.json").write_text(json.dumps({"ids": [[1, 2, VOCAB]]}))
    places = {name: tmp_path / name for name in ("TEXT", "EMPTY", "BYTES")} | {"IDS": tmp_path / "IDS.json"}
    given = [places.get(str(option), option) for option in options]
    assert quantize(checkpoint(tmp_path / "model"), tmp_path / "out", *given) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and told.out == ""
    assert not (tmp_path / "out").exists()


def test_token_ids_for_a_model_without_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint(tmp_path / "model", tokenizer=False)
    assert quantize(model, tmp_path / "out", "--calibration", text(tmp_path)) == 2
    assert "expected token ids (NAME.json) for a model without a tokenizer" in capsys.readouterr().err
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps({"ids": np.random.default_rng(0).integers(0, VOCAB, (5, 30)).tolist()}))
    assert quantize(model, tmp_path / "out", "--calibration", ids, *SMALL, "--json") == 0
    assert report(capsys)["calibration"] == {"samples": 6, "length": 24}


def test_a_text_shorter_than_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint(tmp_path / "model")
    assert quantize(model, tmp_path / "out", "--calibration", text(tmp_path, 10), *SMALL, "--json") == 0
    assert report(capsys)["calibration"] == {"samples": 1, "length": 11}  # a bos token before them


def test_weights_that_are_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tensors()
    weights[Q][3, 4] = np.nan
    model = checkpoint(tmp_path / "model", weights)
    for options in (("--method", "rtn"), ("--calibration", text(tmp_path), *SMALL)):
        assert quantize(model, tmp_path / "out", *options) == 2
        assert "q_proj.weight expected finite values, got NaN" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_weights_that_are_quantised_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = checkpoint(tmp_path / "model"), tmp_path / "out"
    assert quantize(model, out, "--method", "rtn") == 0
    assert quantize(out, tmp_path / "again", "--method", "rtn") == 2
    assert "expected floats, got quantised ones (int4g128); quantise the original" in capsys.readouterr().err


def test_an_output_that_is_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint(tmp_path / "model")
    assert quantize(model, model, "--method", "rtn") == 2
    assert "expected a free name, an empty directory" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quantize("--help", Path("x"))
    shown = capsys.readouterr().out
    assert shown.count("dlavm quantize ") >= 5 and "DIR.partial" in shown and "gptq" in shown
