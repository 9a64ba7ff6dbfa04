"""ChatGLM2 and 3 with the first GLM-4 (chatglm), GLM-4 as transformers has it (glm), and the GLM-4 of 2025 (glm4)."""

from __future__ import annotations

from dataclasses import replace

from dlavm.frontend.decoder import Attention, Decoder, Fused, Layer, Mlp, Names
from dlavm.frontend.families.family import attention_of, decoder_of, mlp_of, names
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.families.llama import rms
from dlavm.frontend.rotary import Rotary
from dlavm.support.errors import DlavmError

CHATGLM_NAMES = Names(
    "transformer.",
    "encoder.layers.{}.",
    "transformer.output_layer",
    {
        "embed": "embedding.word_embeddings",
        "final_norm": "encoder.final_layernorm",
        "attn_norm": "input_layernorm",
        "qkv": "self_attention.query_key_value",
        "o": "self_attention.dense",
        "mlp_norm": "post_attention_layernorm",
        "gate_up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
)
GLM_NAMES = names(gate=None, up=None, gate_up="mlp.gate_up_proj")
GLM4_NAMES = names(
    gate=None,
    up=None,
    gate_up="mlp.gate_up_proj",
    attn_post_norm="post_self_attn_layernorm",
    mlp_post_norm="post_mlp_layernorm",
)
FIXED = {"rmsnorm": True, "post_layer_norm": True, "apply_residual_connection_post_layernorm": False,
         "original_rope": True, "interleaved_qkv": False}  # fmt: skip


def chatglm(f: Fields) -> Decoder:
    """The first half of each head turns, in adjacent pairs; rope_ratio stretches its base for long contexts."""
    if f.has("inner_hidden_size") or f.has("position_encoding_2d"):
        raise DlavmError(
            f"{f.place}: model_type expected ChatGLM2, ChatGLM3 or GLM-4, got the first ChatGLM-6B, "
            "whose positions have two dimensions"
        )
    for name, value in FIXED.items():
        f.only(name, value)
    heads, hidden = f.count("num_attention_heads"), f.count("hidden_size")
    groups = f.count("multi_query_group_num", 1) if f.flag("multi_query_attention", True) else heads
    d = f.count("kv_channels", 128)
    if heads % groups:
        raise f.error("multi_query_group_num", f"a part of {heads} heads")
    if d % 4:
        raise f.error("kv_channels", "a multiple of 4")
    bias = f.flag("add_bias_linear", False)
    rotary = Rotary(d // 2, 10000.0 * f.positive("rope_ratio", 1.0), interleaved=True)
    attention = Attention(
        heads, groups, d, d**-0.5, rotary, bias=bias or f.flag("add_qkv_bias", True), output_bias=bias
    )
    norm = replace(rms(f), eps=f.real("layernorm_epsilon", 1e-5))
    mlp = Mlp(f.count("ffn_hidden_size"), "silu", bias=bias)
    return Decoder(
        CHATGLM_NAMES,
        f.count("padded_vocab_size"),
        hidden,
        f.count("seq_length", 2048),
        (Layer(attention, mlp),) * f.depth("num_layers"),
        norm,
        tied=f.flag("tie_word_embeddings", False),
        qkv=Fused(),
    )


def glm(f: Fields) -> Decoder:
    return _glm(f, GLM_NAMES)


def glm4(f: Fields) -> Decoder:
    return _glm(f, GLM4_NAMES)


def _glm(f: Fields, named: Names) -> Decoder:
    f = f.with_defaults({"head_dim": 128})
    attention = attention_of(f, bias=f.flag("attention_bias", True), partial=0.5, interleaved=True)
    return decoder_of(f, attention, mlp_of(f), rms(f, 1.5625e-07), named)
