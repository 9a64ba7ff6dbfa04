"""GGUF files as models: what metadata and tensors are called elsewhere, and the graph that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dlavm.frontend import load_model
from dlavm.frontend.gguf_config import ARCHITECTURES, config_of, places_of
from dlavm.frontend.gguf_metadata import Metadata
from dlavm.frontend.gguf_source import GgufSource, open_files
from dlavm.graph import print_graph
from dlavm.support.errors import DlavmError
from tests.unit.gguf_files import SIZES, write

LAYER = {
    "attn_norm": (64,), "attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64),
    "ffn_norm": (64,), "ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96),
}  # fmt: skip
TOP = {"token_embd": (40, 64), "output_norm": (64,), "output": (40, 64)}
HF_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
HF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
Tensors = dict[str, NDArray[np.float32]]


def tensors(more: dict[str, tuple[int, ...]] | None = None, layers: int = 2) -> Tensors:
    shapes = {f"{name}.weight": shape for name, shape in TOP.items()}
    layer = {f"{name}.weight": shape for name, shape in LAYER.items()} | (more or {})
    shapes |= {f"blk.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()}
    rng = np.random.default_rng(5)
    return {name: rng.standard_normal(shape).astype(np.float32) / 8 for name, shape in shapes.items()}


def paired(w: NDArray[Any], heads: int) -> NDArray[Any]:
    """As llama.cpp's converter orders the rows of q and k of the llama architecture."""
    return w.reshape(heads, 2, len(w) // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def read(path: Path) -> tuple[dict[str, Any], GgufSource]:
    files = open_files(path)
    meta = Metadata(path, files[0].metadata)
    return config_of(meta, files), GgufSource(files, places_of(meta, files))


def test_a_llama_is_the_checkpoint_that_it_was_made_of(tmp_path: Path) -> None:
    stored = tensors()
    file = {**stored}
    for layer in range(2):
        for part, heads in (("attn_q", 4), ("attn_k", 2)):
            name = f"blk.{layer}.{part}.weight"
            file[name] = paired(stored[name], heads)
    model = load_model(write(tmp_path / "tiny model.gguf", "llama", {**SIZES, "rope.freq_base": 5e5}, file))
    (tmp_path / "hf").mkdir()
    hf = {f"{HF_TOP[n]}.weight": stored[f"{n}.weight"] for n in TOP}
    hf |= {f"model.layers.{i}.{HF_LAYER[n]}.weight": stored[f"blk.{i}.{n}.weight"] for i in range(2) for n in LAYER}
    save_file(hf, tmp_path / "hf" / "model.safetensors")
    config = {
        "model_type": "llama", "vocab_size": 40, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    other = load_model(tmp_path / "hf")
    assert model.name == "tiny_model" and model.weights is not None and other.weights is not None
    lines = [print_graph(m.graph(16, 4)).splitlines()[1:] for m in (model, other)]  # but for the name
    texts = [[line for line in one if not line.startswith("meta config")] for one in lines]  # a file has more
    assert texts[0] == texts[1]
    assert model.weights.names() == other.weights.names()
    for name in other.weights.names():
        np.testing.assert_array_equal(model.weights.get(name), other.weights.get(name))
        np.testing.assert_array_equal(model.weights.get(name, slice(3, 9)), other.weights.get(name, slice(3, 9)))


def test_rows_of_grids_are_put_in_order(tmp_path: Path) -> None:
    stored = tensors()
    name, w = "blk.0.attn_q.weight", tensors()["blk.0.attn_q.weight"]
    q8 = gguf.GGMLQuantizationType.Q8_0
    expected = gguf.quants.dequantize(gguf.quants.quantize(w, q8), q8)
    source = read(write(tmp_path / "a.gguf", "llama", SIZES, {**stored, name: (paired(w, 4), q8)}))[1]
    for rows in (slice(None), slice(5, 30), slice(60, 64)):
        grid = source.grid("model.layers.0.self_attn.q_proj.weight", rows)
        assert grid is not None
        np.testing.assert_array_equal(grid.values(), expected[rows])


def test_biases_of_queries_are_put_in_order(tmp_path: Path) -> None:
    biases = {f"{part}.bias": (rows,) for part, rows in (("attn_q", 64), ("attn_k", 32), ("attn_v", 32))}
    stored = tensors(biases)
    file = {**stored, "blk.1.attn_q.bias": paired(stored["blk.1.attn_q.bias"], 4)}
    config, source = read(write(tmp_path / "a.gguf", "llama", SIZES, file))
    assert config["attention_bias"] is True and config["mlp_bias"] is False
    values = source.get("model.layers.1.self_attn.q_proj.bias")
    np.testing.assert_array_equal(values, stored["blk.1.attn_q.bias"])
    np.testing.assert_array_equal(source.get("model.layers.1.self_attn.q_proj.bias", slice(7, 20)), values[7:20])


def test_no_head_is_a_tied_head(tmp_path: Path) -> None:
    stored = tensors()
    del stored["output.weight"]
    config, source = read(write(tmp_path / "a.gguf", "llama", SIZES, stored))
    assert config["tie_word_embeddings"] is True and "lm_head.weight" not in source.names()


def test_norms_of_gemma_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    more = {f"{name}.weight": (64,) for name in ("post_attention_norm", "post_ffw_norm")}
    more |= {f"{name}.weight": (16,) for name in ("attn_q_norm", "attn_k_norm")}
    stored = tensors(more)
    del stored["output.weight"]
    file = {name: w + 1 if "norm" in name else w for name, w in stored.items()}
    fields = {**SIZES, "attention.key_length": 16, "attention.value_length": 16}
    config, source = read(write(tmp_path / "a.gguf", "gemma3", fields, file))
    assert (config["model_type"], config["head_dim"], config["hidden_activation"]) == (
        "gemma3_text", 16, "gelu_pytorch_tanh")  # fmt: skip
    assert config["layer_types"] == ["sliding_attention"] * 2 and config["query_pre_attn_scalar"] == 16
    parts = {
        "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
        "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    }  # fmt: skip
    for theirs, ours in {
        **{f"blk.1.{t}": f"model.layers.1.{o}" for t, o in parts.items()},
        "output_norm": "model.norm",
    }.items():
        np.testing.assert_allclose(source.get(f"{ours}.weight"), stored[f"{theirs}.weight"], atol=2e-7)
    np.testing.assert_array_equal(source.get("model.embed_tokens.weight"), stored["token_embd.weight"])


def test_phi3_keeps_its_fused_projections(tmp_path: Path) -> None:
    stored = tensors({"attn_qkv.weight": (128, 64)})
    stored = {
        name: w for name, w in stored.items() if not any(f".{p}." in name for p in ("attn_q", "attn_k", "attn_v"))
    }
    factors = {f"rope_factors_{kind}.weight": np.arange(1, 5, dtype=np.float32) for kind in ("long", "short")}
    fields = {**SIZES, "rope.dimension_count": 8, "rope.scaling.original_context_length": 32,
              "rope.scaling.attn_factor": 1.25, "attention.sliding_window": 64}  # fmt: skip
    config, source = read(write(tmp_path / "a.gguf", "phi3", fields, {**stored, **factors}))
    assert config["partial_rotary_factor"] == 0.5 and config["original_max_position_embeddings"] == 32
    scaling = {"rope_type": "longrope", "long_factor": [1, 2, 3, 4], "short_factor": [1, 2, 3, 4]}
    assert config["rope_scaling"] == {**scaling, "attention_factor": 1.25}
    assert config["sliding_window"] is None  # as long as the context
    assert "model.layers.0.self_attn.qkv_proj.weight" in source.names()
    assert not any("rope" in name for name in source.names())


def test_scaled_rotary_embeddings(tmp_path: Path) -> None:
    freqs = {"rope_freqs.weight": np.array([1, 1, 2, 4, 8, 8, 8, 8], np.float32)}
    config, source = read(write(tmp_path / "a.gguf", "llama", SIZES, {**tensors(), **freqs}))
    scaling = config["rope_scaling"]
    assert scaling["long_factor"] == scaling["short_factor"] == [1, 1, 2, 4, 8, 8, 8, 8]
    assert scaling["attention_factor"] == 1.0 and len(source.names()) == len(tensors())
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}
    config, _ = read(write(tmp_path / "b.gguf", "qwen2", {**SIZES, **yarn}, tensors()))
    assert config["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"block_count": None}, r"llama.block_count expected an integer of at least 1, got None"),
        ({"block_count": 3}, "num_hidden_layers expected at most 2"),
        ({"block_count": 1 << 30}, "llama.block_count expected at most 21, as many as there are tensors"),
        ({"embedding_length": "64"}, "llama.embedding_length expected an integer"),
        ({"attention.head_count": 0}, "llama.attention.head_count expected an integer of at least 1, got 0"),
        ({"attention.head_count_kv": [1, 2]}, "llama.attention.head_count_kv expected an integer"),
        ({"attention.head_count_kv": 3}, "blk.0.attn_k.weight expected a multiple of 6 rows, pairs of 3 heads, got 32"),
        (
            {"attention.layer_norm_rms_epsilon": float("nan")},
            "layer_norm_rms_epsilon expected a finite number, got nan",
        ),
        ({"attention.value_length": 8}, "llama.attention.value_length expected 16, as long as a key, got 8"),
        ({"rope.dimension_count": 8}, "llama.rope.dimension_count expected 16, a whole head, got 8"),
        ({"rope.scaling.type": "mrope"}, "llama.rope.scaling.type expected one of none, linear, yarn"),
        ({"expert_count": 8}, "llama.expert_count expected none or 0"),
        ({"feed_forward_length": 128}, "up_proj.weight expected shape"),
    ],
)
def test_metadata_that_are_wrong(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    fields = {key: value for key, value in {**SIZES, **changes}.items() if value is not None}
    path = write(tmp_path / "a.gguf", "llama", fields, tensors())
    with pytest.raises(DlavmError, match=complaint) as caught:
        load_model(path).graph(16, 4)
    assert str(path) in str(caught.value)


def test_another_architecture(tmp_path: Path) -> None:
    with pytest.raises(DlavmError, match="general.architecture expected one of .*'phi3'.*, got 'mamba'"):
        load_model(write(tmp_path / "a.gguf", "mamba", SIZES, tensors()))
    assert set(ARCHITECTURES) == {"llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"}


def test_what_the_model_does_not_use(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", "llama", SIZES, {**tensors(), "blk.0.attn_sinks.weight": np.ones(4, np.float32)})
    with pytest.raises(DlavmError, match="expected only what the model uses, got extra: blk.0.attn_sinks.weight"):
        load_model(path).graph(16, 4)
    stored = tensors()
    del stored["token_embd.weight"]
    with pytest.raises(DlavmError, match="expected a tensor token_embd.weight, got none"):
        load_model(write(tmp_path / "b.gguf", "llama", SIZES, stored))


def test_without_a_tokenizer_it_takes_ids(tmp_path: Path) -> None:
    model = load_model(write(tmp_path / "a.gguf", "llama", SIZES, tensors()))
    assert model.tokenizer is None and len(model.notes) == 1
    assert "tokenizer.ggml.model expected a tokenizer in the metadata" in model.notes[0]
