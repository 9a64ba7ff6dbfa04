"""Front ends: what they read, and what they say about input that is wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from dlavm.frontend import load_model
from dlavm.graph import evaluate, new_state, print_graph
from dlavm.support.errors import DlavmError

CONFIG: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SHAPES = {
    "model.embed_tokens.weight": (20, 8),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.k_proj.weight": (4, 8),
    "model.layers.0.self_attn.v_proj.weight": (4, 8),
    "model.layers.0.self_attn.o_proj.weight": (8, 8),
    "model.layers.0.post_attention_layernorm.weight": (8,),
    "model.layers.0.mlp.up_proj.weight": (12, 8),
    "model.layers.0.mlp.gate_proj.weight": (12, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 12),
    "model.norm.weight": (8,),
    "lm_head.weight": (20, 8),
}
NORM = "model.norm.weight"


def tensors(dtype: Any = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def checkpoint(directory: Path, weights: dict[str, Any] | None = None, **config: Any) -> Path:
    """A tiny Llama checkpoint; a config value of None drops the field."""
    directory.mkdir(exist_ok=True)
    fields = {k: v for k, v in {**CONFIG, **config}.items() if v is not None}
    (directory / "config.json").write_text(json.dumps(fields))
    save_file(tensors() if weights is None else weights, directory / "model.safetensors")
    return directory


def test_reads_sizes_tokens_and_weights(tmp_path: Path) -> None:
    model = load_model(checkpoint(tmp_path / "my tiny"))
    assert model.name == "my_tiny" and model.max_ctx == 32 and model.tokenizer is None
    graph = model.graph(ctx=16, chunk=4)
    assert graph.meta["eos_token_ids"] == [2] and graph.meta["bos_token_id"] == 1 and graph.meta["ctx"] == 16
    assert {p.name: tuple(map(int, p.type.shape)) for p in graph.params} == SHAPES
    assert str(tmp_path) not in print_graph(graph)
    assert model.weights is not None
    assert model.weights.dtype(NORM) == "F32" and model.weights.get(NORM).dtype == np.float32


@pytest.mark.parametrize(
    ("stored", "name", "given"),
    [(np.float16, "F16", np.float16), (ml_dtypes.bfloat16, "BF16", np.float32)],
)
def test_element_types(tmp_path: Path, stored: Any, name: str, given: Any) -> None:
    weights = tensors(stored)
    source = load_model(checkpoint(tmp_path, weights)).weights
    assert source is not None and source.dtype(NORM) == name
    assert source.get(NORM).dtype == given
    np.testing.assert_array_equal(source.get(NORM).astype(np.float32), weights[NORM].astype(np.float32))


def shard(directory: Path) -> None:
    weights = tensors()
    files = {name: f"model-{i % 2 + 1}-of-2.safetensors" for i, name in enumerate(weights)}
    for file in set(files.values()):
        save_file({name: weights[name] for name in weights if files[name] == file}, directory / file)
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def test_sharded_equals_single(tmp_path: Path) -> None:
    source = load_model(checkpoint(tmp_path)).weights
    assert source is not None
    before = {name: source.get(name) for name in source.names()}
    shard(tmp_path)
    model = load_model(tmp_path)
    model.graph(ctx=8, chunk=2)
    assert model.weights is not None and model.weights.names() == sorted(before)
    for name, array in before.items():
        np.testing.assert_array_equal(model.weights.get(name), array)


def test_tied_head_shares_its_tensor(tmp_path: Path) -> None:
    weights = tensors()
    del weights["lm_head.weight"]
    model = load_model(checkpoint(tmp_path, weights, tie_word_embeddings=True))
    params = {p.name: p.source for p in model.graph(8, 2).params}
    assert params["lm_head.weight"] == "model.embed_tokens.weight"
    copied = {**tensors(), "lm_head.weight": weights["model.embed_tokens.weight"]}
    model = load_model(checkpoint(tmp_path, copied, tie_word_embeddings=True))
    params = {p.name: p.source for p in model.graph(8, 2).params}  # a stored copy is not an extra
    assert params["lm_head.weight"] == "model.embed_tokens.weight" and not model.notes


@pytest.mark.parametrize("last", [1.0, np.nan])
def test_a_head_of_its_own_is_not_tied(tmp_path: Path, last: float) -> None:
    weights = tensors()
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    weights["lm_head.weight"][-1, -1] = last
    model = load_model(checkpoint(tmp_path, weights, tie_word_embeddings=True))
    assert {p.name: p.source for p in model.graph(8, 2).params}["lm_head.weight"] in ("", "lm_head.weight")
    assert [note for note in model.notes if "lm_head.weight" in note and "tie_word_embeddings" in note]


def test_old_rotary_buffers_are_ignored(tmp_path: Path) -> None:
    weights = {**tensors(), "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
    load_model(checkpoint(tmp_path, weights)).graph(8, 2)


def test_other_weights_directory(tmp_path: Path) -> None:
    first, second = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b", tensors(np.float16))
    source = load_model(first, weights=second).weights
    assert source is not None and source.dtype(NORM) == "F16"
    with pytest.raises(DlavmError, match="weights: expected a directory"):
        load_model(first, weights=tmp_path / "none")


def test_rope_and_generation_config(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 500.0}
    checkpoint(tmp_path, rope_parameters=rope, rope_theta=None, head_dim=6, num_key_value_heads=2)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    model = load_model(tmp_path)
    graph = model.build(8, 2)
    assert dict(graph.constants[0].args) == {"ctx": 8, "dim": 6, "theta": 500.0}
    assert model.config["eos_token_ids"] == [2, 7]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba"}, r"config.json: model_type expected one of \['llama', .*, got 'mamba'"),
        ({"model_type": None}, r"model_type expected .* got None"),
        ({"hidden_size": None}, r"config.json: hidden_size expected a positive integer, got None"),
        ({"vocab_size": -3}, r"vocab_size expected a positive integer, got -3"),
        ({"num_hidden_layers": "two"}, r"num_hidden_layers expected a positive integer, got 'two'"),
        ({"rms_norm_eps": "small"}, r"rms_norm_eps expected a number, got 'small'"),
        ({"tie_word_embeddings": "yes"}, r"tie_word_embeddings expected true or false, got 'yes'"),
        ({"hidden_act": "xielu"}, r"hidden_act expected one of .*, got 'xielu'"),
        ({"rope_scaling": {"type": "mrope"}}, r"rope_scaling.type expected one of \['default', .*, got 'mrope'"),
        ({"rope_scaling": {"type": "linear"}}, r"rope_scaling.factor expected a number, got None"),
        ({"rope_parameters": 3}, r"rope_parameters expected an object or null, got 3"),
        ({"rope_theta": 0}, r"rope_theta expected a number above 0, got 0"),
        ({"partial_rotary_factor": 0.1}, r"partial_rotary_factor expected an even part of a head of 4, got 0.1"),
        ({"quantization_config": {"quant_method": "aqlm"}}, r"quantization_config.quant_method expected .* got 'aqlm'"),
        ({"eos_token_id": "</s>"}, r"eos_token_id expected integers, got '</s>'"),
        ({"num_attention_heads": 9}, r"hidden_size expected a multiple of num_attention_heads, got 8 and 9"),
    ],
)
def test_config_refusals(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        load_model(checkpoint(tmp_path, None, **config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", r"config.json: expected JSON, got .* at line 1"),
        (b"[]", r"config.json: expected a JSON object, got 'list'"),
        (b"\xff\xfe\x00", r"config.json: expected JSON, got bytes that are not UTF-8"),
        (b"[" * 100000, r"config.json: expected"),
        (None, r"config.json: expected a readable file, got 'No such file"),
    ],
)
def test_garbage_config(tmp_path: Path, text: bytes | None, message: str) -> None:
    path = checkpoint(tmp_path) / "config.json"
    path.unlink()
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(DlavmError, match=message):
        load_model(tmp_path)


def test_heads_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DlavmError, match="config.json: num_key_value_heads expected a part of 4 heads, got 3"):
        load_model(checkpoint(tmp_path, None, num_attention_heads=4, head_dim=2, num_key_value_heads=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({NORM: None}, r"missing tensors: model.norm.weight \[8\], got 11 others"),
        ({NORM: np.ones(9, np.float32)}, r"model.norm.weight expected shape \[8\], got \[9\]"),
        ({"adapter.a": np.ones(1, np.float32)}, r"expected only what the model uses, got extra: adapter.a"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    weights = {name: array for name, array in {**tensors(), **change}.items() if array is not None}
    model = load_model(checkpoint(tmp_path, weights))
    with pytest.raises(DlavmError, match=message):
        model.graph(8, 2)


def test_long_lists_are_counted(tmp_path: Path) -> None:
    norms = {name: np.ones(8, np.float32) for name in (NORM, "model.layers.0.input_layernorm.weight")}
    model = load_model(checkpoint(tmp_path, norms))
    with pytest.raises(DlavmError, match=r"and 2 more, got 2 others"):
        model.graph(8, 2)


def test_unusable_tensors(tmp_path: Path) -> None:
    weights = {**tensors(), NORM: np.ones(8, np.int64)}
    source = load_model(checkpoint(tmp_path, weights)).weights
    assert source is not None
    with pytest.raises(DlavmError, match=r"model.norm.weight expected one of .*, got 'I64'"):
        source.get(NORM)
    with pytest.raises(DlavmError, match=r"expected a tensor of the checkpoint, got 'nothing'"):
        source.shape("nothing")
    weights[NORM] = np.array([np.nan] * 8, np.float32)
    source = load_model(checkpoint(tmp_path, weights)).weights
    assert source is not None
    with pytest.raises(DlavmError, match=r"model.norm.weight expected finite values"):
        source.get(NORM)


@pytest.mark.parametrize(
    "data", [b"", b"abc", b"\xff" * 64, struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 4) + b"{{{{"]
)
def test_garbage_safetensors(tmp_path: Path, data: bytes) -> None:
    (checkpoint(tmp_path) / "model.safetensors").write_bytes(data)
    with pytest.raises(DlavmError, match=r"model.safetensors: expected a safetensors file, got"):
        load_model(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(DlavmError, match=r"model.safetensors: expected a safetensors file, got"):
            load_model(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, r"weight_map expected tensor names and files, got None"),
        ({"weight_map": {NORM: "../../etc/passwd"}}, r"model.norm.weight expected a file name beside the index"),
        ({"weight_map": {NORM: "gone.safetensors"}}, r"gone.safetensors: expected a safetensors file, got 'No such"),
        (
            {"weight_map": {"nothing": "model-1-of-2.safetensors"}},
            r"expected the tensor 'nothing', as .* says, got none",
        ),
    ],
)
def test_bad_index(tmp_path: Path, index: dict[str, Any], message: str) -> None:
    shard(checkpoint(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DlavmError, match=message):
        load_model(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    (checkpoint(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(DlavmError, match=r"expected \*.safetensors, got none"):
        load_model(tmp_path)


def test_weights_that_are_pickles(tmp_path: Path) -> None:
    (checkpoint(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DlavmError, match=r"got pytorch_model.bin; transformers converts it: .*save_pretrained"):
        load_model(tmp_path)


@pytest.mark.parametrize(("folder", "name"), [(".a-b", "a-b"), ("-x", "x"), ("---", "model"), ("a b", "a_b")])
def test_names_of_folders_become_names_of_programs(tmp_path: Path, folder: str, name: str) -> None:
    model = load_model(checkpoint(tmp_path / folder))
    assert model.name == name and model.graph(8, 2).name == name


def test_a_field_of_generation_config_is_named_there(tmp_path: Path) -> None:
    (checkpoint(tmp_path) / "generation_config.json").write_text('{"eos_token_id": [2, "x"]}')
    with pytest.raises(DlavmError, match=r"generation_config.json: eos_token_id expected integers"):
        load_model(tmp_path)


def test_context_beyond_the_model(tmp_path: Path) -> None:
    model = load_model(checkpoint(tmp_path))
    with pytest.raises(DlavmError, match=r"ctx expected at most 32 positions, got 33"):
        model.graph(33, 4)
    with pytest.raises(DlavmError, match=r"1 <= chunk <= ctx"):
        model.graph(8, 9)


def test_paths_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(DlavmError, match=r"which does not exist"):
        load_model(tmp_path / "nothing.py")
    (tmp_path / "model.bin").write_bytes(b"GGUF")
    with pytest.raises(DlavmError, match=r"expected a .py, .gguf or .onnx file or a Hugging Face"):
        load_model(tmp_path / "model.bin")


GOOD = """from dlavm.graph import Builder
def build(ctx, chunk):
    b = Builder("m", ctx=ctx, chunk=chunk)
    x = b.input("x", (b.token, 4), "f16")
    return b.finish(y=b.copy(x))
"""


def test_python_model_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "my-model.py"
    path.write_text(GOOD)
    model = load_model(path)
    assert model.name == "my-model" and model.weights is None
    graph = model.graph(8, 2)
    out = evaluate(graph, {}, {"x": np.ones((2, 4), np.float32), "kv_len": 0}, new_state(graph))
    assert out["y"].shape == (2, 4)
    assert not list(tmp_path.glob("__pycache__"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(ctx, chunk:\n  pass", r"m.py:1: expected Python, got"),
        ("x = 1\nimport no_such_module", r"m.py:2: expected to run, got .ModuleNotFoundError: .*no_such_module"),
        ("x = 1", r"m.py: expected a function build\(ctx, chunk\), got None"),
        ("import sys\nsys.exit(3)", r"m.py:2: expected to run, got 'SystemExit: 3'"),
        ("def build(ctx, chunk):\n    return 1 / 0", r"m.py:2: expected to run, got 'ZeroDivisionError"),
        ("def build(ctx):\n    return 1", r"m.py: expected to run, got .TypeError"),
        ("def build(ctx, chunk):\n    return 7", r"m.py: build expected to return a Graph, got 'int'"),
        ("WEIGHTS = 'gone'\n" + GOOD, r"m.py: WEIGHTS expected a directory beside the file, got 'gone'"),
        ("WEIGHTS = 3\n" + GOOD, r"m.py: WEIGHTS expected a directory name, got 3"),
        ("MAX_CTX = '64'\n" + GOOD, r"m.py: MAX_CTX or max_position_embeddings expected a positive integer, got '64'"),
        ("MAX_CTX = 0\n" + GOOD, r"expected a positive integer, got 0"),
        ("MAX_CTX = True\n" + GOOD, r"expected a positive integer, got True"),
        (GOOD.replace("copy(x)", "act(x)"), r"m.py:5: act at act: attribute fn expected .* got none"),
        (GOOD.replace("copy(x)", "kopy(x)"), r"m.py:5: expected to run, got .AttributeError: Builder has no op 'kopy'"),
        ("def build(ctx, chunk):\n    raise ValueError('two\\nlines')", r"got 'ValueError: two lines'"),
        (b"\xff\xfe", r"m.py"),
        (b"\x00", r"m.py"),
    ],
)
def test_python_model_errors_are_one_line(tmp_path: Path, source: str | bytes, message: str) -> None:
    path = tmp_path / "m.py"
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    with pytest.raises(DlavmError, match=message) as error:
        load_model(path).graph(8, 2)
    assert "\n" not in str(error.value)


def test_python_model_takes_weights_and_tokens_from_its_directory(tmp_path: Path) -> None:
    checkpoint(tmp_path / "weights", {"w": np.ones((4, 4), np.float32)})
    path = tmp_path / "m.py"
    path.write_text('WEIGHTS = "weights"\n' + GOOD.replace("b.copy(x)", 'b.linear(x, b.param("w", (4, 4)))'))
    model = load_model(path)
    assert model.graph(8, 2).meta["eos_token_ids"] == [2]
    checkpoint(tmp_path / "other", {"w": np.ones((4, 5), np.float32)})
    with pytest.raises(DlavmError, match=r"w expected shape \[4, 4\], got \[4, 5\]"):
        load_model(path, weights=tmp_path / "other").graph(8, 2)


@pytest.mark.parametrize("depth", [2, 20000, 2**40])
def test_a_depth_beyond_the_tensors_is_refused_at_once(tmp_path: Path, depth: int) -> None:
    message = rf"config.json: num_hidden_layers expected at most (1|10000)\b.*, got {depth}"
    with pytest.raises(DlavmError, match=message):
        load_model(checkpoint(tmp_path, None, num_hidden_layers=depth))


def test_what_a_model_file_prints_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.py"
    path.write_text("print('loud')\ndef build(ctx, chunk):\n    print('louder')\n")
    with pytest.raises(DlavmError, match="build expected to return a Graph"):
        load_model(path).build(8, 2)
    assert capsys.readouterr() == ("", "loud\nlouder\n")
