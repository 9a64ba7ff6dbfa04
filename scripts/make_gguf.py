"""A Llama checkpoint as a GGUF file for llama.cpp, every matrix in Q4_0: the peer's input in scripts/benchmark.py.

python scripts/make_gguf.py models/stories output/bench/stories.gguf

Needs the package gguf (`pip install -e .[bench]`). Weights in blocks of 32 with an fp16 scale, 4.5 bits each, the
embedding too; norms in fp32. Only what the benchmark needs: no biases, plain rope, a byte-level BPE tokenizer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from dlavm.frontend.jsonfile import read_json
from dlavm.frontend.safetensors_source import SafetensorsSource
from dlavm.support.errors import DlavmError

BLOCK = 32  # weights of a Q4_0 block; lies within one row
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def convert(checkpoint: Path, out: Path) -> None:
    """Writes the GGUF file. Raises DlavmError for a checkpoint that is not of the plain Llama kind."""
    config = read_json(checkpoint / "config.json")
    _check(config, checkpoint)
    writer = gguf.GGUFWriter(str(out), "llama")
    _add_config(writer, config, checkpoint.name)
    if (checkpoint / "tokenizer.json").is_file():
        _add_tokenizer(writer, read_json(checkpoint / "tokenizer.json"), config)
    else:
        writer.add_tokenizer_model("no_vocab")
    weights = SafetensorsSource(checkpoint)
    for name, heads in tensors(config):
        _add_tensor(writer, gguf_name(name), rotary_pairs(weights.get(name), heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check(config: dict[str, Any], checkpoint: Path) -> None:
    wanted = {"model_type": "llama", "attention_bias": False, "mlp_bias": False, "rope_scaling": None}
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise DlavmError(f"{checkpoint}/config.json: {key}: expected {value!r}, got {config[key]!r}")


def tensors(config: dict[str, Any]) -> list[tuple[str, int]]:
    """The checkpoint's tensors; beside each the heads whose rows must be paired anew for llama.cpp's rope, or 0."""
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    top = [name for name in TOP if name != "lm_head.weight" or not config.get("tie_word_embeddings")]
    layers = range(config["num_hidden_layers"])
    return [(name, 0) for name in top] + [
        (f"model.layers.{layer}.{part}.weight", heads.get(part, 0)) for layer in layers for part in LAYER
    ]


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor."""
    if name in TOP:
        return TOP[name]
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{LAYER[part]}.weight"


def rotary_pairs(w: NDArray[Any], heads: int) -> NDArray[Any]:
    """(heads * head_dim, k): rows i and i + head_dim / 2, which rope turns together, become neighbours."""
    if not heads:
        return w
    halves = w.reshape(heads, 2, -1, w.shape[1])  # (heads, half, head_dim / 2, k)
    return halves.swapaxes(1, 2).reshape(w.shape)


def _add_tensor(writer: Any, name: str, w: NDArray[Any]) -> None:
    values = np.ascontiguousarray(w, np.float32)
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    if values.shape[1] % BLOCK:
        raise DlavmError(f"{name}: expected rows of a multiple of {BLOCK}, got {values.shape!r}")
    kind = gguf.GGMLQuantizationType.Q4_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def _add_config(writer: Any, config: dict[str, Any], name: str) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    model = tokenizer["model"]
    if model["type"] != "BPE" or tokenizer["pre_tokenizer"]["type"] != "ByteLevel":
        raise DlavmError(f"tokenizer.json: expected byte-level BPE, got {model['type']!r}")
    special = {added["id"]: added["content"] for added in tokenizer["added_tokens"]}
    names = {**{number: text for text, number in model["vocab"].items()}, **special}
    ids = range(config["vocab_size"])
    normal, control, unused = (int(getattr(gguf.TokenType, kind)) for kind in ("NORMAL", "CONTROL", "UNUSED"))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([names.get(i, f"<unused {i}>") for i in ids])
    writer.add_token_types([control if i in special else normal if i in names else unused for i in ids])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)


def main() -> int:
    """Converts, or says in one line why not."""
    parser = argparse.ArgumentParser(description="Write a Llama checkpoint as GGUF with Q4_0 weights.")
    parser.add_argument("checkpoint", type=Path, help="a Hugging Face directory")
    parser.add_argument("out", type=Path, help="the GGUF file")
    args = parser.parse_args()
    try:
        convert(args.checkpoint, args.out)
    except DlavmError as error:
        print(f"make_gguf: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
